"""What makes one fork differ from its siblings, and what a process may do: run before any test code."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import random
import socket
import struct
import sys
import tempfile
import time
import zlib
from functools import lru_cache
from typing import Any

# linux/random.h: _IOW('R', 0x03, int[2]) and _IO('R', 0x07).
RNDADDENTROPY = 0x40085203
RNDRESEEDCRNG = 0x5207

# linux/prctl.h and linux/mount.h
PR_SET_DUMPABLE = 4
MS_BIND = 4096

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_libc = ctypes.CDLL(None, use_errno=True)


class _Places:
    """Where an identity is written, mapped once: under emulation a fork pays for all it does first.

    Made as root. Raises OSError.
    """

    def __init__(self) -> None:
        self.urandom = os.open("/dev/urandom", os.O_WRONLY | os.O_CLOEXEC)
        self.machine_id = _mapped("/etc/machine-id", 32)
        self.boot_id = _mapped("/run/boot_id", 36)
        # The kernel's own boot_id cannot be written, so another file is mounted over it.
        if _libc.mount(b"/run/boot_id", _BOOT_ID.encode(), None, MS_BIND, None) != 0:
            raise OSError(ctypes.get_errno(), "the boot id could not be replaced")


def _mapped(path: str, size: int) -> mmap.mmap:
    """The new file ``path`` of one line of ``size`` characters, in memory: a change is no system call."""
    with open(path, "wb+", 0) as file:
        file.write(b"0" * size + b"\n")
        page = mmap.mmap(file.fileno(), size)
    page[:] = page[:]  # the page becomes writable now
    return page


@lru_cache(maxsize=1)
def _places() -> _Places:
    return _Places()


def become_distinct(fresh: dict[str, Any]) -> None:
    """Give this machine its own entropy, clock and names. Raises OSError: no test may run then."""
    places = _places()
    _reseed_kernel(places.urandom, bytes.fromhex(fresh["entropy"]))
    time.clock_settime_ns(time.CLOCK_REALTIME, int(fresh["time_ns"]))
    socket.sethostname(fresh["hostname"].encode("ascii"))
    places.machine_id[:] = fresh["machine_id"].encode("ascii")
    places.boot_id[:] = fresh["boot_id"].encode("ascii")
    seed_generators(None)
    # tempfile has a generator of its own, which it replaces only where it finds itself in another process.
    tempfile._name_sequence = None  # type: ignore[attr-defined]


def _reseed_kernel(urandom: int, entropy: bytes) -> None:
    # Taken as it is: of bytes, ioctl() would make a copy, and an exception on its way to that.
    pool = bytearray(struct.pack("ii", len(entropy) * 8, len(entropy)) + entropy)
    fcntl.ioctl(urandom, RNDADDENTROPY, pool)
    fcntl.ioctl(urandom, RNDRESEEDCRNG)


def seed_generators(seed: int | None) -> None:
    """Let the generators that are no secret's begin with ``seed``, or with the kernel's entropy.

    They are ``random`` and numpy's global one, which takes 32 bits.
    """
    random.seed(seed)
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed(seed)


def seed_of(test: str, seed: int) -> int:
    """What ``test``, a node id, begins with in a run with ``seed``: the same whatever runs before it."""
    return zlib.crc32(f"{seed} {test}".encode("utf-8", "surrogatepass"))


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def drop_caches() -> None:
    """Forget cached directory entries: the host has added to what is visible."""
    _write("/proc/sys/vm/drop_caches", "2\n")


def set_user(uid: int, gid: int, groups: list[int]) -> None:
    """Become ``uid``, keeping root only as the saved id, which :func:`as_root` comes back to."""
    os.setgroups(groups)
    os.setresgid(gid, gid, 0)
    os.setresuid(uid, uid, 0)
    _libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


class as_root:
    """Root's rights for a while; at the end they are given up for good."""

    def __enter__(self) -> None:
        self._uid, self._gid = os.getuid(), os.getgid()
        if self._uid:
            os.setresuid(0, 0, 0)

    def __exit__(self, *_: object) -> None:
        if not self._uid:  # a user's root has nothing to give up
            return
        os.setresgid(self._gid, self._gid, self._gid)
        os.setresuid(self._uid, self._uid, self._uid)
        _libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
