"""How much tests can write: the size of the tmpfs that takes all changes, ``/run`` and ``/dev/shm`` too."""

from __future__ import annotations

import os

import pytest

from pytest_smol.guest.identity import briefly_root
from pytest_smol.guest.surroundings import MS_REMOUNT, mount

#: A directory that is a mount of that tmpfs, so that it can be remounted by its path.
_MOUNTED = "/dev/shm"

#: The share of memory that is left to processes, and what an empty file takes of the kernel's memory.
_LEFT = 8
_PER_FILE = 2048

#: Bytes of memory for each file that the tmpfs may hold. Without this it would be two pages.
_FOR_FILE = 16384

#: The smallest size, in bytes: a guest with little memory has room for its own temporary files all the same.
_LEAST = 16 << 20


class Storage:
    """A plugin that sets the size when all tests are collected: their modules take memory too.

    ``size`` is what the user asked for, in bytes, or None for what there is room for.
    """

    def __init__(self, size: int | None) -> None:
        self._size = size

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self) -> None:
        """Set the size. The kernel refuses what is smaller than what has been written."""
        with briefly_root():
            try:
                set_size(self._size)
            except OSError:  # a conftest.py may have unmounted it
                return


def set_size(size: int | None) -> None:
    """Set the most that the tmpfs may hold, so that it is full (ENOSPC) before memory is. Raises OSError."""
    with open("/proc/meminfo", encoding="ascii") as file:
        rows = dict(line.split(":", 1) for line in file)
    total, available = (int(rows[name].split()[0]) << 10 for name in ("MemTotal", "MemAvailable"))
    now = os.statvfs(_MOUNTED)
    used = (now.f_blocks - now.f_bfree) * now.f_frsize
    files = total // _FOR_FILE + now.f_files - now.f_ffree
    room = available - total // _LEFT - total // _FOR_FILE * _PER_FILE
    size = used + max(room, _LEAST) if size is None else size
    mount("", _MOUNTED, None, MS_REMOUNT, f"size={size},nr_inodes={files}")
