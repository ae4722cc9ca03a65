"""The host's files of scratch disks, and the options for them."""

from __future__ import annotations

import os
import struct
from contextlib import ExitStack
from pathlib import Path

import pytest

from pytest_smol.engines.protocol import Hardware
from pytest_smol.engines.qemu.command_line import devices
from pytest_smol.engines.qemu.disks import (
    DiskFds,
    disk_options,
    largest_file,
    opened,
    overlay_header,
    overlays,
)
from pytest_smol.engines.qemu.exit_reasons import disk_error
from pytest_smol.errors import DiskFull
from tests.unit.engines.test_command_line import CONFIG

MIB = 1 << 20


def test_an_empty_disk_is_a_sparse_file_without_a_name(tmp_path: Path) -> None:
    with ExitStack() as stack:
        (disk,) = overlays(tmp_path, [1 << 40], (), stack)
        status = os.fstat(disk.file)
        assert (status.st_size, status.st_nlink, status.st_blocks) == (1 << 40, 0, 0)
        assert not list(tmp_path.iterdir())
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(disk.file)


def test_a_disk_of_a_snapshot_is_read_only_below_an_overlay(tmp_path: Path) -> None:
    base = tmp_path / "disk0"
    base.write_bytes(bytes(MIB))
    base.chmod(0o444)
    with ExitStack() as stack:
        (disk, other) = overlays(tmp_path, [MIB, MIB], [base, None], stack)
        assert disk.below is not None
        assert other.below is None
        with pytest.raises(OSError, match="Bad file"):
            os.write(disk.below, b"x")
        assert os.pread(disk.file, 4, 0) == b"QFI\xfb"


@pytest.mark.parametrize("size", [MIB, (1 << 29) + 512, 1 << 40])
def test_the_tables_of_an_overlay_are_large_enough(size: int) -> None:
    image = overlay_header(size)
    (entries,) = struct.unpack_from(">I", image, 36)
    (first, refcounts) = struct.unpack_from(">QQ", image, 40)
    assert entries * (1 << 29) >= size
    assert first + entries * 8 <= len(image)
    (block,) = struct.unpack_from(">Q", image, refcounts)
    used = struct.unpack_from(f">{len(image) >> 16}H", image, block)
    assert set(used) == {1}
    assert len(image) <= largest_file([size]) - size


def test_no_disk_needs_no_larger_file() -> None:
    assert largest_file(()) == 0


def test_each_disk_is_a_device_with_its_number() -> None:
    argv = list(disk_options([DiskFds(7), DiskFds(8, 9)]))
    assert argv.count("-device") == 2
    assert {"fd=7,set=0", "fd=8,set=2", "fd=9,set=3"} <= set(argv)
    raw, overlay = (
        value for option, value in zip(argv[::2], argv[1::2], strict=True) if option == "-blockdev"
    )
    assert raw.startswith("driver=raw,node-name=disk0,")
    assert "backing.read-only=on" in overlay
    assert "backing.file.filename=/dev/fdset/3" in overlay


def test_disks_and_processors_make_another_machine() -> None:
    machines = [Hardware(), Hardware(cpus=2), Hardware(disks=(MIB,)), Hardware(disks=(MIB, MIB))]
    assert len({" ".join(devices(CONFIG, each)) for each in machines}) == len(machines)


def test_a_directory_that_is_gone_is_one_error(tmp_path: Path) -> None:
    with ExitStack() as stack, pytest.raises(DiskFull, match="scratch disk") as caught:
        overlays(tmp_path / "gone", [MIB], (), stack)
    assert "TMPDIR" in caught.value.remedy
    with ExitStack() as stack, pytest.raises(DiskFull, match="gone"):
        opened([tmp_path / "gone"], stack)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"nospace": True, "reason": "No space left on device"}, "no space left"),
        ({"nospace": False, "operation": "read", "reason": "Input/output error"}, "could not read"),
        ({}, "could not use"),
    ],
)
def test_what_the_host_refuses_is_told(data: dict[str, object], said: str) -> None:
    assert said in disk_error([{"event": "RESUME"}, {"event": "BLOCK_IO_ERROR", "data": data}])


def test_nothing_is_told_where_nothing_was_refused() -> None:
    assert disk_error([{"event": "RESUME"}]) == ""
