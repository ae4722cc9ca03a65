"""The directory of one run: held by a lock while the run lives, swept by the next run when it died."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path
from types import TracebackType

from pytest_smol.errors import DiskFull

__all__ = ["NAMES", "RunDirectory", "require_space", "sweep"]

_PREFIX = "pytest-smol-run-"
_UNBORN_PREFIX = "pytest-smol-new-"

#: What such directories are called, as globs: no guest sees another's memory in one.
NAMES = (f"{_PREFIX}*", f"{_UNBORN_PREFIX}*")

#: A directory that never got its lock is given this long, in seconds, before it counts as left behind.
_UNBORN_AGE = 3600.0


class RunDirectory:
    """A fresh 0700 directory with an exclusive lock, removed at the end. A context manager.

    Raises :class:`DiskFull` where none can be made.
    """

    def __init__(self, parent: Path | None = None) -> None:
        unborn = _make_unborn(parent)
        self._lock = os.open(unborn / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        # Only now may a sweep see it: whoever finds the final name finds the lock held.
        self.path = unborn.with_name(unborn.name.replace(_UNBORN_PREFIX, _PREFIX))
        unborn.rename(self.path)

    def close(self) -> None:
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
    """Remove what runs of this user that no longer live have left; give what was removed."""
    parent = parent or Path(tempfile.gettempdir())
    dead = [path for path in parent.glob(_PREFIX + "*") if _owned(path) and _unlocked(path)]
    old = time.time() - _UNBORN_AGE
    dead += [path for path in parent.glob(_UNBORN_PREFIX + "*") if _owned(path) and _older(path, old)]
    for path in dead:
        shutil.rmtree(path, ignore_errors=True)
    return dead


def _make_unborn(parent: Path | None) -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix=_UNBORN_PREFIX, dir=parent))
    except OSError as error:
        raise DiskFull(
            f"a directory for this run cannot be made: {error}",
            remedy="point TMPDIR to a directory that you can write to",
        ) from error


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

    A memory file is sparse: a file system that fills up while a guest runs
    would kill QEMU by SIGBUS, so the room is asked for before.
    """
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise DiskFull(
            f"{directory} has {free >> 20} MiB free; {needed >> 20} MiB are needed for a guest's memory",
            remedy="free some space there, or point TMPDIR and XDG_CACHE_HOME to a larger file system",
        )
