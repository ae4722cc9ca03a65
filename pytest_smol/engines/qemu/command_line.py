"""QEMU's command line. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_smol.engines.protocol import FS_TAG, PORTS, Hardware, Kernel
from pytest_smol.engines.qemu.accelerator import Accelerator
from pytest_smol.engines.qemu.disks import DiskFds, disk_options
from pytest_smol.engines.qemu.program import Emulator

__all__ = ["CHARDEVS", "QemuConfig", "command_line", "devices"]

#: Chardevs that QEMU inherits as connected sockets: QMP, the console, the ports and virtio-fs.
CHARDEVS = ("qmp", "console", *PORTS, "fs")

#: What only a guest that runs machines needs: with it a guest reaches KVM's code for nested guests.
_NOT_NESTED = ",svm=off,vmx=off"

_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@dataclass(frozen=True)
class QemuConfig:
    """The QEMU program and the accelerator that run the guests of a run."""

    emulator: Emulator
    accelerator: Accelerator


def _chardev(name: str, fd: int) -> list[str]:
    return ["-chardev", f"socket,id={name},fd={fd}"]


def _memory(hardware: Hardware, ram: Path, private: bool) -> str:
    backend = f"memory-backend-file,id=m0,size={hardware.memory}M,mem-path={_escaped(str(ram))}"
    return backend + (",share=off,readonly=on,rom=off" if private else ",share=on")


def _escaped(value: str) -> str:
    """``value`` inside a QEMU option list, where a comma is written twice."""
    return value.replace(",", ",,")


def command_line(
    config: QemuConfig,
    hardware: Hardware,
    ram: Path,
    fds: Sequence[int],
    *,
    private: bool = False,
    kernel: Kernel | None = None,
    disks: Sequence[DiskFds] = (),
) -> list[str]:
    """The arguments of one QEMU process.

    ``fds`` are the inherited sockets in the order of :data:`CHARDEVS`. With
    ``kernel`` the machine boots; without, it waits for a state to be loaded.
    ``disks`` are inherited as well, one for each of the hardware's.
    ``private`` maps the memory file copy-on-write, so that it is never written.
    """
    arguments = [config.emulator.path, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    arguments += ["-sandbox", _SANDBOX, "-machine", "microvm,acpi=on,memory-backend=m0"]
    cpu = config.accelerator.cpu + ("" if hardware.nested else _NOT_NESTED)
    arguments += ["-accel", config.accelerator.name, "-cpu", cpu]
    arguments += ["-m", f"{hardware.memory}M", "-smp", str(hardware.cpus)]
    arguments += ["-object", _memory(hardware, ram, private)]
    for name, fd in zip(CHARDEVS, fds, strict=True):
        arguments += _chardev(name, fd)
    arguments += ["-mon", "chardev=qmp,mode=control", "-serial", "chardev:console"]
    arguments += ["-device", "virtio-serial-device"]
    for port in PORTS:
        arguments += ["-device", f"virtserialport,chardev={port},name=smol.{port}"]
    arguments += ["-device", f"vhost-user-fs-device,chardev=fs,tag={FS_TAG},queue-size=128"]
    arguments += disk_options(disks)
    if kernel is None:
        return [*arguments, "-incoming", "defer", "-S"]
    return [*arguments, *_boot(kernel)]


def devices(config: QemuConfig, hardware: Hardware) -> list[str]:
    """All of a command line that makes a machine what a snapshot fits: the same for all runs."""
    disks = [DiskFds(0)] * len(hardware.disks)
    return command_line(config, hardware, Path(), range(len(CHARDEVS)), disks=disks)


def _boot(kernel: Kernel) -> list[str]:
    return ["-kernel", str(kernel.image), "-initrd", str(kernel.initramfs), "-append", kernel.command_line]
