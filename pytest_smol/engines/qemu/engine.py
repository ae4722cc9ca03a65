"""The engine that runs each guest in a QEMU process, under KVM or emulated."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from pytest_smol.engines.confinement.domains import Level, Spawners
from pytest_smol.engines.protocol import Hardware, Kernel
from pytest_smol.engines.qemu import confinement
from pytest_smol.engines.qemu.command_line import QemuConfig, devices
from pytest_smol.engines.qemu.vm import QemuVm
from pytest_smol.host import processor

__all__ = ["QemuEngine"]


class QemuEngine:
    """Starts confined QEMU processes; implements ``Engine``. ``level`` is how far they are confined."""

    def __init__(self, config: QemuConfig, level: Level) -> None:
        self.config = config
        self._level = level
        self._spawners = Spawners(confinement.own_rules(config.emulator.path, config.accelerator), level)

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
            "devices": devices(self.config, hardware),
        }

    def boot(self, hardware: Hardware, kernel: Kernel, ram: Path) -> QemuVm:
        """As :meth:`Engine.boot`."""
        spawner = self._spawners.for_maker(ram.parent, kernel.image, kernel.initramfs)
        return QemuVm(self.config, hardware, ram, kernel=kernel, spawn=spawner.spawn)

    def resume(self, hardware: Hardware, ram: Path) -> QemuVm:
        """As :meth:`Engine.resume`."""
        spawner = self._spawners.for_maker(ram.parent)
        return QemuVm(self.config, hardware, ram, spawn=spawner.spawn)

    def fork(self, hardware: Hardware, ram: Path, state: Path) -> QemuVm:
        """As :meth:`Engine.fork`."""
        spawner = self._spawners.for_forks(ram, state)
        return QemuVm(self.config, hardware, ram, private=True, spawn=spawner.spawn)

    def __enter__(self) -> QemuEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spawners.close()
