"""Guest memory that is mapped in another process, the engine's, read and written from this one.

That process maps the memory copy-on-write, so it cannot be mapped here too;
process_vm_readv(2) and process_vm_writev(2) reach it at the addresses of the
memory table, which the engine's process sends.

Every address passes :meth:`Memory.translate` or :meth:`Memory.check`, in Python
integers that cannot overflow, before it is used in a system call.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

from pytest_smol.errors import ProtocolError

__all__ = ["ALLOW_TRACING", "Memory", "ProcessMemory", "Region", "Segment"]

Segment = tuple[int, int]
"""An address in the address space of the engine's process, and a length in bytes."""

IOV_MAX = 1024  # the kernel's UIO_MAXIOV: segments in one system call


class Region(NamedTuple):
    """A row of the memory table: guest-physical address, size in bytes, address in the engine's process."""

    guest_phys_addr: int
    memory_size: int
    userspace_addr: int


class Memory(ABC):
    """The memory table and its checks. A subclass reads and writes the bytes."""

    def __init__(self) -> None:
        self.regions: tuple[Region, ...] = ()

    def set_table(self, regions: Sequence[Region]) -> None:
        """Take over a new table. Raises ProtocolError for a region that is empty or wraps around."""
        for region in regions:
            ends = (region.guest_phys_addr + region.memory_size, region.userspace_addr + region.memory_size)
            if region.memory_size <= 0 or max(ends) > 1 << 64:
                raise ProtocolError(f"the virtual machine has an impossible memory region {region}")
        self.regions = tuple(regions)

    def translate(self, guest: int, length: int) -> int:
        """The address in the engine's process of ``length`` bytes at guest-physical address ``guest``.

        Raises ProtocolError unless all of these bytes are in one region.
        """
        for start, size, address in self.regions:
            offset = guest - start
            if offset >= 0 and offset + length <= size:
                return address + offset
        raise ProtocolError(f"the guest named memory it does not have: {length} bytes at {guest:#x}")

    def check(self, address: int, length: int) -> int:
        """``address``, an address in the engine's process.

        Raises ProtocolError unless all of the ``length`` bytes there are in one region.
        """
        for _, size, start in self.regions:
            if start <= address and address + length <= start + size:
                return address
        raise ProtocolError(
            f"the virtual machine has a ring outside of guest memory: {length} bytes at {address:#x}"
        )

    @abstractmethod
    def read(self, segments: Sequence[Segment]) -> bytes:
        """The bytes of all segments, joined. They are read in the order of ``segments``."""

    @abstractmethod
    def write(self, segments: Sequence[Segment], data: bytes) -> None:
        """Write ``data``, as long as all segments together, to the segments in their order."""


Transfer = Callable[[int, int, int, int, int, int], int]

_libc = ctypes.CDLL(None, use_errno=True)
_PAIRS = [struct.Struct(f"={2 * n}Q") for n in range(9)]


def _transfer(name: str) -> Transfer:
    function = getattr(_libc, name)
    # pid, local_iov, liovcnt, remote_iov, riovcnt, flags
    function.argtypes = [ctypes.c_int, *[ctypes.c_void_p, ctypes.c_ulong] * 2, ctypes.c_ulong]
    function.restype = ctypes.c_ssize_t
    return cast(Transfer, function)


_readv = _transfer("process_vm_readv")
_writev = _transfer("process_vm_writev")


#: The remedy where process_vm_readv(2) or process_vm_writev(2) fails on a child: Yama or a container's filter
#: of system calls refuses it.
ALLOW_TRACING = (
    "allow this user to trace its own children (kernel.yama.ptrace_scope below 2); in a container, allow "
    "process_vm_readv and process_vm_writev, which Docker's default seccomp profile before 2021 refuses: "
    "update Docker, or run with --cap-add=SYS_PTRACE"
)


class ProcessMemory(Memory):
    """Memory of the process ``pid``, which must be a child of this one and not yet reaped.

    Raises ProcessLookupError once that process is gone, and ProtocolError for
    memory that is announced but not there. For one thread at a time.
    """

    def __init__(self, pid: int) -> None:
        super().__init__()
        self.pid = pid
        self._buffer = bytearray(64 << 10)
        self._iov = bytearray(16 * (IOV_MAX + 1))  # struct iovec: the local one, then the remote ones
        self._iov_address = ctypes.addressof(ctypes.c_char.from_buffer(self._iov))
        self._pin()
        # One c_char_p that points to the data of the current write, and the same pointer as a number.
        self._source = ctypes.c_char_p()
        self._source_address = ctypes.c_void_p.from_buffer(self._source)

    def _pin(self) -> None:
        self._buffer_address = ctypes.addressof(ctypes.c_char.from_buffer(self._buffer))

    def read(self, segments: Sequence[Segment]) -> bytes:
        """As :meth:`Memory.read`, by process_vm_readv(2)."""
        total = sum([length for _, length in segments])
        if total > len(self._buffer):
            self._buffer = bytearray(total)
            self._pin()
        self._move(_readv, self._buffer_address, segments, total)
        return bytes(memoryview(self._buffer)[:total])

    def write(self, segments: Sequence[Segment], data: bytes) -> None:
        """As :meth:`Memory.write`, by process_vm_writev(2)."""
        self._source.value = data
        self._move(_writev, self._source_address.value or 0, segments, len(data))

    def _move(self, call: Transfer, local: int, segments: Sequence[Segment], total: int) -> None:
        count = len(segments)
        done = self._call(call, local, total, segments) if count <= IOV_MAX else 0
        while done < total:  # rare: more segments than one call takes, or a call that moved only a part
            rest = _after(segments, done)[:IOV_MAX]
            size = sum(length for _, length in rest)
            done += self._call(call, local + done, size, rest)

    def _call(self, call: Transfer, local: int, size: int, segments: Sequence[Segment]) -> int:
        count = len(segments)
        flat = [local, size]
        for segment in segments:
            flat += segment
        pairs = _PAIRS[count + 1] if count < 8 else struct.Struct(f"={len(flat)}Q")
        pairs.pack_into(self._iov, 0, *flat)
        moved = call(self.pid, self._iov_address, 1, self._iov_address + 16, count, 0)
        if moved <= 0 < size:
            self._refuse(ctypes.get_errno() if moved < 0 else errno.EFAULT)
        return moved

    def _refuse(self, number: int) -> None:
        if number == errno.ESRCH:
            raise ProcessLookupError(number, "the engine's process has ended")
        raise ProtocolError(
            f"guest memory cannot be reached: {os.strerror(number)}",
            remedy=ALLOW_TRACING if number in (errno.EPERM, errno.ENOSYS) else "",
        )


def _after(segments: Sequence[Segment], done: int) -> list[Segment]:
    """``segments`` without their first ``done`` bytes."""
    rest: list[Segment] = []
    for address, length in segments:
        skip = min(done, length)
        done -= skip
        if skip < length:
            rest.append((address + skip, length - skip))
    return rest
