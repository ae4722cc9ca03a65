"""Chooses the engine that runs a run's machines."""

from __future__ import annotations

from pytest_smol.engines.protocol import Engine
from pytest_smol.engines.qemu import accelerator, confinement, program
from pytest_smol.engines.qemu.command_line import QemuConfig
from pytest_smol.engines.qemu.engine import QemuEngine
from pytest_smol.settings import Settings

__all__ = ["choose_engine"]


def choose_engine(settings: Settings) -> Engine:
    """The engine for ``settings`` on this host; no process of it runs yet.

    Raises :class:`~pytest_smol.errors.HostError` where the host cannot run machines, and
    :class:`~pytest_smol.errors.ConfinementMissing` where it cannot confine them as the settings require.
    """
    config = QemuConfig(program.find(settings.qemu), accelerator.choose(settings.accel))
    level = confinement.probe(config.emulator.path, config.accelerator)
    if settings.require_confinement:
        confinement.require(config.accelerator, level)
    return QemuEngine(config, level)
