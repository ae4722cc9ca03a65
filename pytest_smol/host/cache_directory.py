"""Where the user's cache is, and whether what lies there may be trusted.

What the cache holds (kernels, snapshots of memory) is run by machines with the
user's rights, so a directory that somebody else can write to is refused.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from pytest_smol.errors import DiskFull, SettingError

__all__ = ["directory", "location", "trusted"]


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


def trusted(path: Path) -> Path:
    """``path`` itself, if it is a directory that only the user may write to.

    Raises :class:`~pytest_smol.errors.SettingError` otherwise.
    """
    reason = distrust(path.lstat(), os.geteuid())
    if reason:
        raise SettingError(
            f"the cache directory {path} is refused: {reason}",
            remedy=f"remove it or run 'chmod 700 {path}', or set XDG_CACHE_HOME to a directory of your own",
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
        with contextlib.suppress(FileExistsError):  # whatever it is, trusted() judges it
            path.mkdir(mode=0o700)
    except OSError as error:
        raise DiskFull(
            f"the cache directory {path} cannot be made: {error.strerror}",
            remedy="set XDG_CACHE_HOME to a directory that you can write to",
        ) from error
    return trusted(path)
