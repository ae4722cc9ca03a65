"""Who chose a setting: the user (command line, environment) or the project (its ini-file and addopts).

A project may choose what concerns its tests. It may not name a program that the host starts, nor a file
outside of itself that the host writes.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_smol.errors import SettingError

__all__ = [
    "UserArguments",
    "filters_for_host",
    "refuse_foreign_paths",
    "refuse_remote_workers",
    "typed_by_user",
]

#: Options of ``addopts`` whose paths only the guest uses, or that are no paths though they may look like one.
_NOT_WRITTEN = frozenset(
    {
        "file_or_dir",
        "ignore",
        "ignore_glob",
        "deselect",
        "keyword",
        "markexpr",
        "plugins",
        "override_ini",
        "pythonwarnings",
        "confcutdir",
        "rootdir",
        "inifilename",
        "usepdb_cls",
    }
)

#: Ini values that name a file or directory which the host's pytest, or this plugin, writes.
_WRITTEN_INI = ("cache_dir", "log_file", "smol_keep_console", "smol_snapshot_dir")

#: ``KIND:PATH`` and ``KIND=PATH``, as in ``--cov-report=html:DIRECTORY``.
_KIND = re.compile(r"[A-Za-z][\w-]*[:=](?=[~/.])")

#: The only ``--tx`` that a project may ask for: workers of this host, with this interpreter.
_LOCAL_WORKERS = re.compile(r"(\d+\*)?popen")


def typed_by_user(config: pytest.Config, flag: str, ini: str) -> bool:
    """Whether the user gave ``flag``, or the ini value with ``-o``, on the command line or in PYTEST_ADDOPTS.

    A worker of pytest-xdist has the options of its controller, which was asked this.
    """
    if hasattr(config, "workerinput"):
        return True
    starts = (f"{flag}=", f"{ini}=", f"-o{ini}=", f"--override-ini={ini}=")
    return any(arg == flag or arg.startswith(starts) for arg in _user_args(config))


def _user_args(config: pytest.Config) -> list[str]:
    return [*shlex.split(os.environ.get("PYTEST_ADDOPTS", "")), *map(str, config.invocation_params.args)]


class UserArguments:
    """What the user gave: the command line as typed, and ``PYTEST_ADDOPTS``."""

    def __init__(self, config: pytest.Config, parser: pytest.Parser) -> None:
        args = _user_args(config)
        self._final = vars(config.known_args_namespace)
        self._given = vars(parser.parse_known_args(args, namespace=argparse.Namespace()))

    def of_project(self) -> Iterator[tuple[str, Any]]:
        """The options whose values the project's ``addopts`` chose, by ``dest``; of a list, what it added."""
        for dest, value in self._final.items():
            given = self._given.get(dest)
            if value == given:
                continue
            if isinstance(value, list):
                yield dest, [each for each in value if each not in (given or [])]
            else:
                yield dest, value

    def value(self, dest: str) -> Any:
        """What the user gave for the option ``dest``, else its default."""
        return self._given.get(dest)

    def gave(self, dest: str) -> bool:
        """Whether the user set the flag ``dest``."""
        return bool(self.value(dest))

    def overrides(self, name: str) -> bool:
        """Whether the user gave the ini value ``name`` on the command line (``-o name=...``)."""
        return any(each.partition("=")[0].strip() == name for each in self._given.get("override_ini") or [])


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, (str, os.PathLike)):
        yield os.fspath(value)
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _texts(each)


def _is_foreign(text: str, base: Path, roots: tuple[Path, ...]) -> bool:
    """Whether ``text``, relative to ``base``, is a path outside of all ``roots``, through links as well."""
    path = _KIND.sub("", text, count=1)
    if "/" not in path and path not in ("..", "~"):
        path = f"./{path}"
    expanded = os.path.expandvars(os.path.expanduser(path))
    if "\0" in expanded:
        return True
    real = Path(os.path.realpath(base / expanded))
    return not any(real == root or root in real.parents for root in roots)


def refuse_foreign_paths(config: pytest.Config, user: UserArguments) -> None:
    """Raise :class:`SettingError` where the project has the host write outside of itself."""
    roots = tuple(Path(os.path.realpath(root)) for root in (config.rootpath, config.invocation_params.dir))
    for dest, value in user.of_project():
        for text in _texts(value):
            if dest not in _NOT_WRITTEN and _is_foreign(text, config.invocation_params.dir, roots):
                name = f"--{dest.replace('_', '-')}"
                raise _refused(
                    f"addopts of the project sets {name} to {text!r}, which is outside of the project"
                )
    for name in _WRITTEN_INI:
        for text in _texts(_ini(config, name)):
            if text and not user.overrides(name) and _is_foreign(text, config.rootpath, roots):
                raise _refused(f"the project sets {name} to {text!r}, which is outside of the project")


def _ini(config: pytest.Config, name: str) -> Any:
    try:
        return config.getini(name)
    except (KeyError, ValueError):  # of a plugin that is not loaded
        return None


def _refused(what: str) -> SettingError:
    return SettingError(
        f"{what}; with --smol a project does not choose what the host writes",
        remedy="if that is what you want, give it on the command line or in PYTEST_ADDOPTS",
    )


def refuse_remote_workers(user: UserArguments) -> None:
    """Raise :class:`SettingError` where the project names programs or hosts for pytest-xdist."""
    for dest, value in user.of_project():
        if dest in ("tx", "px", "rsyncdir"):
            for text in _texts(value):
                if not (dest == "tx" and _LOCAL_WORKERS.fullmatch(text)):
                    raise SettingError(
                        f"addopts of the project has --{dest} {text!r}; with --smol a project does not choose"
                        " programs and hosts",
                        remedy="give it on the command line or in PYTEST_ADDOPTS",
                    )


def filters_for_host(filters: list[str], importable: Any) -> list[str]:
    """Those warning ``filters`` whose class the host can import without the project; guests have them all.

    ``importable(module)`` tells whether a module can be. The form is that of Python's -W:
    action:message:category:module:lineno.
    """
    kept = []
    for text in filters:
        category = [*text.split(":"), "", ""][2].strip()
        module = category.rpartition(".")[0]
        if not module or importable(module):
            kept.append(text)
    return kept
