"""The scratch disks of one QEMU process: host files that QEMU inherits open, and the options for them.

An empty disk is a sparse file. A disk that lies over a file of a snapshot is a qcow2 image with that file
below it, so that nothing is copied. Either has no name on the host: it ends with the last process that
has it open. Source of the format: QEMU's docs/interop/qcow2.txt; of the options: qapi/block-core.json.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pytest_smol.errors import DiskFull

__all__ = ["DiskFds", "disk_options", "largest_file", "opened", "overlay_header", "overlays"]

#: The size of a cluster of an overlay, as a power of two.
_CLUSTER_BITS = 16

#: Magic, version, backing file (offset, length), cluster bits, size, encryption, number of L1 entries,
#: offsets of the L1 and the refcount table, clusters of the latter, snapshots (number, offset),
#: incompatible, compatible and autoclear features, refcount order, length of the header.
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")


@dataclass(frozen=True)
class DiskFds:
    """The open files of one disk: ``file`` is written to; ``below`` is what it is an overlay of, or None."""

    file: int
    below: int | None = None

    @property
    def fds(self) -> tuple[int, ...]:
        """All of them."""
        return (self.file,) if self.below is None else (self.file, self.below)


def overlay_header(size: int) -> bytes:
    """A qcow2 image of ``size`` bytes in which nothing was written yet."""
    cluster = 1 << _CLUSTER_BITS
    entries = -(-size // (cluster * cluster // 8))  # an L2 table is a cluster of 8 byte entries
    tables = max(1, -(-entries * 8 // cluster))
    header = _HEADER.pack(
        *(b"QFI\xfb", 3, 0, 0, _CLUSTER_BITS, size, 0, entries, 3 * cluster, cluster, 1, 0, 0, 0, 0, 0, 4),
        _HEADER.size,
    )
    refcount_table = struct.pack(">Q", 2 * cluster)
    refcounts = struct.pack(">H", 1) * (3 + tables)
    clusters = [part.ljust(cluster, b"\0") for part in (header, refcount_table, refcounts)]
    return b"".join(clusters) + bytes(tables * cluster)


def largest_file(sizes: Sequence[int]) -> int:
    """The most bytes that a disk of ``sizes`` takes, tables of an overlay included; 0 where there is none."""
    if not sizes:
        return 0
    largest = max(sizes)
    return largest + (largest >> 10) + (16 << 20)


def _nameless(directory: Path, size: int) -> int:
    """The descriptor of a new sparse file in ``directory`` that has no name. Raises OSError."""
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        file.truncate(size)
        return os.dup(file.fileno())


def overlays(
    directory: Path, sizes: Sequence[int], below: Sequence[Path | None], stack: ExitStack
) -> list[DiskFds]:
    """Disks of ``sizes`` that last while a process has them open, over the files ``below`` or else empty.

    The descriptors are closed with ``stack``. Raises :class:`~pytest_smol.errors.DiskFull`.
    """
    return [
        _overlay(directory, size, path, stack)
        for size, path in zip(sizes, below or [None] * len(sizes), strict=True)
    ]


def _overlay(directory: Path, size: int, below: Path | None, stack: ExitStack) -> DiskFds:
    try:
        file = _nameless(directory, 0 if below else size)
        stack.callback(os.close, file)
        if below is None:
            return DiskFds(file)
        os.pwrite(file, overlay_header(size), 0)
        base = os.open(below, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, base)
        return DiskFds(file, base)
    except OSError as error:
        raise _failure(directory, error) from error


def opened(paths: Sequence[Path], stack: ExitStack) -> list[DiskFds]:
    """Disks whose content is that of the files ``paths``; closed with ``stack``. Raises DiskFull."""
    found = []
    for path in paths:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise _failure(path, error) from error
        stack.callback(os.close, fd)
        found.append(DiskFds(fd))
    return found


def _failure(path: Path, error: OSError) -> DiskFull:
    return DiskFull(
        f"a scratch disk cannot be kept in {path}: {error.strerror or error}",
        remedy="free some space there, or point TMPDIR or --smol-snapshot-dir to another file system",
    )


def disk_options(disks: Sequence[DiskFds]) -> Iterator[str]:
    """QEMU's arguments for ``disks``; their order is that of ``/dev/vda``, ``/dev/vdb`` and so on.

    The guest's flushes are not passed on (``no-flush``): a disk outlives no fork, so nothing could be lost.
    What the host cannot read or write is an error of the guest's request (``werror=report``).
    """
    for number, disk in enumerate(disks):
        yield from ("-add-fd", f"fd={disk.file},set={2 * number}")
        if disk.below is not None:
            yield from ("-add-fd", f"fd={disk.below},set={2 * number + 1}")
        yield from ("-blockdev", _node(number, disk))
    # The serial number says which disk is which, in whatever order a kernel finds them.
    for number in range(len(disks)):
        device = f"virtio-blk-device,drive=disk{number},serial=smol{number},num-queues=1"
        yield from ("-device", f"{device},werror=report,rerror=report")


def _node(number: int, disk: DiskFds) -> str:
    common = "cache.direct=off,cache.no-flush=on"
    files = "file.driver=file,file.locking=off,file.aio=threads"
    top = f"node-name=disk{number},discard=unmap,{common},{files},file.filename=/dev/fdset/{2 * number}"
    if disk.below is None:
        return f"driver=raw,{top}"
    backing = f"driver=raw,read-only=on,{common},{files},file.filename=/dev/fdset/{2 * number + 1}"
    return f"driver=qcow2,{top}," + ",".join(f"backing.{option}" for option in backing.split(","))
