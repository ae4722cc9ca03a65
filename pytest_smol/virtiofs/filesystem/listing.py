"""Directory listings whose cookies stay valid while the directory changes."""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

__all__ = ["DirectoryEntry", "Listing", "Listings", "scan"]


MAX_ENTRIES = 1 << 18
"""How many entries all kept listings of one guest have together, unless a single one has more."""
MAX_VANISHED = 1000
"""How many vanished entries a listing may keep places for, beyond as many as it has entries."""


class DirectoryEntry(NamedTuple):
    """A name, its inode number and its DT_* type (0: unknown)."""

    name: bytes
    ino: int
    type: int


class Listing:
    """Entries by position; the cookie of the one after ``entries[n]`` is ``n + 1``. None: vanished."""

    def __init__(self) -> None:
        self.entries: list[DirectoryEntry | None] = []

    def refresh(self, found: Iterable[DirectoryEntry]) -> None:
        """Make it hold what was ``found``: known names stay in place, new ones are appended, sorted.

        Where far more has vanished than is there, places are given out anew.
        """
        fresh = {entry.name: entry for entry in found}
        if len(self.entries) > 2 * len(fresh) + MAX_VANISHED:
            self.entries.clear()
        self.entries = [fresh.pop(entry.name, None) if entry else None for entry in self.entries]
        self.entries += sorted(fresh.values())

    def after(self, cookie: int) -> Iterator[tuple[int, DirectoryEntry]]:
        """Entries from ``cookie`` on (0: all), each with the cookie after it."""
        for index in range(cookie, len(self.entries)):
            entry = self.entries[index]
            if entry is not None:
                yield index + 1, entry


class Listings:
    """Listings by node id; the least recently used is dropped first."""

    def __init__(self, limit: int = 64) -> None:
        self._limit = limit
        self._kept: OrderedDict[int, Listing] = OrderedDict()

    def get(self, nodeid: int) -> tuple[Listing, bool]:
        """The node's listing and whether it is a new, empty one."""
        if nodeid in self._kept:
            self._kept.move_to_end(nodeid)
            return self._kept[nodeid], False
        listing = self._kept[nodeid] = Listing()
        if len(self._kept) > self._limit:
            self._kept.popitem(last=False)
        return listing, True

    def trim(self) -> None:
        """Drop listings until all together have no more than MAX_ENTRIES, or one is left."""
        while len(self._kept) > 1 and sum(len(kept.entries) for kept in self._kept.values()) > MAX_ENTRIES:
            self._kept.popitem(last=False)

    def drop(self, nodeid: int) -> None:
        """Forget the node's listing."""
        self._kept.pop(nodeid, None)


def scan(fd: int) -> tuple[os.stat_result, list[tuple[bytes, int, int]]]:
    """Of an open directory its fstat(2), taken first, and each entry's name, host inode number and DT_* type.

    Raises OSError.
    """
    st = os.fstat(fd)
    with os.scandir(fd) as found:
        return st, [(os.fsencode(entry.name), entry.inode(), _type(entry)) for entry in found]


def _type(entry: os.DirEntry[str]) -> int:
    if entry.is_symlink():
        return stat.S_IFLNK >> 12
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR >> 12
    return stat.S_IFREG >> 12 if entry.is_file(follow_symlinks=False) else 0
