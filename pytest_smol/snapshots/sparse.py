"""Copies and digests of sparse files: a guest's memory file is mostly holes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from pytest_smol.errors import DiskFull

__all__ = ["copy_sparse", "digest_of", "write_error"]

_CHUNK = 64 << 10


def _chunks(fd: int) -> Iterator[int]:
    """The aligned offsets of a sparse file's chunks that are not all hole, by lseek(2) SEEK_DATA."""
    offset = 0
    size = os.fstat(fd).st_size
    while offset < size:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        end = os.lseek(fd, start, os.SEEK_HOLE)
        for offset in range(start - start % _CHUNK, end, _CHUNK):
            yield offset
        offset += _CHUNK


def _digest(source: int, write: Callable[[int, bytes], object]) -> str:
    """The digest of a sparse file's content; ``write(offset, data)`` is called for all that is not zero."""
    digest = hashlib.sha256(b"%d" % os.fstat(source).st_size)
    zeros = bytes(_CHUNK)
    # Chunks are aligned, so that one content has one digest however it is stored.
    for offset in _chunks(source):
        data = os.pread(source, _CHUNK, offset)
        if data != zeros[: len(data)]:
            digest.update(b"%d:" % offset + data)
            write(offset, data)
    return digest.hexdigest()


def digest_of(path: Path) -> str:
    """The SHA-256 of a file's size and of its chunks that are not zero, in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return _digest(file.fileno(), lambda offset, data: None)


def copy_sparse(source: Path, target: Path) -> str:
    """Copy a file without its holes; returns its digest, as :func:`digest_of` does.

    Raises :class:`DiskFull` when ``target`` cannot be written, OSError when ``source`` cannot be opened.
    """
    with source.open("rb") as reader:
        try:
            with target.open("wb") as writer:
                os.ftruncate(writer.fileno(), os.fstat(reader.fileno()).st_size)
                return _digest(reader.fileno(), lambda offset, data: _write(writer.fileno(), data, offset))
        except OSError as error:
            raise write_error(target, error) from error


def _write(fd: int, data: bytes, offset: int) -> None:
    """Write all of ``data``: when a disk gets full, pwrite(2) first writes less than it was given."""
    while data:
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written


def write_error(path: Path, error: OSError) -> DiskFull:
    """The error for a ``path`` that could not be written."""
    return DiskFull(
        f"{path} could not be written: {error.strerror or error}",
        remedy="free some space there, or point TMPDIR, --smol-snapshot-dir or XDG_CACHE_HOME elsewhere",
    )
