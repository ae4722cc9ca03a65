"""Runs a counted loop on the hardware through the KVM ioctls and times it."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

__all__ = ["KvmRefused", "time_loop"]

#: ioctl numbers: linux/kvm.h, KVMIO 0xAE, for x86-64.
KVM_GET_API_VERSION = 0xAE00
KVM_CREATE_VM = 0xAE01
KVM_GET_VCPU_MMAP_SIZE = 0xAE04
KVM_CREATE_VCPU = 0xAE41
KVM_SET_USER_MEMORY_REGION = 0x4020AE46
KVM_SET_TSS_ADDR = 0xAE47
KVM_RUN = 0xAE80
KVM_SET_REGS = 0x4090AE82
KVM_GET_SREGS = 0x8138AE83
KVM_SET_SREGS = 0x4138AE84

KVM_API_VERSION = 12
KVM_EXIT_HLT = 5

#: struct kvm_userspace_memory_region: slot, flags, guest_phys_addr, memory_size, userspace_addr.
MEMORY_REGION = struct.Struct("<IIQQQ")

#: struct kvm_regs: eighteen 64-bit registers in this order.
KVM_REGS = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip", "rflags"),
)

#: struct kvm_sregs starts with struct kvm_segment cs: base, limit, selector.
KVM_SREGS_SIZE = 0x138
SEGMENT = struct.Struct("<QIH")

#: struct kvm_run: offset of exit_reason.
EXIT_REASON = struct.Struct("<I")
EXIT_REASON_OFFSET = 8

#: Three pages below 4 GiB that Intel's real mode needs and nothing else uses. (fcntl.ioctl
#: takes no number above 2 GiB, so it is not where QEMU has them.)
TSS_ADDRESS = 0x1000_0000

#: Where the code lies in guest-physical memory.
CODE_ADDRESS = 0x1000


class KvmRefused(Exception):
    """KVM cannot be used; the message is one clause that says why."""


def code(iterations: int) -> bytes:
    """Real-mode code: ``mov ecx, iterations``, ``dec ecx``, ``jnz`` back, ``hlt``."""
    return b"\x66\xb9" + struct.pack("<I", iterations) + b"\x66\x49" + b"\x75\xfc" + b"\xf4"


def registers(**values: int) -> bytes:
    """struct kvm_regs with ``values`` and otherwise zero."""
    return struct.pack("<18Q", *(values.get(name, 0) for name in KVM_REGS))


@contextmanager
def _descriptor(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def _ioctl(name: str, fd: int, argument: int | bytes = 0) -> int:
    """An ioctl that is named in this module. Raises :class:`KvmRefused`."""
    try:
        # Only a call without a buffer gives its result as a number.
        result = fcntl.ioctl(fd, globals()[name], argument)
    except OSError as error:
        raise KvmRefused(f"{name} failed: {error.strerror}") from error
    return result if isinstance(result, int) else 0


def _open() -> int:
    try:
        return os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise KvmRefused("there is no /dev/kvm") from None
    except OSError as error:
        raise KvmRefused(f"/dev/kvm cannot be opened: {error.strerror}") from error


def _map_code(stack: ExitStack, vm: int, iterations: int) -> None:
    page = stack.enter_context(mmap.mmap(-1, mmap.PAGESIZE))
    page[: len(code(iterations))] = code(iterations)
    # A bare address: an object that stays exported would keep the page from being unmapped.
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    _ioctl("KVM_SET_USER_MEMORY_REGION", vm, MEMORY_REGION.pack(0, 0, CODE_ADDRESS, mmap.PAGESIZE, address))


def _set_registers(vcpu: int, iterations: int) -> None:
    sregs = bytearray(KVM_SREGS_SIZE)
    try:
        fcntl.ioctl(vcpu, KVM_GET_SREGS, sregs)
    except OSError as error:
        raise KvmRefused(f"KVM_GET_SREGS failed: {error.strerror}") from error
    SEGMENT.pack_into(sregs, 0, 0, 0xFFFF, 0)
    _ioctl("KVM_SET_SREGS", vcpu, bytes(sregs))
    # Bit 1 of rflags is always set (Intel SDM, volume 1, 3.4.3).
    _ioctl("KVM_SET_REGS", vcpu, registers(rip=CODE_ADDRESS, rflags=2))


def time_loop(iterations: int) -> float:
    """Seconds that a virtual processor takes to count ``iterations`` down to zero and halt.

    Raises :class:`KvmRefused` where any step fails or it leaves the loop in another way.
    """
    with ExitStack() as stack:
        kvm = stack.enter_context(_descriptor(_open()))
        if (version := _ioctl("KVM_GET_API_VERSION", kvm)) != KVM_API_VERSION:
            raise KvmRefused(f"/dev/kvm speaks version {version} of the interface")
        vm = stack.enter_context(_descriptor(_ioctl("KVM_CREATE_VM", kvm)))
        _ioctl("KVM_SET_TSS_ADDR", vm, TSS_ADDRESS)
        _map_code(stack, vm, iterations)
        vcpu = stack.enter_context(_descriptor(_ioctl("KVM_CREATE_VCPU", vm)))
        size = _ioctl("KVM_GET_VCPU_MMAP_SIZE", kvm)
        run = stack.enter_context(mmap.mmap(vcpu, size))
        _set_registers(vcpu, iterations)
        start = time.perf_counter()
        _ioctl("KVM_RUN", vcpu)
        elapsed = time.perf_counter() - start
        (reason,) = EXIT_REASON.unpack_from(run, EXIT_REASON_OFFSET)
    if reason != KVM_EXIT_HLT:
        raise KvmRefused(f"a loop ended with exit reason {reason} instead of a halt")
    return elapsed
