"""QEMU's command line, and which QEMU it is. Pure but for :func:`find`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_smol.accel import Accelerator
from pytest_smol.errors import HostError, QemuTooOld, ToolMissing

__all__ = ["FS_TAG", "PORTS", "Emulator", "Hardware", "Kernel", "command_line", "devices", "find"]

#: The oldest QEMU that can migrate vhost-user-fs and has ``rom=`` for file memory.
OLDEST = (8, 2)

#: The virtio-fs tag that guest/init mounts.
FS_TAG = "smol"

#: virtio-serial ports by name, in the order in which they stand on the command line.
PORTS = ("control", "lifecycle", "stdout", "stderr", "terminal")

#: Chardevs that QEMU inherits as connected sockets: QMP, the console, the ports and virtio-fs.
CHARDEVS = ("qmp", "console", *PORTS, "fs")

_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

_INSTALL = "install QEMU 8.2 or newer (Debian: qemu-system-x86, on Debian 12 from its backports suite)"


@dataclass(frozen=True)
class Emulator:
    """A QEMU program: its resolved path, its version and what tells one build of it from another."""

    path: str
    version: tuple[int, ...]
    identity: str

    @property
    def version_text(self) -> str:
        return ".".join(map(str, self.version))


@dataclass(frozen=True)
class Hardware:
    """What a guest runs on; equal for a snapshot and all that is restored from it. Memory in MiB."""

    emulator: Emulator
    accelerator: Accelerator
    memory: int = 512
    cpus: int = 1


@dataclass(frozen=True)
class Kernel:
    """What a cold boot loads; a restored machine needs none of it."""

    image: Path
    initramfs: Path
    command_line: str


def parse_version(text: str) -> tuple[int, ...]:
    """The version in the first line of ``qemu --version``. Raises :class:`HostError`."""
    found = re.search(r"version (\d+)\.(\d+)\.(\d+)", text)
    if not found:
        raise HostError("QEMU does not say which version it is", evidence=text[:200], remedy=_INSTALL)
    return tuple(int(part) for part in found.groups())


def find(program: str) -> Emulator:
    """The QEMU to use. Raises :class:`ToolMissing` or :class:`QemuTooOld`."""
    path = shutil.which(program)
    if path is None:
        raise ToolMissing(f"{program} is not installed", remedy=_INSTALL)
    path = os.path.realpath(path)
    argv = [path, "--version"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise HostError(f"{path} does not run: {error}", remedy=_INSTALL) from error
    version = parse_version(done.stdout)
    if version < OLDEST:
        raise QemuTooOld(
            f"{path} is QEMU {'.'.join(map(str, version))}, which cannot fork guests", remedy=_INSTALL
        )
    status = os.stat(path)
    return Emulator(path, version, f"{done.stdout.splitlines()[0]} {status.st_size} {status.st_mtime_ns}")


def _chardev(name: str, fd: int) -> list[str]:
    return ["-chardev", f"socket,id={name},fd={fd}"]


def _memory(hardware: Hardware, ram: Path, private: bool) -> str:
    backend = f"memory-backend-file,id=m0,size={hardware.memory}M,mem-path={_escaped(str(ram))}"
    return backend + (",share=off,readonly=on,rom=off" if private else ",share=on")


def _escaped(value: str) -> str:
    """``value`` inside a QEMU option list, where a comma is written twice."""
    return value.replace(",", ",,")


def command_line(
    hardware: Hardware,
    ram: Path,
    fds: Sequence[int],
    *,
    private: bool = False,
    kernel: Kernel | None = None,
) -> list[str]:
    """The arguments of one QEMU process.

    ``fds`` are the inherited sockets in the order of :data:`CHARDEVS`. With
    ``kernel`` the machine boots; without, it waits for a state to be loaded.
    ``private`` maps the memory file copy-on-write, so that it is never written.
    """
    arguments = [hardware.emulator.path, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    arguments += ["-sandbox", _SANDBOX, "-machine", "microvm,acpi=on,memory-backend=m0"]
    arguments += ["-accel", hardware.accelerator.name, "-cpu", hardware.accelerator.cpu]
    arguments += ["-m", f"{hardware.memory}M", "-smp", str(hardware.cpus)]
    arguments += ["-object", _memory(hardware, ram, private)]
    for name, fd in zip(CHARDEVS, fds, strict=True):
        arguments += _chardev(name, fd)
    arguments += ["-mon", "chardev=qmp,mode=control", "-serial", "chardev:console"]
    arguments += ["-device", "virtio-serial-device"]
    for port in PORTS:
        arguments += ["-device", f"virtserialport,chardev={port},name=smol.{port}"]
    arguments += ["-device", f"vhost-user-fs-device,chardev=fs,tag={FS_TAG},queue-size=128"]
    if kernel is None:
        return [*arguments, "-incoming", "defer", "-S"]
    return [*arguments, *_boot(kernel)]


def devices(hardware: Hardware) -> list[str]:
    """All of a command line that makes a machine what a snapshot fits: the same for all runs."""
    return command_line(hardware, Path(), range(len(CHARDEVS)))


def _boot(kernel: Kernel) -> list[str]:
    return ["-kernel", str(kernel.image), "-initrd", str(kernel.initramfs), "-append", kernel.command_line]
