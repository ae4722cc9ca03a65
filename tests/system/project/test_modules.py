"""Modules of the guest's own kernel: listed, loaded by hand and by the kernel, unloaded."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

RELEASE = os.uname().release
MODULES = Path("/lib/modules", RELEASE)


def test_the_directory_is_that_of_the_running_kernel():
    assert (MODULES / "kernel").is_dir()
    assert {"modules.dep", "modules.alias", "modules.builtin"} <= set(os.listdir(MODULES))


def test_a_module_is_loaded_with_its_dependencies_and_removed(sh, loaded):
    assert "dm_raid" not in loaded()
    sh("modprobe dm-raid")
    assert {"dm_raid", "raid456", "dm_mod", "async_tx"} <= loaded()
    sh("modprobe -r dm-raid")
    assert "dm_raid" not in loaded()


def test_a_module_takes_parameters(sh):
    sh("modprobe dummy numdummies=3")
    assert {"dummy0", "dummy1", "dummy2"} <= set(os.listdir("/sys/class/net"))


def test_a_missing_module_is_named():
    done = subprocess.run(["modprobe", "no_such_module"], capture_output=True, text=True, check=False)
    assert done.returncode
    assert "no_such_module" in done.stderr


def test_a_module_of_another_kernel_is_refused(tmp_path):
    data = next(MODULES.rglob("dummy.ko")).read_bytes()
    assert RELEASE.encode() in data
    other = tmp_path / "dummy.ko"
    other.write_bytes(data.replace(RELEASE.encode(), b"5" + RELEASE.encode()[1:]))
    done = subprocess.run(["insmod", other], capture_output=True, text=True, check=False)
    assert done.returncode
    # The signature is checked first, where the kernel checks any.
    assert "invalid module format" in done.stderr.lower() or "key was rejected" in done.stderr.lower()


def test_the_kernel_asks_for_a_file_system(sh, loaded):
    """It runs /proc/sys/kernel/modprobe with the alias fs-vfat."""
    assert "vfat" not in loaded()
    sh("mkdir /mnt/none; mount -t vfat /dev/null /mnt/none || true")
    assert "vfat" in loaded()


def test_the_kernel_asks_for_a_protocol(loaded):
    assert "vsock" not in loaded()
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM):
        assert "vsock" in loaded()


def test_opening_a_device_loads_its_module(loaded):
    assert "loop" not in loaded()
    os.close(os.open("/dev/loop-control", os.O_RDWR))
    assert "loop" in loaded()


def test_what_is_built_in_needs_no_module(sh):
    sh("modprobe ext4")


def test_modules_can_be_deleted_in_a_fork():
    MODULES.unlink()
    assert not MODULES.exists()


def test_another_fork_has_them():
    assert MODULES.exists()


#: What docs/system-tests.md promises of Debian's cloud kernel.
PROMISED = [
    "loop",
    "dm_mod",
    "dm_crypt",
    "dm_flakey",
    "dm_snapshot",
    "dm_thin_pool",
    "dm_integrity",
    "dm_verity",
    "dm_delay",
    "dm_raid",
    "raid1",
    "raid456",
    "tun",
    "veth",
    "bridge",
    "8021q",
    "macvlan",
    "vxlan",
    "wireguard",
    "nf_tables",
    "ip_tables",
    "xfs",
    "btrfs",
    "vfat",
    "squashfs",
    "isofs",
    "nbd",
    "zram",
    "dummy",
    "sch_netem",
    "vsock",
    "binfmt_misc",
    "cuse",
    "softdog",
    "brd",
    "null_blk",
    "scsi_debug",
    "tls",
]


def test_the_cloud_kernel_has_what_is_promised():
    if "cloud" not in RELEASE:
        pytest.skip("another kernel")
    paths = (line.partition(":")[0] for line in (MODULES / "modules.dep").read_text().splitlines())
    names = {path.rpartition("/")[2].partition(".")[0].replace("-", "_") for path in paths}
    assert set(PROMISED) <= names, set(PROMISED) - names
