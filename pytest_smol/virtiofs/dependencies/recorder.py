"""Records what a guest sees of the host.

The memory of a snapshot holds content and attributes of files that the guest has read. The
snapshot may be used again only if these are unchanged, and missing paths are still missing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable

from pytest_smol.errors import SnapshotError
from pytest_smol.virtiofs.dependencies.dependency import (
    CACHE_DIRECTORY,
    NOT_HASHED,
    FileDependency,
    names_digest,
)

__all__ = ["LIMIT", "DependencyRecorder"]

LIMIT = 200_000  # a guest may look up any number of names; a usual base snapshot has a few thousand

#: The place of a st_dev in a table of devices.
DeviceIndex = Callable[[int], int]


def _is_cache(path: bytes) -> bool:
    """Whether Python's own caches lie there: it checks those itself, and every run may add some."""
    return CACHE_DIRECTORY in path and CACHE_DIRECTORY in path.split(b"/")


class DependencyRecorder:
    """Collects dependencies; of several of the same path the first one counts.

    After ``limit`` paths it remembers no more, and :meth:`freeze` raises SnapshotError.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = LIMIT if limit is None else limit
        self._seen: dict[bytes, os.stat_result | None] = {}
        self._listed: dict[bytes, tuple[os.stat_result, str]] = {}
        self._read: set[bytes] = set()
        self._missed: set[str] = set()
        self._listed_composed: set[str] = set()

    def saw(self, path: bytes, st: os.stat_result | None) -> None:
        """The guest was told of ``path``, or that nothing is there."""
        if len(self._seen) < self._limit and path not in self._seen and not _is_cache(path):
            self._seen[path] = st

    def read(self, path: bytes) -> None:
        """The guest was told something of the content of ``path``, which it saw before."""
        if len(self._read) < self._limit:
            self._read.add(path)

    def missed(self, path: str) -> None:
        """The guest was told that the view has nothing at guest path ``path``."""
        if len(self._missed) < self._limit:
            self._missed.add(path)

    @property
    def composed_misses(self) -> frozenset[str]:
        """The guest paths of :meth:`missed`."""
        return frozenset(self._missed)

    def listed_composed(self, path: str) -> None:
        """The guest was told what the view puts into the directory at guest path ``path``."""
        self._listed_composed.add(path)

    @property
    def composed_listings(self) -> frozenset[str]:
        """The guest paths of :meth:`listed_composed`: at most the directories of the view."""
        return frozenset(self._listed_composed)

    def listed(self, path: bytes, st: os.stat_result, names: Iterable[bytes]) -> None:
        """The guest was told the names in ``path``; ``st`` is from before they were read."""
        if len(self._listed) < self._limit and path not in self._listed and not _is_cache(path):
            self._listed[path] = (st, names_digest(names))

    def freeze(
        self, earlier: Iterable[FileDependency], device: DeviceIndex = lambda st_dev: -1
    ) -> tuple[FileDependency, ...]:
        """``earlier`` and all of this one, one row for each path (and one more where it was listed).

        ``device`` gives the place of a st_dev in the server's table. Raises
        SnapshotError when there was too much to remember all of it.
        """
        if max(len(self._seen), len(self._missed), len(self._listed)) >= self._limit:
            raise SnapshotError(
                f"the guest looked at more than {self._limit} paths, too many for a snapshot",
                remedy="let nothing walk the file system while tests are collected: leave that to a test",
            )
        rows = [_row(path, st, device, content=self._content(path, st)) for path, st in self._seen.items()]
        rows += [_row(path, st, device, names=names) for path, (st, names) in self._listed.items()]
        merged = {(row.path, row.names != ""): row for row in rows}
        merged.update({(row.path, row.names != ""): row for row in earlier})
        return tuple(merged.values())

    def _content(self, path: bytes, st: os.stat_result | None) -> str:
        """Whether the guest may know the content of ``path``.

        It does know that of a module whose compiled form it has read instead.
        """
        if st is None or not (stat.S_ISREG(st.st_mode) or stat.S_ISLNK(st.st_mode)):
            return ""
        known = stat.S_ISLNK(st.st_mode) or path in self._read or path.endswith(b".py")
        return NOT_HASHED if known else ""


def _row(
    path: bytes, st: os.stat_result | None, device: DeviceIndex, *, names: str = "", content: str = ""
) -> FileDependency:
    if st is None:
        return FileDependency(os.fsdecode(path), 0, 0, 0, 0)
    fields = (st.st_mode, st.st_ino, st.st_size, st.st_mtime_ns)
    return FileDependency(os.fsdecode(path), *fields, names, device(st.st_dev), content)
