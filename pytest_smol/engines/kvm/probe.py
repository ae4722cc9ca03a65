"""Run a counted loop on the hardware through the KVM ioctls, and time it.

Source of numbers and structures: the kernel's Documentation/virt/kvm/api.rst and linux/kvm.h.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import grp
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import perf_counter

__all__ = ["KvmRefused", "best_time", "nested_paging"]

#: ioctl numbers, KVMIO being 0xAE, for x86-64.
KVM_GET_API_VERSION = 0xAE00
KVM_CREATE_VM = 0xAE01
KVM_CHECK_EXTENSION = 0xAE03
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

#: Capabilities that engines cannot do without (QEMU's microvm machine needs all of them), by their numbers.
CAPABILITIES = {
    "KVM_CAP_IRQCHIP": 0,
    "KVM_CAP_USER_MEMORY": 3,
    "KVM_CAP_SET_TSS_ADDR": 4,
    "KVM_CAP_EXT_CPUID": 7,
    "KVM_CAP_MP_STATE": 14,
    "KVM_CAP_IRQ_ROUTING": 25,
    "KVM_CAP_IRQFD": 32,
    "KVM_CAP_IOEVENTFD": 36,
    "KVM_CAP_VCPU_EVENTS": 41,
    "KVM_CAP_DEBUGREGS": 50,
    "KVM_CAP_XSAVE": 55,
}

#: The parameter for nested paging by module; 6.x kernels show ``Y`` or ``N``, older ones ``1`` or ``0``.
NESTED_PAGING = {"kvm_amd": "npt", "kvm_intel": "ept"}

#: Errors after which the same call may succeed. KVM_CREATE_VM and KVM_RUN are interrupted by signals, and
#: some kernels since 6.11 start a thread in the first KVM_RUN, which a signal makes fail with ENOMEM.
TRANSIENT = {
    "KVM_CREATE_VM": (errno.EINTR,),
    "KVM_RUN": (errno.EINTR, errno.EAGAIN, errno.ENOMEM),
}

#: How often such a call is made before its error counts.
CALLS = 10

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
    """KVM cannot be used: the message is one clause that says why, ``remedy`` what to do about it."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


def nested_paging(modules: Path = Path("/sys/module")) -> str:
    """The parameter of KVM's module that turns nested paging on and its value, as ``kvm_amd.npt=Y``.

    Empty where no module tells it. Without it KVM keeps shadow page tables, and each change that a guest
    makes to its own costs exits.
    """
    for module, parameter in NESTED_PAGING.items():
        with suppress(OSError):
            value = (modules / module / "parameters" / parameter).read_text("ascii").strip()
            return f"{module}.{parameter}={value}"
    return ""


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


def _ioctl(name: str, fd: int, argument: int | bytes | bytearray = 0) -> int:
    """Make the ioctl with the constant ``name`` of this module; a bytearray is filled with its result.

    A transient error is retried. Raises :class:`KvmRefused`.
    """
    for call in range(1, CALLS + 1):
        try:
            # Only a call without a buffer returns its result as a number.
            result = fcntl.ioctl(fd, globals()[name], argument)
        except OSError as error:
            transient = error.errno in TRANSIENT.get(name, ())
            if transient and call < CALLS:
                continue
            times = f" {CALLS} times" if transient else ""
            raise KvmRefused(f"{name} failed{times}: {error.strerror}") from error
        return result if isinstance(result, int) else 0
    raise AssertionError("the last call returns or raises")


def _open() -> int:
    try:
        return os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
            raise KvmRefused(
                "there is no /dev/kvm" if error.errno == errno.ENOENT else "/dev/kvm has no driver",
                "load the module kvm_intel or kvm_amd (with virtualisation, or nested virtualisation of the "
                "outer host, enabled); in a container, pass it on: docker run --device=/dev/kvm",
            ) from None
        remedy = _permission_remedy() if error.errno in (errno.EACCES, errno.EPERM) else ""
        raise KvmRefused(f"/dev/kvm cannot be opened: {error.strerror}", remedy) from error


def _permission_remedy() -> str:
    """How a user gets access to /dev/kvm: through the group that it belongs to, or by a rule for udev."""
    found = os.stat("/dev/kvm")
    rule = (
        'add the udev rule KERNEL=="kvm", GROUP="kvm", MODE="0660" in /etc/udev/rules.d/65-kvm.rules '
        "and join the group kvm"
    )
    if found.st_gid == 0 or found.st_mode & 0o060 != 0o060:
        return rule
    try:
        group = grp.getgrgid(found.st_gid).gr_name
    except KeyError:  # in a container the group of the host may have no name
        return f"run with the group {found.st_gid} (docker run --group-add {found.st_gid}), or {rule}"
    return f"join the group {group} (sudo usermod -aG {group} $USER, then log in again), or {rule}"


def _check_interface(kvm: int) -> None:
    """Raise :class:`KvmRefused` unless KVM has the stable interface and the capabilities that are needed."""
    update = "update this host's kernel, or whatever provides its /dev/kvm"
    if (version := _ioctl("KVM_GET_API_VERSION", kvm)) != KVM_API_VERSION:
        raise KvmRefused(f"/dev/kvm has version {version} of the interface, not {KVM_API_VERSION}", update)
    missing = [
        name for name, number in CAPABILITIES.items() if not _ioctl("KVM_CHECK_EXTENSION", kvm, number)
    ]
    if missing:
        raise KvmRefused(f"/dev/kvm lacks {', '.join(missing)}", update)


def _map_code(stack: ExitStack, vm: int, iterations: int) -> None:
    page = stack.enter_context(mmap.mmap(-1, mmap.PAGESIZE))
    page[: len(code(iterations))] = code(iterations)
    # An address only: while a ctypes object refers to the page it cannot be unmapped.
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    _ioctl("KVM_SET_USER_MEMORY_REGION", vm, MEMORY_REGION.pack(0, 0, CODE_ADDRESS, mmap.PAGESIZE, address))


def _set_segment(vcpu: int) -> None:
    """Let the code segment start at 0."""
    sregs = bytearray(KVM_SREGS_SIZE)
    _ioctl("KVM_GET_SREGS", vcpu, sregs)
    SEGMENT.pack_into(sregs, 0, 0, 0xFFFF, 0)
    _ioctl("KVM_SET_SREGS", vcpu, bytes(sregs))


def _time_run(vcpu: int, run: mmap.mmap) -> float:
    """Seconds that the virtual processor takes from the first instruction of the code to its halt."""
    # Bit 1 of rflags is always set (Intel SDM, volume 1, 3.4.3).
    _ioctl("KVM_SET_REGS", vcpu, registers(rip=CODE_ADDRESS, rflags=2))
    start = perf_counter()
    _ioctl("KVM_RUN", vcpu)
    elapsed = perf_counter() - start
    (reason,) = EXIT_REASON.unpack_from(run, EXIT_REASON_OFFSET)
    if reason != KVM_EXIT_HLT:
        raise KvmRefused(f"a loop ended with exit reason {reason} instead of a halt")
    return elapsed


def best_time(iterations: int, attempts: int, enough: float) -> float:
    """The least time in seconds in which a virtual processor counts ``iterations`` down to zero and halts.

    A first run is not counted: in it KVM maps the guest's memory and its own, which takes
    milliseconds where KVM is nested. The loop is then timed up to ``attempts`` times, in the
    same virtual machine, until it takes less than ``enough`` seconds. Raises
    :class:`KvmRefused` where any step fails or the loop ends in another way than by its halt.
    """
    with ExitStack() as stack:
        kvm = stack.enter_context(_descriptor(_open()))
        _check_interface(kvm)
        vm = stack.enter_context(_descriptor(_ioctl("KVM_CREATE_VM", kvm)))
        _ioctl("KVM_SET_TSS_ADDR", vm, TSS_ADDRESS)
        _map_code(stack, vm, iterations)
        vcpu = stack.enter_context(_descriptor(_ioctl("KVM_CREATE_VCPU", vm)))
        run = stack.enter_context(mmap.mmap(vcpu, _ioctl("KVM_GET_VCPU_MMAP_SIZE", kvm)))
        _set_segment(vcpu)
        _time_run(vcpu, run)
        best = _time_run(vcpu, run)
        for _ in range(attempts - 1):
            if best < enough:
                break
            best = min(best, _time_run(vcpu, run))
    return best
