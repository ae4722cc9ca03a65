"""Every error pytest-smol raises on purpose: one tree, each with its evidence and a remedy.

::

    SmolError
    ├── HostError             the host cannot run machines at all
    │   ├── ToolMissing         a program or package is not installed
    │   ├── QemuTooOld          QEMU is older than the oldest that can fork
    │   ├── AcceleratorUnusable KVM was insisted on and is not usable
    │   ├── KernelUnavailable   no guest kernel can be found or downloaded
    │   ├── ConfinementMissing  confinement was insisted on and is not complete
    │   ├── NotEnoughMemory     the host has too little memory for a guest
    │   └── DiskFull            a snapshot or image could not be written
    ├── SettingError          an option, ini value or marker argument is wrong
    ├── MachineError          one virtual machine went wrong
    │   ├── BootFailed          the guest never got ready
    │   ├── MachineDied         the engine's process or the guest ended on its own
    │   ├── MachineTimeout      no answer within the time allowed
    │   ├── QmpError            QEMU refused a command
    │   └── ProtocolError       a peer sent what the protocol forbids
    └── SnapshotError         a snapshot cannot be made, read or trusted
"""

from __future__ import annotations

__all__ = [
    "AcceleratorUnusable",
    "BootFailed",
    "ConfinementMissing",
    "DiskFull",
    "HostError",
    "KernelUnavailable",
    "MachineDied",
    "MachineError",
    "MachineTimeout",
    "NotEnoughMemory",
    "ProtocolError",
    "QemuTooOld",
    "QmpError",
    "SettingError",
    "SmolError",
    "SnapshotError",
    "ToolMissing",
]


class SmolError(Exception):
    """Something pytest-smol could not do.

    ``message`` names the cause in one sentence, ``remedy`` what the user can
    do about it (may be empty where nothing can be done), and ``evidence``
    holds what was seen: a command line, an exit status, a console's tail.
    """

    def __init__(self, message: str, *, remedy: str = "", evidence: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.evidence = evidence

    def __str__(self) -> str:
        parts = [self.message]
        if self.evidence:
            parts.append(self.evidence.rstrip("\n"))
        if self.remedy:
            parts.append(f"hint: {self.remedy}")
        return "\n".join(parts)


class HostError(SmolError):
    """The host cannot run machines."""


class ToolMissing(HostError):
    """A program or package that is needed is not installed."""


class QemuTooOld(HostError):
    """QEMU is older than 8.2, the oldest that can save and load the state of vhost-user-fs."""


class AcceleratorUnusable(HostError):
    """KVM was asked for by name and the probe says it is not usable."""


class KernelUnavailable(HostError):
    """No guest kernel can be found or downloaded."""


class ConfinementMissing(HostError):
    """Confinement was asked for and this host has not all of it."""


class NotEnoughMemory(HostError):
    """The host, or this process's control group, has too little memory."""


class DiskFull(HostError):
    """A file that a machine needs could not be written."""


class SettingError(SmolError):
    """An option, an ini value or an argument of the marker is wrong."""


class MachineError(SmolError):
    """One virtual machine went wrong; others are not concerned."""


class BootFailed(MachineError):
    """The guest never reported that it was ready."""


class MachineDied(MachineError):
    """The engine's process ended, or the guest stopped running, on its own."""


class MachineTimeout(MachineError):
    """The guest gave no answer within the time allowed."""


class TerminalRefused(MachineError):
    """A guest asked for the user's terminal, and the user did not lend it."""


class TerminalTakenBack(MachineError):
    """The user took the terminal back from a guest with the escape key, which ends its test."""


class QmpError(MachineError):
    """QEMU refused a QMP command."""


class ProtocolError(MachineError):
    """A peer (the guest, or the engine's process) sent what a protocol forbids."""


class SnapshotError(SmolError):
    """A snapshot cannot be made, read or trusted."""
