"""The engine that runs each guest in a QEMU process, under KVM or emulated."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from pytest_smol.engines.confinement.domains import Level, Spawners
from pytest_smol.engines.protocol import Hardware, Kernel
from pytest_smol.engines.qemu import confinement
from pytest_smol.engines.qemu.command_line import QemuConfig, devices
from pytest_smol.engines.qemu.disks import largest_file, opened, overlays
from pytest_smol.engines.qemu.nesting import require_nesting
from pytest_smol.engines.qemu.vm import QemuVm
from pytest_smol.host import processor
from pytest_smol.host.resources import cores

__all__ = ["QemuEngine"]

#: More processors than this have to be asked for: forks share the cores.
_MOST_DEFAULT_CPUS = 8


class QemuEngine:
    """Starts confined QEMU processes; implements ``Engine``. ``level`` is how far they are confined."""

    def __init__(self, config: QemuConfig, level: Level) -> None:
        self.config = config
        self._level = level
        self._spawners = Spawners(confinement.own_rules(config.emulator.path, config.accelerator), level)

    def require(self, hardware: Hardware) -> None:
        """As :meth:`Engine.require`. An emulated processor always has AMD's SVM."""
        if hardware.nested and self.config.accelerator.name == "kvm":
            require_nesting()

    def describe(self) -> str:
        """The accelerator and why it is used, and QEMU's version."""
        accelerator = self.config.accelerator
        reason = f" ({accelerator.reason})" if accelerator.reason else ""
        boundary = ["emulation is no security boundary"] if accelerator.name == "tcg" else []
        version = f"QEMU {self.config.emulator.version_text}"
        return ", ".join([f"{accelerator.name}{reason}", *boundary, version])

    def describe_confinement(self) -> str:
        """As :meth:`Engine.describe_confinement`."""
        return confinement.describe(self._level)

    def identity(self, hardware: Hardware) -> dict[str, Any]:
        """As :meth:`Engine.identity`.

        What the host's processors and kernel are counts only where the guest is
        shown the host's processor (``-cpu host``); an emulated one is the same everywhere.
        """
        emulator, accelerator = self.config.emulator, self.config.accelerator
        return {
            "emulator": [emulator.path, emulator.identity],
            "accelerator": [accelerator.name, accelerator.cpu],
            "host": processor.identity() if accelerator.cpu == "host" else None,
            "memory": hardware.memory,
            "cpus": hardware.cpus,
            "disks": list(hardware.disks),
            "nested": hardware.nested,
            "devices": devices(self.config, hardware),
        }

    def default_cpus(self) -> int:
        """As :meth:`Engine.default_cpus`: one if emulated, as a second costs time; else one for each core."""
        return 1 if self.config.accelerator.name == "tcg" else min(cores(), _MOST_DEFAULT_CPUS)

    def boot(self, hardware: Hardware, kernel: Kernel, ram: Path) -> QemuVm:
        """As :meth:`Engine.boot`."""
        largest = largest_file(hardware.disks)
        files = (ram.parent, kernel.image, kernel.initramfs)
        spawner = self._spawners.for_maker(*files, largest_file=largest)
        with ExitStack() as stack:
            disks = overlays(ram.parent, hardware.disks, (), stack)
            return QemuVm(self.config, hardware, ram, kernel=kernel, spawn=spawner.spawn, disks=disks)

    def resume(self, hardware: Hardware, ram: Path, disks: Sequence[Path] = ()) -> QemuVm:
        """As :meth:`Engine.resume`."""
        spawner = self._spawners.for_maker(ram.parent, largest_file=largest_file(hardware.disks))
        with ExitStack() as stack:
            return QemuVm(self.config, hardware, ram, spawn=spawner.spawn, disks=opened(disks, stack))

    def fork(self, hardware: Hardware, ram: Path, state: Path, disks: Sequence[Path | None] = ()) -> QemuVm:
        """As :meth:`Engine.fork`."""
        spawner = self._spawners.for_forks(ram, state, largest_file=largest_file(hardware.disks))
        with ExitStack() as stack:
            fds = overlays(ram.parent, hardware.disks, disks, stack)
            return QemuVm(self.config, hardware, ram, private=True, spawn=spawner.spawn, disks=fds)

    def __enter__(self) -> QemuEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spawners.close()
