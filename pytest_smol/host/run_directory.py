"""The directory of one run: locked until the run ends, and removed by the next run if this one was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path
from types import TracebackType

from pytest_smol.errors import DiskFull, SettingError
from pytest_smol.host.cache_directory import distrust_parent

__all__ = ["NAMES", "RunDirectory", "require_space", "sweep"]

_PREFIX = "pytest-smol-run-"
_NEW_PREFIX = "pytest-smol-new-"

#: The names of such directories, as globs. They are hidden from guests, as they hold the memory of others.
NAMES = (f"{_PREFIX}*", f"{_NEW_PREFIX}*")

#: A directory without a lock is removed only when older than this, in seconds: it may just have been made.
_NEW_AGE = 3600.0

_REMEDY = "name a directory of your own with --smol-snapshot-dir, or point TMPDIR to one"


class RunDirectory:
    """A fresh directory with mode 0700 and an exclusive lock, removed at the end. A context manager.

    It is made in ``parent``, which is the directory for temporary files if none
    is given. Raises :class:`DiskFull` where none can be made, and
    :class:`SettingError` for a ``parent`` in which others could replace it.
    """

    def __init__(self, parent: Path | None = None) -> None:
        made = _make(parent)
        self._lock = os.open(made / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        # Only now may a sweep see it: a directory with the final name has a lock that is held.
        self.path = made.with_name(made.name.replace(_NEW_PREFIX, _PREFIX))
        made.rename(self.path)

    def close(self) -> None:
        """Remove the directory and give up the lock; idempotent."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def sweep(parent: Path | None = None) -> list[Path]:
    """Remove what runs of this user that were killed have left in ``parent``; returns what was removed."""
    parent = parent or Path(tempfile.gettempdir())
    dead = [path for path in parent.glob(_PREFIX + "*") if _owned(path) and _unlocked(path)]
    old = time.time() - _NEW_AGE
    dead += [path for path in parent.glob(_NEW_PREFIX + "*") if _owned(path) and _older(path, old)]
    for path in dead:
        shutil.rmtree(path, ignore_errors=True)
    return dead


def _make(parent: Path | None) -> Path:
    """A new directory, without a lock yet."""
    if parent is not None and parent.is_dir():
        reason = distrust_parent(parent.stat(), os.geteuid())
        if reason:
            raise SettingError(f"the directory of this run cannot be in {parent}: {reason}", remedy=_REMEDY)
    try:
        return Path(tempfile.mkdtemp(prefix=_NEW_PREFIX, dir=parent))
    except OSError as error:
        raise DiskFull(f"a directory for this run cannot be made: {error}", remedy=_REMEDY) from error


def _older(path: Path, time_stamp: float) -> bool:
    try:
        return path.stat().st_mtime < time_stamp
    except FileNotFoundError:  # it has its lock and its final name by now
        return False


def _owned(path: Path) -> bool:
    try:
        return path.lstat().st_uid == os.getuid() and path.is_dir() and not path.is_symlink()
    except OSError:
        return False


def _unlocked(path: Path) -> bool:
    try:
        fd = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def require_space(directory: Path, needed: int) -> None:
    """Raise :class:`DiskFull` unless ``directory`` has room for ``needed`` bytes.

    A memory file is sparse. If its file system gets full while a guest runs,
    SIGBUS kills the engine's process.
    """
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise DiskFull(
            f"{directory} has {free >> 20} MiB free; {needed >> 20} MiB are needed for a guest's memory",
            remedy="free some space there, or point TMPDIR, --smol-snapshot-dir or XDG_CACHE_HOME elsewhere",
        )
