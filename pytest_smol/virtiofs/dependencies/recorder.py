"""What a guest has seen of the host, and whether it still is so.

A snapshot holds in its memory what the guest learnt from files. It may be used
again if and only if all of that is unchanged, misses included.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from typing import Any, NamedTuple

from pytest_smol.errors import SnapshotError

__all__ = ["DependencyRecorder", "FileDependency", "changed", "names_digest"]

CACHE_DIRECTORY = b"__pycache__"
LIMIT = 200_000  # a guest may look up names without end; no machine worth freezing does


class FileDependency(NamedTuple):
    """One host path as it was: ``mode`` is st_mode, 0 for a path that was not there.

    ``names`` is a digest of a directory's names where it was listed, else ``""``.
    Of a directory's entries only these names count, not its size or time.
    """

    path: str
    mode: int
    ino: int
    size: int
    mtime_ns: int
    names: str = ""

    @classmethod
    def from_json(cls, row: Any) -> FileDependency:
        """The inverse of ``list(observation)``. Raises ValueError for anything else."""
        try:
            path, mode, ino, size, mtime_ns, names = row
            return cls(str(path), int(mode), int(ino), int(size), int(mtime_ns), str(names))
        except TypeError as error:
            raise ValueError(f"not an observation: {row!r}") from error


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
        self._listed: dict[bytes, FileDependency] = {}
        self._missed: set[str] = set()
        self._listed_composed: set[str] = set()

    def saw(self, path: bytes, st: os.stat_result | None) -> None:
        """The guest was told of ``path``, or that nothing is there."""
        if len(self._seen) < self._limit and path not in self._seen and not _is_cache(path):
            self._seen[path] = st

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
            row = (st.st_mode, st.st_ino, st.st_size, st.st_mtime_ns, names_digest(names))
            self._listed[path] = FileDependency(os.fsdecode(path), *row)

    def freeze(self, earlier: Iterable[FileDependency]) -> tuple[FileDependency, ...]:
        """``earlier`` and all of this one, one row for each path (and one more where it was listed).

        Raises SnapshotError when there was too much to remember all of it.
        """
        if max(len(self._seen), len(self._missed), len(self._listed)) >= self._limit:
            raise SnapshotError(
                f"the guest looked at more than {self._limit} paths, too many for a snapshot",
                remedy="let nothing walk the file system while tests are collected: leave that to a test",
            )
        rows = [_row(path, st) for path, st in self._seen.items()]
        merged = {(row.path, row.names != ""): row for row in (*rows, *self._listed.values())}
        merged.update({(row.path, row.names != ""): row for row in earlier})
        return tuple(merged.values())


def _row(path: bytes, st: os.stat_result | None) -> FileDependency:
    fields = (st.st_mode, st.st_ino, st.st_size, st.st_mtime_ns) if st else (0, 0, 0, 0)
    return FileDependency(os.fsdecode(path), *fields)


def names_digest(names: Iterable[bytes]) -> str:
    """A digest of a directory's names in any order, leaving ``__pycache__`` out."""
    kept = sorted(name for name in names if name != CACHE_DIRECTORY)
    return hashlib.blake2b(b"\0".join(kept), digest_size=16).hexdigest()


def changed(dependencies: Iterable[FileDependency]) -> str | None:
    """The first host path that no longer is as observed, with why; None when all still are.

    Costs one lstat(2) for each, and a listing for each listed directory whose
    time has changed.
    """
    for seen in dependencies:
        try:
            now = os.lstat(seen.path)
        except OSError:
            if seen.mode:
                return f"{seen.path}: is gone"
            continue
        why = _difference(seen, now)
        if why:
            return f"{seen.path}: {why}"
    return None


def _difference(seen: FileDependency, now: os.stat_result) -> str:
    if not seen.mode:
        return "was not there before"
    if now.st_mode != seen.mode:
        return f"mode was {stat.filemode(seen.mode)}, is {stat.filemode(now.st_mode)}"
    if now.st_ino != seen.ino:
        return "was replaced"
    if stat.S_ISDIR(now.st_mode):
        return _difference_of_names(seen, now)
    if now.st_size != seen.size:
        return f"size was {seen.size}, is {now.st_size}"
    return "was modified" if now.st_mtime_ns != seen.mtime_ns else ""


def _difference_of_names(seen: FileDependency, now: os.stat_result) -> str:
    if not seen.names or now.st_mtime_ns == seen.mtime_ns:
        return ""
    try:
        names = os.listdir(os.fsencode(seen.path))
    except OSError as error:
        return f"cannot be listed any more ({error.strerror})"
    return "" if names_digest(names) == seen.names else "holds other names"
