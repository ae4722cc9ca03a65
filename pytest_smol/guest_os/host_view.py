"""The image ``host``: a guest's root as a view of the host's files, without copies.

There are two views. That of the base snapshot has what all projects need that use
this interpreter. That of a session has the files of one project as well.
"""

from __future__ import annotations

import glob
import importlib.metadata
import json
import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.machinery import PathFinder
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote, urlsplit

from pytest_smol.errors import SettingError
from pytest_smol.guest_os.accounts import User, group_file, passwd_file
from pytest_smol.guest_os.host_paths import add, check, empty_directory, is_at_or_below, reach, why_not
from pytest_smol.host import cache_directory
from pytest_smol.host.run_directory import NAMES
from pytest_smol.virtiofs.hiding.globs import Globs
from pytest_smol.virtiofs.hiding.rules import Hiding
from pytest_smol.virtiofs.view import Content, Directory, Entry, Link, View

__all__ = ["Interpreter", "base_view", "hiding", "project_view"]

PACKAGE = Path(__file__).parents[1]
RECIPE = PACKAGE / "images" / "host.json"

#: The modules of pytest and of what it requires: the guest imports them before it is told its import path.
_NEEDED = (
    *("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments"),
    *("exceptiongroup", "tomli", "typing_extensions"),
)


@dataclass(frozen=True)
class Interpreter:
    """A Python: its program, the host paths that it and its installed packages need, and its version."""

    executable: str
    prefixes: tuple[str, ...]
    version: str

    @classmethod
    def current(cls) -> Interpreter:
        """The Python of this process."""
        # The standard library and site-packages are named in addition to the prefixes
        # that hold them, because a prefix that is a home directory is not shown.
        paths = sysconfig.get_paths()
        prefixes = [
            *(sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix),
            *(paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")),
            *(sysconfig.get_path(name, vars=_base_variables()) for name in ("stdlib", "platstdlib")),
            *site.getsitepackages(),
            *([site.getusersitepackages()] if site.ENABLE_USER_SITE else []),
            *_pythonpath_directories(),
            sys.executable,
            os.path.realpath(sys.executable),
        ]
        version = ".".join(map(str, sys.version_info[:3]))
        return cls(sys.executable, tuple(dict.fromkeys(path for path in prefixes if path)), version)


def _pythonpath_directories() -> list[str]:
    """Those directories on ``$PYTHONPATH`` that hold pytest or a package that it needs.

    A guest is told its import path after the base snapshot was made, for which it needs these. Other
    directories on ``$PYTHONPATH`` may be the project's own, which no base snapshot depends on.
    """
    if sys.flags.ignore_environment:
        return []
    entries = map(os.path.abspath, filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    return [entry for entry in entries if any(_has_module(entry, name) for name in _NEEDED)]


def _has_module(directory: str, name: str) -> bool:
    spec = PathFinder.find_spec(name, [directory])
    return spec is not None and spec.has_location  # which a directory without an __init__.py has not


def _base_variables() -> dict[str, str]:
    return {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}


def hiding(hide: Sequence[str], show: Sequence[str]) -> Hiding:
    """The rules by which files are hidden from guests.

    They are the built-in ones, with the user's globs ``hide`` and ``show``; the cache and the
    directories of runs are always hidden. Raises
    :class:`~pytest_smol.errors.SettingError` for a text that is not a glob.
    """
    for name, globs in (("smol_hide", hide), ("smol_show", show)):
        for text in globs:
            try:
                Globs([text])
            except ValueError as error:
                raise SettingError(
                    f"{name} has {text!r}, which is {error}",
                    remedy="name files as .gitignore does: *.pem, secrets.toml, config/private",
                ) from None
    kept = glob.escape(os.path.realpath(cache_directory.location(os.environ)))
    return replace(Hiding.of(tuple(hide), tuple(show)), own=(*NAMES, kept))


def base_view(
    guest_dir: Path = PACKAGE / "guest",
    package_dir: Path = PACKAGE,
    user: User | None = None,
    interpreter: Interpreter | None = None,
    hidden: Hiding | None = None,
    system: Mapping[str, Entry] = MappingProxyType({}),
) -> View:
    """The view of the base snapshot.

    It has the host's system directories, ``interpreter``, the guest's runner
    (``guest_dir``), pytest-smol itself (``package_dir``), an ``/etc`` with the
    files that the recipe lists, and an empty home directory. ``user`` and
    ``interpreter`` are by default those of this process; ``hidden`` are the
    rules by which files are hidden; ``system`` are entries for the guest's kernel (kernel_view.py).
    """
    user = user or User.current()
    interpreter = interpreter or Interpreter.current()
    table = json.loads(RECIPE.read_text("utf-8"))
    entries = {**_composed(table, user), **system}
    for place in filter(os.path.exists, table["system"]):
        add(entries, reach(place))
    places = [*_etc(table["etc"]), *interpreter.prefixes, str(guest_dir), str(package_dir)]
    _show(entries, places, user.home)
    rules = replace(hidden or Hiding(), home=os.path.realpath(user.home))
    return View({}, rules).union(entries, _roots(interpreter.prefixes, user.home, table["system"]))


def _roots(places: Iterable[str], home: str, system: Sequence[str] = ()) -> list[str]:
    """The real paths of those ``places`` that are directories, may be shown and are not below ``system``."""
    real = [os.path.realpath(place) for place in places if os.path.isdir(place) and not why_not(place, home)]
    return [place for place in real if not any(is_at_or_below(place, top) for top in system)]


def _composed(table: Mapping[str, Any], user: User) -> dict[str, Entry]:
    entries: dict[str, Entry] = {path: Directory(int(mode, 8)) for path, mode in table["directories"].items()}
    entries.update({path: Content(text.encode("utf-8")) for path, text in table["files"].items()})
    entries.update({path: Link(target) for path, target in table["links"].items()})
    entries["/etc/passwd"] = Content(passwd_file(user).encode("utf-8"))
    entries["/etc/group"] = Content(group_file(user).encode("utf-8"))
    for home in (user.home, user.environment_home):
        if os.path.isdir(home):
            entries.update(empty_directory(home))
    return entries


def _etc(patterns: Iterable[str]) -> list[str]:
    return [path for pattern in patterns for path in sorted(glob.glob(f"/etc/{pattern}"))]


def _show(entries: dict[str, Entry], places: Iterable[str], home: str) -> None:
    """Add entries for those ``places`` that exist and may be shown."""
    for place in places:
        if os.path.exists(place) and not why_not(place, home):
            add(entries, reach(place))


def project_view(
    base: View, *, rootdir: Path, cwd: Path, sys_path: Sequence[str], extra: Sequence[Path]
) -> View:
    """``base`` and one project: ``rootdir``, ``sys_path``, the paths in ``extra`` and editable installs.

    If the working directory ``cwd`` is outside of all these, it is shown empty. Raises
    :class:`~pytest_smol.errors.SettingError` if ``rootdir`` or one of
    ``extra`` is a home directory, the root or another place that is never
    shown; such entries of ``sys_path`` are left out.
    """
    home = User.current().home
    check(str(rootdir), "the project's rootdir", home)
    for path in extra:
        check(str(path), "a path that was named for the guest", home)
    search = [os.path.join(cwd, entry) for entry in sys_path]
    entries: dict[str, Entry] = {}
    add(entries, empty_directory(os.path.abspath(cwd)))
    own = list(map(os.path.abspath, [rootdir, *extra]))
    found = list(map(os.path.normpath, [*search, *editable_projects(search)]))
    _show(entries, [*own, *found], home)
    kept = {
        path: entry
        for path, entry in entries.items()
        if not (isinstance(entry, Directory) and path in base.entries)
    }
    system = json.loads(RECIPE.read_text("utf-8"))["system"]
    return base.union(kept, [*_roots(own, home), *_roots(found, home, system)])


def editable_projects(search: Sequence[str]) -> Iterator[str]:
    """The directories of projects whose editable installs are found in the directories ``search``.

    Source: PEP 610 and PyPA's "Recording the Direct URL Origin of installed distributions".
    """
    for distribution in importlib.metadata.distributions(path=list(search)):
        text = distribution.read_text("direct_url.json")
        directory = parse_direct_url(text) if text else None
        if directory:
            yield directory


def parse_direct_url(text: str) -> str | None:
    """The project's directory if ``text``, a ``direct_url.json``, is of an editable install, else None."""
    try:
        record = json.loads(text)
        editable = record.get("dir_info", {}).get("editable", False)
        url = urlsplit(record["url"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return unquote(url.path) if editable is True and url.scheme == "file" and url.path else None
