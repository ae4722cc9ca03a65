"""What the kernel counts of a machine and of its host: KVM's statistics, page faults, system calls.

Sources: the kernel's Documentation/virt/kvm/api.rst and virt/kvm/kvm_main.c (debugfs), proc(5),
perf_event_open(2).
"""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass
from pathlib import Path

__all__ = ["KVM_STATISTICS", "SystemCalls", "host_page_faults", "kvm_statistics"]

#: KVM has a directory here for each machine: its owner's pid and file descriptor.
KVM = Path("/sys/kernel/debug/kvm")

#: Statistics that are kept of each machine: all exits, and page faults of the guest that KVM was given.
KVM_STATISTICS = ("exits", "pf_taken")

_TRACEPOINT = Path("/sys/kernel/debug/tracing/events/raw_syscalls/sys_enter/id")

#: x86-64's number of perf_event_open(2), and its types of events.
_PERF_EVENT_OPEN = 298
_PERF_TYPE_TRACEPOINT = 2

#: struct perf_event_attr up to its first version's size (PERF_ATTR_SIZE_VER0): type, size, config, and zeros.
_ATTRIBUTES = struct.Struct("=IIQ48x")


def kvm_statistics(pid: int) -> dict[str, int]:
    """The statistics of the machine that the process ``pid`` owns. Raises OSError where there are none."""
    (directory,) = KVM.glob(f"{pid}-*")
    return {name: int((directory / name).read_text()) for name in KVM_STATISTICS}


def host_page_faults(pid: int) -> int:
    """Page faults of the process ``pid`` that needed no disk: ``minflt`` of proc(5)'s stat."""
    after_name = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    return int(after_name[7])


@dataclass
class SystemCalls:
    """Counts the system calls of all processes on the first processor. A context manager.

    Raises OSError where the kernel does not let this process count them.
    """

    _fd: int = -1

    def __enter__(self) -> SystemCalls:
        config = int(_TRACEPOINT.read_text())
        attributes = _ATTRIBUTES.pack(_PERF_TYPE_TRACEPOINT, _ATTRIBUTES.size, config)
        libc = ctypes.CDLL(None, use_errno=True)
        # Any process, the first processor, no group, no flags.
        rest = [ctypes.c_long(number) for number in (-1, 0, -1, 0)]
        fd: int = libc.syscall(ctypes.c_long(_PERF_EVENT_OPEN), attributes, *rest)
        if fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"perf_event_open: {os.strerror(number)}")
        self._fd = fd
        return self

    def count(self) -> int:
        """How many there were since this was entered."""
        return int.from_bytes(os.read(self._fd, 8), "little")

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
