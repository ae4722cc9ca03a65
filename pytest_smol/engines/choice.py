"""Chooses the engine that runs a run's machines."""

from __future__ import annotations

from collections.abc import Callable

from pytest_smol.engines.protocol import Engine
from pytest_smol.engines.qemu import accelerator, checks, confinement, program
from pytest_smol.engines.qemu.command_line import QemuConfig
from pytest_smol.engines.qemu.engine import QemuEngine
from pytest_smol.settings import Settings

__all__ = ["choose_engine", "engine_checks"]


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


def engine_checks() -> tuple[tuple[str, Callable[[Settings], str]], ...]:
    """The checks of what engines need on this host, by subject.

    Each returns what the host has, in one line, or raises :class:`~pytest_smol.errors.SmolError` with
    its remedy.
    """
    return checks.CHECKS
