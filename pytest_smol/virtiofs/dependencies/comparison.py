"""Whether the host files that a guest depends on are unchanged.

A file with the same inode number, size and time counts as unchanged. Where
number or time differ and the size does not, its content is compared: in a
fresh container or a restored cache every file has another inode number, and
often another time.
"""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import lstat
from typing import NamedTuple

from pytest_smol.virtiofs.dependencies.dependency import FileDependency, content_digest, names_digest

__all__ = ["NO_DEVICE", "Comparison", "Identity", "changed", "compare"]

#: In the place of a st_dev: this device of the guest's is none of the host's any more.
NO_DEVICE = -1


class Identity(NamedTuple):
    """By what a file is recognised without reading it: st_ino and st_mtime_ns, 0 where there is none."""

    ino: int
    mtime_ns: int


@dataclass(frozen=True)
class Comparison:
    """What the host has now.

    ``reason`` is the first path that has changed, with why; None if none has.
    The other fields are valid only if it is None: the ``identities`` of all files;
    ``devices``, the st_dev of each device that the guest knows files of, or
    :data:`NO_DEVICE`; ``moved``: some file has another inode number, time or
    device than the guest was told.
    """

    reason: str | None
    identities: tuple[Identity, ...] = ()
    devices: tuple[int, ...] = ()
    moved: bool = False


def changed(dependencies: Iterable[FileDependency]) -> str | None:
    """The first host path that has changed, with why; None when none has."""
    return compare(tuple(dependencies)).reason


def compare(dependencies: Sequence[FileDependency], known: Sequence[Identity] | None = None) -> Comparison:
    """Compare all ``dependencies``; ``known`` are the identities that an earlier comparison found.

    Costs one lstat(2) for each; for each whose identity is not the known one
    also a listing, or a digest of its content if the guest has read it.
    """
    if known is None or len(known) != len(dependencies):
        known = [Identity(row.ino, row.mtime_ns) for row in dependencies]
    identities = []
    devices = _Devices()
    moved = False
    for row, before in zip(dependencies, known, strict=True):
        try:
            now = lstat(row.path)
        except OSError:
            if row.mode:
                return Comparison(f"{row.path}: is gone")
            identities.append(Identity(0, 0))
            continue
        why = _difference(row, before, now)
        if why:
            return Comparison(f"{row.path}: {why}")
        identities.append(Identity(now.st_ino, now.st_mtime_ns))
        devices.add(row, now)
        # A directory's time changes with every __pycache__ in it; its names are compared instead.
        moved = moved or (now.st_mtime_ns != row.mtime_ns and not stat.S_ISDIR(row.mode))
    return Comparison(None, tuple(identities), devices.found(), moved or devices.any_lost())


def _difference(row: FileDependency, before: Identity, now: os.stat_result) -> str:
    if not row.mode:
        return "was not there before"
    if now.st_mode != row.mode:
        return f"mode was {stat.filemode(row.mode)}, is {stat.filemode(now.st_mode)}"
    same = before == (now.st_ino, now.st_mtime_ns)
    if stat.S_ISDIR(now.st_mode):
        return "" if same or not row.names else _difference_of_names(row)
    if now.st_size != row.size:
        return f"size was {row.size}, is {now.st_size}"
    if same or _same_content(row):
        return ""
    return "was replaced" if now.st_ino != before.ino else "was modified"


def _difference_of_names(row: FileDependency) -> str:
    try:
        names = os.listdir(os.fsencode(row.path))
    except OSError as error:
        return f"cannot be listed any more ({error.strerror})"
    return "" if names_digest(names) == row.names else "holds other names"


def _same_content(row: FileDependency) -> bool:
    """Whether the content is what the guest knows, or the guest knows nothing of it."""
    if not stat.S_ISREG(row.mode) and not stat.S_ISLNK(row.mode):
        return False
    try:
        return not row.content or content_digest(row.path, row.mode) == row.content
    except OSError:
        return False


class _Devices:
    """Finds which of the host's devices are those that the guest knows, by the files on them.

    st_dev itself tells nothing: those of btrfs, overlayfs, NFS and others are
    numbered anew at each boot.
    """

    def __init__(self) -> None:
        self._found: dict[int, set[int]] = defaultdict(set)
        self._moved: set[int] = set()

    def add(self, row: FileDependency, now: os.stat_result) -> None:
        """A file that the guest knows, and what it is now."""
        if row.device >= 0:
            self._found[row.device].add(now.st_dev)
            if now.st_ino != row.ino:
                self._moved.add(row.device)

    def found(self) -> tuple[int, ...]:
        """The st_dev of each; NO_DEVICE where files have other inode numbers, or are not on one device."""
        count = max(self._found, default=-1) + 1
        return tuple(self._one(index) if index in self._found else NO_DEVICE for index in range(count))

    def any_lost(self) -> bool:
        """Whether the guest knows files of a device that is none of the host's now."""
        return NO_DEVICE in map(self._one, self._found)

    def _one(self, index: int) -> int:
        numbers = self._found[index]
        shared = any(numbers & others for other, others in self._found.items() if other != index)
        return NO_DEVICE if index in self._moved or len(numbers) != 1 or shared else min(numbers)
