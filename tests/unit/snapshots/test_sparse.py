"""Copies and digests of sparse files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_smol.errors import DiskFull
from pytest_smol.snapshots.sparse import copy_sparse, digest_of
from tests.unit.snapshot_samples import RAM

CHUNK = 64 << 10


def write(path: Path, size: int, pieces: dict[int, bytes]) -> bytes:
    """A file of ``size`` with ``pieces`` at their offsets and holes between; gives its content."""
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in pieces.items():
            os.pwrite(file.fileno(), data, offset)
    return path.read_bytes()


LAYOUTS = [
    (0, {}),
    (1, {0: b"x"}),
    (1 << 20, {}),
    (1 << 20, {0: b"x"}),
    (1 << 20, {(1 << 20) - 1: b"x"}),
    (1 << 20, {CHUNK - 1: b"xy"}),
    ((1 << 20) + 5, {1 << 20: b"12345"}),
    (3 * CHUNK, {0: b"a" * CHUNK, 2 * CHUNK: b"b" * CHUNK}),
    (1 << 20, {n * CHUNK * 2: b"x" for n in range(8)}),
    (CHUNK + 1, {0: b"a" * CHUNK}),
]


@pytest.mark.parametrize(("size", "pieces"), LAYOUTS)
def test_a_copy_has_the_same_content_and_digest(tmp_path: Path, size: int, pieces: dict[int, bytes]) -> None:
    content = write(tmp_path / "source", size, pieces)
    assert copy_sparse(tmp_path / "source", tmp_path / "copy") == digest_of(tmp_path / "source")
    assert (tmp_path / "copy").read_bytes() == content
    assert digest_of(tmp_path / "copy") == digest_of(tmp_path / "source")


@pytest.mark.parametrize(("size", "pieces"), LAYOUTS)
def test_one_content_has_one_digest_however_it_is_stored(
    tmp_path: Path, size: int, pieces: dict[int, bytes]
) -> None:
    content = write(tmp_path / "sparse", size, pieces)
    (tmp_path / "dense").write_bytes(content)
    assert digest_of(tmp_path / "sparse") == digest_of(tmp_path / "dense")


def test_different_contents_have_different_digests(tmp_path: Path) -> None:
    digests = set()
    for number, (size, pieces) in enumerate(LAYOUTS):
        path = tmp_path / str(number)
        write(path, size, pieces)
        digests.add(digest_of(path))
    assert len(digests) == len(LAYOUTS)


def test_a_copy_keeps_its_holes(tmp_path: Path) -> None:
    write(tmp_path / "source", 64 << 20, {32 << 20: b"x"})
    copy_sparse(tmp_path / "source", tmp_path / "copy")
    assert (tmp_path / "copy").stat().st_blocks * 512 < 8 << 20


def test_a_copy_replaces_what_was_there(tmp_path: Path) -> None:
    write(tmp_path / "source", 10, {})
    (tmp_path / "copy").write_bytes(b"something longer than the source")
    copy_sparse(tmp_path / "source", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == bytes(10)


def test_a_target_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x")
    with pytest.raises(DiskFull, match="missing/copy could not be written: No such file"):
        copy_sparse(tmp_path / "source", tmp_path / "missing" / "copy")


def test_a_source_that_is_missing_is_no_full_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        copy_sparse(tmp_path / "source", tmp_path / "copy")


@given(st.lists(st.tuples(st.integers(0, 5 * CHUNK), st.binary(min_size=1, max_size=50)), max_size=5))
def test_any_layout_survives_a_copy(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[int, bytes]]
) -> None:
    directory = tmp_path_factory.mktemp("layout")
    content = write(directory / "source", 5 * CHUNK + 50, dict(pieces))
    copy_sparse(directory / "source", directory / "copy")
    assert (directory / "copy").read_bytes() == content


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").write_bytes(RAM)
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:1000], offset))
    copy_sparse(tmp_path / "source", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == RAM
