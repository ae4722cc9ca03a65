"""Scratch disks of a snapshot: what was written to is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_smol.errors import DiskFull, SnapshotError
from pytest_smol.snapshots.description import load, write_description
from pytest_smol.snapshots.disk_files import kept, make_files, stored
from pytest_smol.snapshots.snapshot import Snapshot
from pytest_smol.virtiofs.filesystem.state import TreeState
from tests.unit.snapshot_samples import HARDWARE, VIEW

SIZES = (1 << 20, 1 << 40)


def test_only_what_was_written_to_is_kept(tmp_path: Path) -> None:
    first, second = make_files(tmp_path, SIZES)
    assert [path.stat().st_size for path in (first, second)] == list(SIZES)
    with second.open("r+b") as file:
        file.seek(1 << 30)
        file.write(b"x" * 4096)
    assert kept([first, second]) == (None, second)
    assert stored(tmp_path, 2) == (None, second)


def test_a_disk_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match="disk0"):
        make_files(tmp_path / "gone", SIZES)


def _described(directory: Path) -> Snapshot:
    disks = make_files(directory, SIZES)
    disks[0].write_bytes(b"x" * 4096)
    for name in ("ram", "state"):
        (directory / name).write_bytes(b"y")
    hardware = replace(HARDWARE, disks=SIZES)
    found = Snapshot(hardware, VIEW, directory / "ram", directory / "state", TreeState(), kept(disks))
    write_description(found, directory)
    return found


def test_disks_are_described_with_their_snapshot(tmp_path: Path) -> None:
    made = _described(tmp_path)
    assert load(tmp_path, made.hardware, VIEW).disks == (tmp_path / "disk0", None)
    assert (tmp_path / "disk0").stat().st_mode & 0o222 == 0


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_damaged_disk_makes_a_snapshot_useless(tmp_path: Path, damage: str) -> None:
    made = _described(tmp_path)
    disk = tmp_path / "disk0"
    disk.chmod(0o644)
    if damage == "gone":
        disk.unlink()
    else:
        disk.write_bytes(b"z" * 4096)
    with pytest.raises(SnapshotError, match="cannot be used"):
        load(tmp_path, made.hardware, VIEW)
