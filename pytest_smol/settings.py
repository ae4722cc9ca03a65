"""The table of options, and the frozen settings that come of it.

One row makes the command-line flag, the ini value and the field of
:class:`Settings`. A flag wins over ini, ini over the default.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_smol.errors import SettingError
from pytest_smol.pytest_private import ini_file, unknown_ini_keys
from pytest_smol.setting_values import (
    choice,
    cpus,
    disks,
    memory,
    output_limit,
    path,
    seconds,
    seed,
    storage,
    total_limit,
)
from pytest_smol.trust.settings_origin import typed_by_user

__all__ = [
    "ACCELERATORS",
    "COLLECTIONS",
    "SCOPES",
    "Settings",
    "accept_unknown",
    "add_arguments",
    "add_options",
    "converted",
    "leave_to_guest",
]

SCOPES = ("test", "class", "module", "session")
COLLECTIONS = ("session", "module")
ACCELERATORS = ("auto", "kvm", "tcg")


#: Environment variables that a guest gets where the host has them; ``smol_env`` adds to these.
DEFAULT_ENV = (
    "PATH",
    "VIRTUAL_ENV",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TERM",
    "TZ",
    "COLUMNS",
    "LINES",
    "CI",
    "BUILD_NUMBER",
    "NO_COLOR",
    "FORCE_COLOR",
    "PY_COLORS",
    "PYTEST_ADDOPTS",
    "PYTEST_PLUGINS",
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD",
    "PYTEST_THEME",
    "PYTEST_THEME_MODE",
    "SOURCE_DATE_EPOCH",
)


@dataclass(frozen=True)
class _Row:
    """One option: its field in Settings, its converter, its help, and where it can be given."""

    name: str
    convert: Callable[[Any], Any]
    help: str
    flag: bool = True
    metavar: str | None = None
    is_path: bool = False
    #: The environment variable of a setting that names a program: a project cannot choose it.
    variable: str = ""

    @property
    def option(self) -> str:
        return f"--smol-{self.name.replace('_', '-')}"


_ROWS = (
    _Row("scope", choice(SCOPES), "what shares a VM: test, class, module or session (default: module)"),
    _Row("collect", choice(COLLECTIONS), "collect in one VM, or each module in its own (default: session)"),
    _Row("accel", choice(ACCELERATORS), "auto (default), kvm or tcg", metavar="NAME"),
    _Row("memory", memory, "memory of a VM in MiB (default: 512)", metavar="MIB"),
    _Row("cpus", cpus, "processors of a VM (default: 1 emulated, else one for each core)", metavar="N"),
    _Row("disks", disks, "sizes of the empty disks of a VM, such as 64M 1G (default: none)", flag=False),
    _Row(
        "timeout",
        seconds,
        "limit for one test in a VM, and for collecting a module, in seconds (default: 300)",
        metavar="S",
    ),
    _Row("seed", seed, "seed of the random numbers of tests in VMs (default: none)", metavar="N"),
    _Row("tmp", storage, "most that tests in a VM can write, in MiB (default: what fits its memory)", False),
    _Row("output_limit", output_limit, "most output of one test in a VM, in MiB (default: 16)", flag=False),
    _Row(
        "report_limit",
        total_limit,
        "most that a run keeps of what tests in VMs report, in MiB (default: 1024)",
        flag=False,
    ),
    _Row(
        "artifacts_limit",
        total_limit,
        "most that tests in VMs write in a run by smol_artifacts, in MiB (default: 4096)",
        flag=False,
    ),
    _Row("keep_console", path, "directory to keep each VM's console in, a file for each", True, "DIR", True),
    _Row(
        "snapshot_dir",
        path,
        "directory for the memory of this run's VMs (default: the one for temporary files)",
        metavar="DIR",
        is_path=True,
    ),
    _Row("kernel", str, "guest kernel (a vmlinuz) to use instead of the distribution's", flag=False),
    _Row(
        "qemu",
        str,
        "QEMU program to use; also $SMOL_QEMU (default: qemu-system-x86_64 on PATH)",
        metavar="PROGRAM",
        variable="SMOL_QEMU",
    ),
)


@dataclass(frozen=True)
class Settings:
    """What the user asked for. ``scope`` is None where nothing names one: the marker's place decides.

    ``cpus`` is None where the engine decides; ``disks`` are sizes in bytes; ``nested`` VMs have a
    working /dev/kvm.
    """

    everything: bool = False
    scope: str | None = None
    collect: str = "session"
    accel: str = "auto"
    memory: int = 512
    cpus: int | None = None
    disks: tuple[int, ...] = ()
    nested: bool = False
    timeout: float = 300.0
    kernel: str | None = None
    qemu: str = "qemu-system-x86_64"
    env: tuple[str, ...] = DEFAULT_ENV
    keep_console: Path | None = None
    snapshot_dir: Path | None = None
    seed: int | None = None
    output_limit: int = 16 << 20
    report_limit: int = 1 << 30
    artifacts_limit: int = 4 << 30
    tmp: int | None = None
    hide: tuple[str, ...] = ()
    show: tuple[str, ...] = ()
    artifacts: tuple[str, ...] = ()
    show_writes: bool = False
    require_confinement: bool = False

    @classmethod
    def from_config(cls, config: pytest.Config) -> Settings:
        """The settings of this run. Raises :class:`SettingError` for a value that cannot be."""
        values = {row.name: value for row in _ROWS if (value := _value(config, row)) is not None}
        env = (*DEFAULT_ENV, *config.getini("smol_env"))
        return cls(
            everything=bool(config.getoption("smol")),
            env=env,
            hide=tuple(config.getini("smol_hide")),
            show=tuple(config.getini("smol_show")),
            artifacts=tuple(config.getini("smol_artifacts")),
            show_writes=bool(config.getoption("smol_show_writes")),
            require_confinement=bool(config.getini("smol_require_confinement")),
            nested=bool(config.getini("smol_nested")),
            **values,
        )

    @classmethod
    def from_arguments(
        cls,
        arguments: Mapping[str, object],
        environ: Mapping[str, str] = os.environ,
        directory: Path | None = None,
    ) -> Settings:
        """The settings of a command that runs without pytest.

        ``arguments`` are those of :func:`add_arguments` by name, where others are
        ignored. What is not given there comes from ``environ`` if the setting has a
        variable, else from the ini file of a pytest in ``directory``. Raises
        :class:`SettingError` for a value that is not valid, and for an ini file that
        cannot be parsed.
        """
        found = _ini_file(directory) if directory else None
        values: dict[str, Any] = {}
        for row in (row for row in _ROWS if row.name in arguments):
            text, source = arguments[row.name], row.option
            if not text and row.variable:
                text, source = environ.get(row.variable), f"${row.variable}"
            elif not text and found:
                path, ini = found
                text, source = ini.get(f"smol_{row.name}"), f"smol_{row.name} in {path}"
                text = str(path.parent / str(text)) if text and row.is_path else text
            if text:
                values[row.name] = converted(row.convert, text, source, row.help)
        return cls(**values)

    def guest_environment(self) -> dict[str, str]:
        """The host's variables that a guest may see."""
        return {name: os.environ[name] for name in self.env if name in os.environ}


def _ini_file(directory: Path) -> tuple[Path, dict[str, Any]] | None:
    try:
        return ini_file(directory)
    except pytest.UsageError as error:
        raise SettingError(
            f"pytest's ini file cannot be parsed: {error}", remedy="mend it, or run this elsewhere"
        ) from error


def _value(config: pytest.Config, row: _Row) -> Any:
    given = config.getoption(f"smol_{row.name}") if row.flag else None
    source = row.option if given is not None else f"smol_{row.name} in the ini-file"
    text = given if given is not None else config.getini(f"smol_{row.name}")
    if row.variable:
        if text and not typed_by_user(config, row.option, f"smol_{row.name}"):
            raise SettingError(
                f"the project sets smol_{row.name} to {text!r}; a project does not choose what the host runs",
                remedy=f"if you trust that program, give it with {row.option} or in ${row.variable}",
            )
        text = text or os.environ.get(row.variable, "")
    if row.is_path and given is None and text:
        text = str(config.rootpath / text)
    return None if text in (None, "") else converted(row.convert, text, source, row.help)


def converted(convert: Callable[[Any], Any], value: Any, source: str, remedy: str) -> Any:
    """``convert(value)``. Raises :class:`SettingError` that names ``source`` where it cannot be."""
    try:
        return convert(value)
    except (ValueError, TypeError) as error:
        raise SettingError(f"{source}={value!r} is not valid: {error}", remedy=remedy) from None


_TRUST = "pass all that a VM sends to the terminal, control strings too (clipboard, title)"
_SHELL = "open a shell in the VM of each test that fails, where it failed"


def add_options(parser: pytest.Parser) -> None:
    """Register the flags and ini values of the table."""
    group = parser.getgroup("smol", "tests in microVMs (pytest-smol)")
    group.addoption("--smol", action="store_true", default=False, help="run all tests in microVMs")
    group.addoption("--smol-shell", action="store_true", default=False, help=_SHELL)
    group.addoption("--smol-trust-terminal", action="store_true", default=False, help=_TRUST)
    for row in _ROWS:
        if row.flag:
            dest = f"smol_{row.name}"
            group.addoption(row.option, dest=dest, metavar=row.metavar, default=None, help=row.help)
        parser.addini(f"smol_{row.name}", row.help, type="string", default="")
    parser.addini("smol_env", "more environment variables for the guest, by name", type="args", default=[])
    parser.addini("smol_hide", "more files that no VM sees, as globs", type="args", default=[])
    parser.addini(
        "smol_show", "files that VMs see though they look secret, as globs", type="args", default=[]
    )
    confined = "run no machine unless KVM and the kernel's means confine it"
    parser.addini("smol_require_confinement", confined, type="bool", default=False)
    nested = "give each VM a /dev/kvm that works, to run VMs in it"
    parser.addini("smol_nested", nested, type="bool", default=False)
    writes = "list the paths that tests in VMs wrote"
    group.addoption("--smol-show-writes", action="store_true", default=False, help=writes)
    artifacts = "files below rootdir, as globs, that tests in VMs may write on the host"
    parser.addini("smol_artifacts", artifacts, type="linelist", default=[])


def add_arguments(parser: argparse.ArgumentParser, names: Collection[str]) -> None:
    """Add options to ``parser`` for those settings of the table that are in ``names``."""
    for row in _ROWS:
        if row.name in names:
            parser.add_argument(row.option, dest=row.name, metavar=row.metavar, help=row.help)


def leave_to_guest(config: pytest.Config, parser: pytest.Parser, args: list[str]) -> None:
    """Make the host indifferent to what only a project's own code can explain; the guest loads that."""
    accept_unknown(parser, args)
    for key in unknown_ini_keys(config):
        parser.addini(key, "an ini value that a conftest.py of the guest may define")


def accept_unknown(parser: pytest.Parser, args: list[str]) -> None:
    """Let the host accept options that only a conftest.py of the guest defines.

    Whether they exist and what they mean is decided in the guest, which is
    given the same command line.
    """
    _, unknown = parser.parse_known_and_unknown_args(list(args))
    for name in {arg.split("=")[0] for arg in unknown if arg.startswith("--") and arg != "--"}:
        parser.addoption(name, dest=f"guest_only_{name}", action="append", nargs="?", help=argparse.SUPPRESS)
