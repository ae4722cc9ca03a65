"""What an engine offers: the types that the rest of the package uses instead of a particular engine."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from pytest_smol.virtiofs.backend import Transport

__all__ = ["FS_TAG", "PORTS", "Engine", "ExitEvidence", "Hardware", "Kernel", "VirtualMachine"]

#: The virtio-fs tag that guest/init mounts.
FS_TAG = "smol"

#: virtio-serial ports by name; in the guest each is ``/dev/virtio-ports/smol.<name>``.
PORTS = ("control", "lifecycle", "stdout", "stderr", "terminal")


@dataclass(frozen=True)
class Hardware:
    """The hardware of a guest, whatever engine runs it. ``memory`` is in MiB.

    ``disks`` are the sizes in bytes of its scratch disks, which are empty at the boot.
    A ``nested`` guest's processor has the extension for virtualisation, and its kernel KVM.

    It is equal for a snapshot and all machines that are restored from it.
    """

    memory: int = 512
    cpus: int = 1
    disks: tuple[int, ...] = ()
    nested: bool = False


@dataclass(frozen=True)
class Kernel:
    """What a boot loads: the kernel image, the initramfs and the kernel's command line."""

    image: Path
    initramfs: Path
    command_line: str


@dataclass(frozen=True)
class ExitEvidence:
    """How a virtual machine ended, as its engine tells it.

    ``reason`` is one clause. ``status`` is the exit status of the engine's process,
    negative for a signal, None while it runs. ``stderr`` is what that process wrote
    to standard error, and ``remedy`` what the user can do, often empty.
    """

    reason: str
    status: int | None = None
    stderr: str = ""
    remedy: str = ""


class VirtualMachine(Protocol):
    """One virtual machine of an engine. All times are in seconds.

    :meth:`start` is called once, after the file server serves :attr:`transport`.
    """

    @property
    def pid(self) -> int:
        """The process that holds the guest's memory."""

    @property
    def ports(self) -> Mapping[str, socket.socket]:
        """The host's ends of the console (``console``) and of the ports :data:`PORTS`; owned by this."""

    @property
    def transport(self) -> Transport:
        """How the file server reaches the guest's memory and the queues of its virtio-fs device."""

    @property
    def event_fds(self) -> Sequence[int]:
        """File descriptors that become readable when :meth:`running` may have changed."""

    @property
    def disk_error(self) -> str:
        """Why the host could not read or write a scratch disk, in one sentence; empty if it always could."""

    @property
    def stopped(self) -> bool:
        """Whether the engine's process is stopped (SIGSTOP), so that the guest cannot answer."""

    def start(self, state: Path | None = None) -> None:
        """Run: from the device state in the file ``state``, or from the kernel. Raises :class:`SmolError`."""

    def running(self) -> bool:
        """Take what :attr:`event_fds` tell, without waiting for more; False once the guest runs no more.

        A machine that its engine has paused for good, as after an internal error of KVM, runs no more.
        """

    def freeze(self, state: Path) -> None:
        """Stop the guest, write its device state to the file ``state`` and end the engine's process.

        The memory file holds the rest. Raises :class:`SmolError`.
        """

    def wait_ended(self, timeout: float) -> None:
        """Wait up to ``timeout`` for the engine's process to end; not at all where it will not end."""

    def exit_evidence(self) -> ExitEvidence:
        """How the machine ended, as far as :meth:`running` has heard."""

    def kill(self) -> None:
        """Kill the machine without waiting for its end. For any thread, idempotent."""

    def close(self) -> None:
        """Kill the machine, wait for its end and close all that belongs to it; idempotent."""


class Engine(Protocol):
    """What runs virtual machines. A context manager: leaving it kills all of its machines.

    Every method that makes a machine raises :class:`SmolError`, and gives one that
    waits for :meth:`VirtualMachine.start`. ``ram`` is the file of the guest's memory.
    Scratch disks of a boot and of a fork are files without a name, which end with the machine.
    """

    def default_cpus(self) -> int:
        """How many virtual processors a guest has where nothing says how many."""

    def require(self, hardware: Hardware) -> None:
        """Raises :class:`HostError` where this host cannot run a guest on ``hardware``."""

    def describe(self) -> str:
        """The engine in one line for pytest's header."""

    def describe_confinement(self) -> str:
        """How the engine's processes are confined on this host, in one line."""

    def identity(self, hardware: Hardware) -> dict[str, Any]:
        """All of the engine that can change a snapshot of a guest on ``hardware``, JSON-ready."""

    def boot(self, hardware: Hardware, kernel: Kernel, ram: Path) -> VirtualMachine:
        """A machine that boots ``kernel``; it writes to files in the directory of ``ram`` only."""

    def resume(self, hardware: Hardware, ram: Path, disks: Sequence[Path] = ()) -> VirtualMachine:
        """A machine that goes on in ``ram`` itself, from a state file in the same directory.

        What it writes to its scratch disks is kept in the files ``disks``, which exist, one for each disk.
        """

    def fork(
        self, hardware: Hardware, ram: Path, state: Path, disks: Sequence[Path | None] = ()
    ) -> VirtualMachine:
        """A machine that maps ``ram`` copy-on-write, to be started from ``state``; it writes to no file.

        ``disks`` are the files of its scratch disks, which it does not change; None is an empty disk.
        """

    def __enter__(self) -> Engine:
        """The engine itself."""

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill all machines."""
