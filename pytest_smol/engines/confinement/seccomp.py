"""A seccomp filter: no sockets, and no memory of others, for a thread and all that it spawns from then on.

Landlock restricts neither UDP nor sockets that have a path; an engine's process inherits all sockets that
it needs. Nor does it restrict what the forks of one snapshot, which are in one domain, do to each other.
Source: linux/seccomp.h, linux/filter.h, linux/audit.h and asm/unistd_64.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

__all__ = ["forbid_calls", "program"]

PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
RET_ALLOW, RET_ERRNO, RET_KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
AUDIT_ARCH_X86_64 = 0xC000003E
#: Calls of the x32 ABI have this bit.
X32_SYSCALL_BIT = 0x40000000
LD_W_ABS, JEQ, JGE, RET = 0x20, 0x15, 0x35, 0x06
#: Offsets in struct seccomp_data.
NUMBER, ARCH = 0, 4

#: Refused: socket(2), and io_uring_setup(2), whose rings make sockets without a call; ptrace(2),
#: process_vm_readv(2), process_vm_writev(2) and pidfd_getfd(2), which reach into another process.
REFUSED = (41, 425, 101, 310, 311, 438)

_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter: code, jt, jf, k


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def program() -> bytes:
    """The filter. Another instruction set than the host's is fatal: its calls have other numbers."""
    refuse = RET_ERRNO | errno.EACCES
    rows = [
        (LD_W_ABS, 0, 0, ARCH),
        (JEQ, 1, 0, AUDIT_ARCH_X86_64),
        (RET, 0, 0, RET_KILL_PROCESS),
        (LD_W_ABS, 0, 0, NUMBER),
        (JGE, len(REFUSED) + 1, 0, X32_SYSCALL_BIT),
        *((JEQ, len(REFUSED) - place, 0, number) for place, number in enumerate(REFUSED)),
        (RET, 0, 0, RET_ALLOW),
        (RET, 0, 0, refuse),
    ]
    return b"".join(_INSTRUCTION.pack(*row) for row in rows)


def forbid_calls() -> None:
    """Refuse those calls to the calling thread, irrevocably. Needs no_new_privs. Raises OSError."""
    if ctypes.sizeof(ctypes.c_void_p) != 8:  # the first call would be the last
        raise OSError(errno.ENOSYS, "this Python is a 32-bit program")
    code = program()
    holder = _Program(len(code) // _INSTRUCTION.size, code)
    libc = ctypes.CDLL(None, use_errno=True)
    mode, address = ctypes.c_ulong(SECCOMP_MODE_FILTER), ctypes.c_void_p(ctypes.addressof(holder))
    if libc.prctl(PR_SET_SECCOMP, mode, address, ctypes.c_ulong(0), ctypes.c_ulong(0)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
