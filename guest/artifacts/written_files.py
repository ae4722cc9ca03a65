"""What tests wrote, found in the upper directory of the overlay that is the guest's root.

The guest's root is an overlay whose upper directory (Linux,
Documentation/filesystems/overlayfs.rst) holds what was written since the boot,
and nothing else: a file that was deleted is a character device 0:0 there. The
walk starts at a descriptor of that directory, so a test that changes or replaces
the root does not affect it. It runs with the rights of the tests' user: what
that user cannot list or read is not found.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_smol.guest.surroundings import UPPER_FD

#: The granularity of a file system's timestamps in nanoseconds: two changes within it may have one ctime.
_TICK = 20_000_000

#: A file with another signature has changed: st_mode, st_ino, st_size and st_ctime_ns.
_Signature = tuple[int, int, int, int]


@dataclass(frozen=True)
class Layer:
    """The overlay's upper directory, open as ``fd``; tests see its content below the path ``prefix``."""

    fd: int
    prefix: str

    @classmethod
    def of(cls, root: str) -> Layer | None:
        """The layer that guest/init left open, in which ``root`` is; None where it did not."""
        try:
            os.set_inheritable(UPPER_FD, False)
        except OSError:
            return None
        return cls(UPPER_FD, "/")

    def walk(self, top: str) -> Iterator[tuple[str, os.stat_result]]:
        """The absolute path and status of all that is below ``top``: files, and directories without any."""
        begin = os.path.relpath(top, self.prefix)
        waiting = [begin]
        while waiting:
            where = waiting.pop()
            found = list(self._scan(where))
            for name, status in found:
                path = os.path.normpath(os.path.join(where, name))
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(path)
                else:
                    yield os.path.join(self.prefix, path), status
            if not found and where != begin:
                yield from self._empty(where)

    def _scan(self, where: str) -> Iterator[tuple[str, os.stat_result]]:
        try:
            directory = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self.fd)
        except OSError:
            return
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    yield entry.name, entry.stat(follow_symlinks=False)
        except OSError:  # it vanishes while it is read
            return
        finally:
            os.close(directory)

    def _empty(self, where: str) -> Iterator[tuple[str, os.stat_result]]:
        try:
            yield os.path.join(self.prefix, where), os.lstat(where, dir_fd=self.fd)
        except OSError:
            return

    def open(self, path: str) -> int:
        """A descriptor of the regular file at ``path``, to read it. Raises OSError, also for another kind."""
        where = os.path.relpath(path, self.prefix)
        # To open a device would be to use it.
        mode = os.lstat(where, dir_fd=self.fd).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, "it is no regular file")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(where, flags, dir_fd=self.fd)


def _ancestors(path: str) -> Iterator[str]:
    while (above := os.path.dirname(path)) != path:
        yield (path := above)


def _signature(status: os.stat_result) -> _Signature:
    return status.st_mode, status.st_ino, status.st_size, status.st_ctime_ns


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


class Changes:
    """What changed below a directory from one scan to the next."""

    def __init__(self, layer: Layer, top: str) -> None:
        self._layer = layer
        self._top = top
        self._known: dict[str, _Signature] = {}
        self._unsure: set[str] = set()
        self.next()

    def known(self) -> list[str]:
        """The regular files that the last scan found."""
        return [path for path, (mode, *_) in self._known.items() if stat.S_ISREG(mode)]

    def next(self) -> tuple[dict[str, str], set[str]]:
        """Scan again: how each path changed since the last scan, and the files that may have changed.

        A change is ``new`` (to this layer: it may have been there on the host),
        ``changed`` or ``deleted``.
        """
        begin = time.time_ns()
        unsure, self._unsure = self._unsure, set()
        seen: dict[str, _Signature] = {}
        changes: dict[str, str] = {}
        for path, status in self._layer.walk(self._top):
            signature = seen[path] = _signature(status)
            if signature != self._known.get(path):
                kind = "changed" if path in self._known else "new"
                changes[path] = "deleted" if _is_whiteout(status) else kind
            if status.st_ctime_ns > begin - _TICK:
                self._unsure.add(path)
        held = {directory for path in seen for directory in _ancestors(path)}
        changes |= dict.fromkeys(self._known.keys() - seen.keys() - held, "deleted")
        self._known = seen
        return changes, unsure & seen.keys() - changes.keys()
