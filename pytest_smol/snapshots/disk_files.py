"""The files of a snapshot's scratch disks: ``disk0`` and so on, one for each disk that was written to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytest_smol.snapshots.sparse import write_error

__all__ = ["kept", "make_files", "stored"]


def _paths(directory: Path, count: int) -> list[Path]:
    return [directory / f"disk{number}" for number in range(count)]


def make_files(directory: Path, sizes: Sequence[int]) -> list[Path]:
    """New sparse files in ``directory`` for empty disks of ``sizes`` in bytes. Raises :class:`DiskFull`."""
    paths = _paths(directory, len(sizes))
    for path, size in zip(paths, sizes, strict=True):
        try:
            with path.open("xb") as file:
                file.truncate(size)
        except OSError as error:
            raise write_error(path, error) from error
    return paths


def kept(paths: Sequence[Path]) -> tuple[Path | None, ...]:
    """The files of ``paths`` that have any content, None for each of the others, which are removed."""
    found: list[Path | None] = []
    for path in paths:
        written = path.stat().st_blocks > 0
        if not written:
            path.unlink()
        found.append(path if written else None)
    return tuple(found)


def stored(directory: Path, count: int) -> tuple[Path | None, ...]:
    """The files of ``count`` disks in ``directory``, None for those that have none."""
    return tuple(path if path.exists() else None for path in _paths(directory, count))
