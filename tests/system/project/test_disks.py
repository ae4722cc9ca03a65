"""Block devices and file systems in files."""

import os
import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    return path


def test_a_loop_device_is_as_large_as_its_file(sh, image):
    device = sh(f"losetup -f --show {image}")
    assert int(sh(f"blockdev --getsize64 {device}")) == 64 << 20
    sh(f"losetup -d {device}")


def test_ext4_is_made_and_mounted(sh, image):
    sh(f"mkfs.ext4 -q {image} && mkdir /mnt/disk && mount -o loop {image} /mnt/disk")
    Path("/mnt/disk/file").write_text("kept")
    os.setxattr("/mnt/disk/file", "user.note", b"1")
    sh(f"umount /mnt/disk && fsck.ext4 -fn {image} && mount -o loop,ro {image} /mnt/disk")
    assert Path("/mnt/disk/file").read_text() == "kept"
    with pytest.raises(OSError, match="Read-only"):
        Path("/mnt/disk/file").write_text("")


def test_a_small_file_system_is_full(sh, image):
    sh(f"mkfs.ext4 -q {image} && mkdir /mnt/disk && mount -o loop {image} /mnt/disk")
    with pytest.raises(OSError, match="No space left"), open("/mnt/disk/large", "wb", 0) as file:
        while True:
            file.write(bytes(1 << 20))


def test_a_device_mapper_target_fails_reads(sh, image):
    device = sh(f"losetup -f --show {image}")
    sh(
        f"dmsetup create bad --table '0 2048 linear {device} 0\n2048 2048 error' && dmsetup mknodes"
    )  # no udev runs here
    with open("/dev/mapper/bad", "rb", 0) as disk:
        assert disk.read(4096) == bytes(4096)
        disk.seek(2048 * 512)
        with pytest.raises(OSError, match="Input/output error"):
            disk.read(4096)
    sh("dmsetup remove bad")


def test_an_overlay_is_mounted(sh, tmp_path):
    sh(
        "mkdir /mnt/o && mount -t tmpfs none /mnt/o && cd /mnt/o && mkdir low up work all"
        " && echo 1 > low/file"
        " && mount -t overlay none -o lowerdir=low,upperdir=up,workdir=work all && echo 2 > all/file"
    )
    assert Path("/mnt/o/low/file").read_text() == "1\n"
    assert Path("/mnt/o/up/file").read_text() == "2\n"


def test_zram_is_a_swap(sh):
    sh("modprobe zram && echo 16M > /sys/block/zram0/disksize && mkswap /dev/zram0 && swapon /dev/zram0")
    assert "zram0" in Path("/proc/swaps").read_text()
    sh("swapoff /dev/zram0")


@pytest.mark.smol
def test_all_space_is_used_before_all_memory():
    """Both directories are filled: each write fails in the end, and no process is killed."""
    written = 0
    for directory in ("/tmp", "/dev/shm"):
        with open(f"{directory}/large", "wb", 0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                written += file.write(bytes(1 << 20))
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert total // 3 < written < total
    os.unlink("/tmp/large")
    assert subprocess.run(["true"], check=False).returncode == 0


@pytest.mark.smol
def test_all_files_are_made_before_all_memory_is_used():
    os.mkdir("/tmp/many")
    with pytest.raises(OSError, match="No space left"):
        for number in range(1 << 24):
            with open(f"/tmp/many/{number}", "wb", 0) as file:
                file.write(b"1")
    assert number > 10_000
