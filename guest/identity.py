"""What makes a fork differ from its siblings, and which rights a process has: runs before any test code."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import random
import socket
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

# linux/random.h: _IOW('R', 0x03, int[2]) and _IO('R', 0x07).
RNDADDENTROPY = 0x40085203
RNDRESEEDCRNG = 0x5207

# linux/prctl.h and linux/mount.h
PR_SET_DUMPABLE = 4
MS_BIND = 4096

_BOOT_ID = "/proc/sys/kernel/random/boot_id"

#: What /etc/hosts is around the name of this machine, which has 13 characters: hosts(5).
_HOSTS = (b"127.0.0.1 localhost\n127.0.1.1 ", b"\n::1 localhost ip6-localhost ip6-loopback\n")
_NAME = b"smol".ljust(13)
_libc = ctypes.CDLL(None, use_errno=True)


class _Places:
    """The files that an identity is written to, opened or mapped once before the snapshot.

    Under emulation a fork pays for all code that it is the first to run, so it should run little.
    Made as root. Raises OSError.
    """

    def __init__(self) -> None:
        self.urandom = os.open("/dev/urandom", os.O_WRONLY | os.O_CLOEXEC)
        self.machine_id = _mapped("/etc/machine-id", b"0" * 32 + b"\n")
        self.boot_id = _mapped("/run/boot_id", b"0" * 36 + b"\n")
        self.hostname = _mapped("/etc/hostname", _NAME + b"\n")
        self.hosts = _mapped("/etc/hosts", _NAME.join(_HOSTS))
        # The kernel's own boot_id cannot be written, so another file is mounted over it.
        if _libc.mount(b"/run/boot_id", _BOOT_ID.encode(), None, MS_BIND, None) != 0:
            raise OSError(ctypes.get_errno(), "the boot id could not be replaced")


def _mapped(path: str, content: bytes) -> mmap.mmap:
    """Map the new file ``path`` with ``content``: changing it takes no system call."""
    with open(path, "wb+", 0) as file:
        file.write(content)
        page = mmap.mmap(file.fileno(), len(content))
    page[:] = page[:]  # the page becomes writable now, not in each fork
    return page


@lru_cache(maxsize=1)
def _places() -> _Places:
    return _Places()


def become_distinct(fresh: dict[str, Any]) -> None:
    """Give this machine its own entropy, clock and names. Raises OSError: no test may run then."""
    places = _places()
    _reseed_kernel(places.urandom, bytes.fromhex(fresh["entropy"]))
    time.clock_settime_ns(time.CLOCK_REALTIME, int(fresh["time_ns"]))
    name = fresh["hostname"].encode("ascii")
    socket.sethostname(name)
    places.hostname[: len(_NAME)] = name
    places.hosts[len(_HOSTS[0]) : -len(_HOSTS[1])] = name
    places.machine_id[:32] = fresh["machine_id"].encode("ascii")
    places.boot_id[:36] = fresh["boot_id"].encode("ascii")
    reseed_generators()


def _reseed_kernel(urandom: int, entropy: bytes) -> None:
    # ioctl(2) takes a bytearray of any size as it is, but copies bytes, and only 1024 of them.
    pool = bytearray(struct.pack("ii", len(entropy) * 8, len(entropy)) + entropy)
    fcntl.ioctl(urandom, RNDADDENTROPY, pool)
    fcntl.ioctl(urandom, RNDRESEEDCRNG)


def _reseed_openssl(ssl: Any) -> None:
    # RAND_add(3) reseeds OpenSSL's primary generator, and by that the generators of all threads before
    # they are next used. Its own check for a fork compares pids, and those of our forks are the same.
    ssl.RAND_add(os.urandom(32), 32.0)


def _reseed_cryptography(bindings: Any) -> None:
    # The wheels of cryptography (40 and newer) hold an OpenSSL of their own, of which this is a private part.
    lib: Any = getattr(getattr(bindings, "_openssl", None), "lib", None)
    if hasattr(lib, "RAND_add"):
        lib.RAND_add(os.urandom(32), 32, 32.0)


def _reseed_uuid(uuid: Any) -> None:
    # uuid1() asks libuuid where there is one, which keeps a node and a clock sequence that cannot be
    # set. Python itself draws a clock sequence for each UUID. The node is a network card's address, and
    # without a card, as in a guest, a random number with the multicast bit: RFC 9562, section 6.10.
    uuid._generate_time_safe = None
    uuid._node = random.getrandbits(48) | 1 << 40
    for name in ("_last_timestamp", "_last_timestamp_v6", "_last_timestamp_v7"):
        if hasattr(uuid, name):
            setattr(uuid, name, None)


def _forget_names(tempfile: Any) -> None:
    # It makes a generator of names again only where its pid has changed.
    tempfile._name_sequence = None


#: Generators that a seed can set, by the name of the module: what sets them, None for the kernel's entropy.
SEEDED: Mapping[str, Callable[[Any, int | None], object]] = {
    "random": lambda module, seed: module.seed(seed),
    "numpy.random": lambda module, seed: module.seed(seed),  # its legacy global one, which takes 32 bits
}

#: What else a library draws and keeps in its memory, by the name of the module: what makes it draw again.
DRAWN: Mapping[str, Callable[[Any], object]] = {
    "_ssl": _reseed_openssl,
    "cryptography.hazmat.bindings._rust": _reseed_cryptography,
    "uuid": _reseed_uuid,
    "tempfile": _forget_names,
}


def reseed_generators() -> None:
    """Reseed from the kernel's entropy the generators of all modules that are loaded: SEEDED and DRAWN."""
    seed_generators(None)
    for name, reseed in DRAWN.items():
        if (module := sys.modules.get(name)) is not None:
            reseed(module)


def seed_generators(seed: int | None) -> None:
    """Let the loaded generators in SEEDED begin with ``seed``, or with the kernel's entropy for None."""
    for name, set_seed in SEEDED.items():
        if (module := sys.modules.get(name)) is not None:
            set_seed(module, seed)


def seed_of(test: str, seed: int) -> int:
    """The seed of ``test``, a node id, in a run with ``seed``: 32 bits, the same whatever runs before it."""
    return zlib.crc32(f"{seed} {test}".encode("utf-8", "surrogatepass"))


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def drop_caches() -> None:
    """Drop the kernel's cached directory entries: the host has added files. Raises OSError."""
    _write("/proc/sys/vm/drop_caches", "2\n")


def set_user(uid: int, gid: int, groups: list[int]) -> None:
    """Become ``uid``; root stays the saved uid, which :func:`as_root` needs."""
    os.setgroups(groups)
    os.setresgid(gid, gid, 0)
    os.setresuid(uid, uid, 0)
    _libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


@contextmanager
def briefly_root() -> Iterator[None]:
    """Within this, root's rights for the effective user; afterwards they are still to be had."""
    user = os.geteuid()
    if user:
        os.seteuid(0)
    try:
        yield
    finally:
        if user:
            os.seteuid(user)
            _libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


class as_root:
    """A context manager: root's rights within it; at its end they are dropped irrevocably."""

    def __enter__(self) -> None:
        self._uid, self._gid = os.getuid(), os.getgid()
        if self._uid:
            os.setresuid(0, 0, 0)

    def __exit__(self, *_: object) -> None:
        if not self._uid:  # root is the user
            return
        os.setresgid(self._gid, self._gid, self._gid)
        os.setresuid(self._uid, self._uid, self._uid)
        _libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
