"""The content of the guest's initramfs: busybox, kernel modules, ``guest/init`` and the program it starts."""

from __future__ import annotations

import os
import shlex
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path

from pytest_smol.errors import DiskFull, ToolMissing
from pytest_smol.guest_os import cpio
from pytest_smol.guest_os.kernel import Module
from pytest_smol.host.atomic_file import replace_file

__all__ = [
    "APPLETS",
    "START",
    "find_busybox",
    "is_static",
    "kvm_archive",
    "members",
    "start_script",
    "with_start",
]

#: The file of the initramfs that names the program that guest/init starts.
START = "start"

#: Empty directories of the initramfs: mount points of guest/init.
MOUNT_POINTS = ("dev", "proc", "lower", "upper", "newroot")

#: The commands of guest/init that are not shell builtins.
APPLETS = (
    "chmod",
    "ifconfig",
    "insmod",
    "ln",
    "mkdir",
    "mount",
    "poweroff",
    "reboot",
    "switch_root",
    "umount",
)

#: Fields of an ELF64 header: name -> (offset, struct format). Source: elf(5).
ELF64 = {"e_phoff": (0x20, "<Q"), "e_phentsize": (0x36, "<H"), "e_phnum": (0x38, "<H")}
PT_INTERP = 3


def members(
    init: bytes, busybox: bytes, modules: Sequence[Module], for_disks: Sequence[Module] = ()
) -> list[cpio.Member]:
    """The members of the initramfs, for the bytes of guest/init, of busybox and of ``modules``.

    The file ``modules.order`` lists the modules' files in the order to load them, and ``modules.disks``
    those of ``for_disks``, which are loaded after them in a guest that has scratch disks.
    """
    return [
        *(cpio.directory(name) for name in (*MOUNT_POINTS, "bin", "modules")),
        # The kernel opens it as standard input and output of init before anything is mounted.
        cpio.character_device("dev/console", 5, 1),
        cpio.file("bin/busybox", busybox, 0o755),
        *(cpio.symlink(f"bin/{applet}", "busybox") for applet in APPLETS),
        cpio.file("init", init, 0o755),
        *(cpio.file(f"modules/{module.name}.ko", module.data) for module in (*modules, *for_disks)),
        cpio.file("modules.order", _order(modules)),
        cpio.file("modules.disks", _order(for_disks)),
    ]


def kvm_archive(modules: Sequence[Sequence[Module]]) -> bytes:
    """An archive with the modules of KVM for one kind of processor after the other.

    guest/init loads the modules that the file ``modules.kvm`` lists; those of another processor's kind fail.
    """
    distinct = {module.name: module for order in modules for module in order}
    return cpio.archive(
        [
            *(cpio.file(f"modules/{module.name}.ko", module.data) for module in distinct.values()),
            cpio.file("modules.kvm", _order(list(distinct.values()))),
        ]
    )


def _order(modules: Sequence[Module]) -> bytes:
    return "".join(f"{module.name}.ko\n" for module in modules).encode("ascii")


def find_busybox() -> Path:
    """The path of busybox. Raises :class:`~pytest_smol.errors.ToolMissing` unless it is linked statically."""
    found = shutil.which("busybox") or shutil.which("busybox", path="/usr/bin:/bin")
    remedy = "install the package busybox-static"
    if found is None:
        raise ToolMissing("busybox is not installed", remedy=remedy)
    path = Path(found).resolve()
    if not is_static(path.read_bytes()):
        raise ToolMissing(f"{path} needs shared libraries, so it cannot run in an initramfs", remedy=remedy)
    return path


def is_static(program: bytes) -> bool:
    """Whether ``program`` is an ELF64 file that names no dynamic loader."""
    if not program.startswith(b"\x7fELF\x02\x01"):
        return False
    try:
        offset, size, count = (struct.unpack_from(form, program, at)[0] for at, form in ELF64.values())
        kinds = [struct.unpack_from("<I", program, offset + size * n)[0] for n in range(count)]
    except struct.error:
        return False
    return PT_INTERP not in kinds


def start_script(program: Sequence[str]) -> bytes:
    """The content of the file START: shell code that sets ``program``, a path and its arguments, as ``$@``.

    Raises ValueError where ``program`` is empty or a word of it has a NUL.
    """
    if not program or any("\0" in word for word in program):
        raise ValueError(f"not a program with arguments: {program!r}")
    return b"set -- %s\n" % os.fsencode(shlex.join(program))


def with_start(initramfs: Path, program: Sequence[str], directory: Path, more: bytes = b"") -> Path:
    """A copy of ``initramfs`` in ``directory``, readable by the user only, that starts ``program``.

    ``more`` is a further archive, such as that of :func:`kvm_archive`.

    It has a second archive with the file START: the kernel unpacks archives that follow one another
    (its Documentation/driver-api/early-userspace/buffer-format.rst). Raises
    :class:`~pytest_smol.errors.DiskFull`.
    """
    content = initramfs.read_bytes() + more + cpio.archive([cpio.file(START, start_script(program), 0o600)])
    path = directory / "initramfs"
    try:
        replace_file(path, content)
    except OSError as error:
        raise DiskFull(
            f"{path} could not be written: {error.strerror or error}",
            remedy="free some space there, or point TMPDIR to a larger file system",
        ) from error
    return path
