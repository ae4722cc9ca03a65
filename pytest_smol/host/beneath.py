"""Host paths, opened without ever following a symbolic link.

The file server opens host paths only through this module. Each path is resolved
below one open directory by a single openat2(2) that refuses symbolic links in
every component. If other processes change the tree meanwhile, the call opens the
file at exactly that path, or it fails. Only the root is kept open, so no
descriptor of a directory can become outdated.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import cast

__all__ = ["Beneath"]

PATH_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
LIST_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
STEP_FLAGS = PATH_FLAGS | os.O_DIRECTORY
# Opening neither blocks nor makes a terminal the controlling one, whatever is at the path by now.
READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

# Source: linux/openat2.h; the number is the same on every architecture.
SYS_OPENAT2 = 437
RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH = 0x02, 0x04, 0x08
RESOLVE = RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH
_OPEN_HOW = struct.Struct("=QQQ")  # struct open_how: flags, mode, resolve

Opener = Callable[[int, bytes, int], int]

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = cast(Callable[[int, int, bytes, int, int], int], _libc.syscall)
_libc.syscall.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t]
_libc.syscall.restype = ctypes.c_long

_HOW = {flags: bytearray(_OPEN_HOW.pack(flags, 0, RESOLVE)) for flags in (PATH_FLAGS, LIST_FLAGS)}
_HOW_ADDRESS = {flags: ctypes.addressof(ctypes.c_char.from_buffer(how)) for flags, how in _HOW.items()}


def _openat2(root: int, path: bytes, flags: int) -> int:
    """A descriptor of ``path`` (relative, without NUL) below ``root``. Raises OSError."""
    fd = _syscall(SYS_OPENAT2, root, path, _HOW_ADDRESS[flags], _OPEN_HOW.size)
    if fd >= 0:
        return fd
    number = ctypes.get_errno()
    # A link where a directory was: openat() of one component says it so too.
    number = errno.ENOTDIR if number == errno.ELOOP else number
    raise OSError(number, os.strerror(number))


def _walk(root: int, path: bytes, flags: int) -> int:
    """As :func:`_openat2`, one component after the other, for kernels that have or allow no better."""
    *above, last = path.split(b"/")
    here = root
    try:
        for name in above:
            below = os.open(name, STEP_FLAGS, dir_fd=here)
            if here != root:
                os.close(here)
            here = below
        return os.open(last, flags, dir_fd=here)
    finally:
        if here != root:
            os.close(here)


@lru_cache(maxsize=1)
def opener() -> Opener:
    """openat2 where this kernel has it (5.6) and no seccomp filter of a container forbids it."""
    root = os.open("/", STEP_FLAGS)
    try:
        os.close(_openat2(root, b".", PATH_FLAGS))
    except OSError:  # ENOSYS, or EPERM of a filter
        return _walk
    finally:
        os.close(root)
    return _openat2


class Beneath:
    """Looks at and opens absolute, normalised host paths given as bytes, for one thread at a time.

    All methods raise OSError as the system calls do; ENOTDIR also stands for a
    symbolic link within the path. The last component is never followed either.
    """

    def __init__(self, open_below: Opener | None = None) -> None:
        self._open_below = open_below or opener()
        self._root = -1

    def close(self) -> None:
        """Close the held directory; it is opened again when it is needed."""
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def _open(self, host: bytes, flags: int) -> int:
        if self._root < 0:
            self._root = os.open("/", STEP_FLAGS)
        if b"\0" in host or b"/../" in host:  # the one would be cut off, the other lead elsewhere
            raise OSError(errno.EINVAL, "no host path")
        return self._open_below(self._root, host[1:] or b".", flags)

    def lstat(self, host: bytes) -> os.stat_result:
        """lstat(2) of ``host``."""
        fd = self._open(host, PATH_FLAGS)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    @contextmanager
    def at(self, host: bytes) -> Iterator[int]:
        """A descriptor (O_PATH) of the file of any type at ``host``, open for a with block."""
        fd = self._open(host, PATH_FLAGS)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def directory(self, host: bytes) -> Iterator[int]:
        """A descriptor of the directory ``host`` that can be listed, open for a with block."""
        fd = self._open(host, LIST_FLAGS)
        try:
            yield fd
        finally:
            os.close(fd)

    def open_regular(self, host: bytes) -> int:
        """A descriptor to read the regular file ``host``; the caller's to close.

        Raises OSError: ESTALE when something else is there. Anything else is
        looked at, but never opened: opening a device or a pipe could do something.
        """
        with self.at(host) as fd:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.ESTALE, "no regular file any more")
            # The very file that was looked at, however the path has changed since.
            return os.open(b"/proc/self/fd/%d" % fd, READ_FLAGS)

    def readlink(self, host: bytes) -> bytes:
        """The target of the symbolic link ``host``."""
        with self.at(host) as fd:
            return os.readlink(b"", dir_fd=fd)

    def statvfs(self, host: bytes) -> os.statvfs_result:
        """statvfs(3) of the file system that ``host`` is on."""
        with self.at(host) as fd:
            return os.statvfs(fd)
