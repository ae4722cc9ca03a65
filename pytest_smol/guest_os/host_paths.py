"""Entries of a view for a host path, with the symbolic links and directories that lead to it."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Mapping

from pytest_smol.errors import SettingError
from pytest_smol.virtiofs.view import Directory, Entry, HostPath, Link

__all__ = ["add", "check", "empty_directory", "is_at_or_below", "reach", "why_not"]

#: How many symbolic links one path may lead through; Linux's MAXSYMLINKS (include/linux/namei.h).
MAXSYMLINKS = 40

#: Directories whose content a view composes; a project that is one of them would replace it.
COMPOSED = ("/dev", "/etc", "/home", "/proc", "/root", "/run", "/sys", "/usr", "/var")

#: Directories on which guest/init mounts file systems, which hide what the host has there.
MOUNTED = ("/dev", "/proc", "/run", "/sys")


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _directory(found: os.stat_result) -> Directory:
    return Directory(stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)


def reach(path: str) -> dict[str, Entry]:
    """The entries with which the absolute ``path`` resolves in a guest exactly as on the host.

    These are the symbolic links on its way unchanged, the directories on its
    way without their content, and the file or directory that it names. Raises
    :class:`OSError` as lstat(2) does, with ``ELOOP`` for more than MAXSYMLINKS links.
    """
    entries: dict[str, Entry] = {}
    here, todo, links = "/", _parts(path), 0
    while todo:
        part = todo.pop(0)
        there = posixpath.dirname(here) if part == ".." else posixpath.join(here, part)
        found = os.lstat(there)
        if not stat.S_ISLNK(found.st_mode):
            here = there
            entries[here] = _directory(found) if todo else HostPath(here)
            continue
        links += 1
        if links > MAXSYMLINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        target = os.readlink(there)
        entries[there] = Link(target)
        todo = _parts(target) + todo
        here = "/" if target.startswith("/") else here
    # If a path ends in "..", what it names has been added as a bare directory before.
    return {**entries, here: HostPath(here)}


def empty_directory(path: str) -> dict[str, Entry]:
    """As :func:`reach`, but a directory that ``path`` names is shown empty. Raises OSError."""
    entries = reach(path)
    return {
        place: _directory(os.lstat(place)) if isinstance(entry, HostPath) and os.path.isdir(place) else entry
        for place, entry in entries.items()
    }


def add(entries: dict[str, Entry], more: Mapping[str, Entry]) -> None:
    """Add ``more`` to ``entries``; a directory without content never replaces another entry."""
    for path, entry in more.items():
        if not (isinstance(entry, Directory) and path in entries):
            entries[path] = entry


def is_at_or_below(path: str, place: str) -> bool:
    """Whether ``path`` is ``place`` or below it, by their names; symbolic links are not resolved."""
    return path == place or path.startswith(place.rstrip("/") + "/")


def why_not(path: str, home: str) -> str:
    """Why ``path`` must not be shown to a guest of a user whose home is ``home``; empty if it may."""
    real = os.path.realpath(path)
    if any(is_at_or_below(real, place) for place in MOUNTED):
        return "guests have file systems of their own there"
    if home and is_at_or_below(os.path.realpath(home), real):
        return "that is a home directory, or holds one"
    if any(is_at_or_below(place, real) for place in COMPOSED):
        return "that is a directory of the system"
    return ""


def check(path: str, what: str, home: str) -> None:
    """Raise :class:`~pytest_smol.errors.SettingError` if ``path``, which is ``what``, must not be shown."""
    reason = why_not(path, home)
    if reason:
        raise SettingError(
            f"{what} is {path}, which is never shown to a guest as a whole: {reason}",
            remedy="put the project into a directory of its own and run pytest there (or with --rootdir)",
        )
