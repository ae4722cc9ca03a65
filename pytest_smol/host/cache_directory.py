"""Where the user's cache is, and whether a directory may be trusted.

Files in the cache and in the directories of runs (kernels, memory of guests) are
used with the user's rights, so a directory is refused if another user can write
to it, or can replace it by another directory.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import stat
from collections.abc import Mapping
from pathlib import Path

from pytest_smol.errors import DiskFull, SettingError

__all__ = ["directory", "distrust", "distrust_parent", "location", "trusted"]

ROOT = 0


def location(environ: Mapping[str, str]) -> Path:
    """``$XDG_CACHE_HOME/pytest-smol``, else ``~/.cache/pytest-smol``.

    The XDG Base Directory Specification has relative values ignored.
    """
    base = environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if os.path.isabs(base) else Path(os.path.expanduser("~")) / ".cache"
    return root / "pytest-smol"


def distrust(found: os.stat_result, uid: int) -> str:
    """Why a directory with this ``lstat`` must not be used by ``uid``; empty if it may."""
    if not stat.S_ISDIR(found.st_mode):
        return "it is not a directory"
    if found.st_uid != uid:
        return f"it belongs to user {found.st_uid}, not to you (user {uid})"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write to it (mode {stat.S_IMODE(found.st_mode):04o})"
    return ""


def distrust_parent(found: os.stat_result, uid: int) -> str:
    """Why ``uid`` must not have a directory in one with this ``stat``; empty if it may.

    The owner of a directory can rename what is in it, and so can every user who may write
    to it if it has no sticky bit. The superuser and the user's own group are trusted.
    """
    if not stat.S_ISDIR(found.st_mode):
        return "it is not a directory"
    if found.st_uid not in (uid, ROOT):
        return f"it belongs to user {found.st_uid}, neither to you (user {uid}) nor to root"
    if found.st_mode & stat.S_ISVTX:
        return ""
    by_group = found.st_mode & stat.S_IWGRP and not _is_own_group(found.st_gid, uid)
    if by_group or found.st_mode & stat.S_IWOTH:
        return f"others may write to it (mode {stat.S_IMODE(found.st_mode):04o})"
    return ""


def _is_own_group(gid: int, uid: int) -> bool:
    """Whether a group is root's, or the one of the user's own name that many distributions make."""
    try:
        return gid == ROOT or grp.getgrgid(gid).gr_name == pwd.getpwuid(uid).pw_name
    except KeyError:
        return False


def trusted(path: Path) -> Path:
    """``path`` itself, if it is a directory that only the user may write to or replace.

    Raises :class:`~pytest_smol.errors.SettingError` otherwise.
    """
    reason = distrust(path.lstat(), os.geteuid())
    if reason:
        raise SettingError(
            f"the cache directory {path} is refused: {reason}",
            remedy=f"remove it or run 'chmod 700 {path}', or set XDG_CACHE_HOME to a directory of your own",
        )
    reason = distrust_parent(path.parent.stat(), os.geteuid())
    if reason:
        raise SettingError(
            f"the cache directory {path} is refused, as {path.parent} is not safe: {reason}",
            remedy=f"run 'chmod go-w {path.parent}' if it is yours, or set XDG_CACHE_HOME to a directory"
            " of your own",
        )
    return path


def directory() -> Path:
    """The user's cache directory, made with mode 0700 where it is missing.

    Raises :class:`~pytest_smol.errors.SettingError` for a directory that is
    not the user's own, and :class:`~pytest_smol.errors.DiskFull` if it cannot
    be made.
    """
    path = location(os.environ)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):  # trusted() checks it
            path.mkdir(mode=0o700)
    except OSError as error:
        raise DiskFull(
            f"the cache directory {path} cannot be made: {error.strerror}",
            remedy="set XDG_CACHE_HOME to a directory that you can write to",
        ) from error
    return trusted(path)
