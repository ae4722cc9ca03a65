"""Where each test runs: which tests share a machine, and what that machine must be."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pytest

from pytest_smol import marker
from pytest_smol.errors import SettingError
from pytest_smol.marker import Mark, MarkerArguments
from pytest_smol.reports.nodes import GuestCollector, GuestItem
from pytest_smol.settings import SCOPES, Settings

__all__ = [
    "MachineSpec",
    "Placement",
    "PlannedTest",
    "has_untrusted",
    "placement",
    "planned_test",
    "spec_of",
]


@dataclass(frozen=True)
class MachineSpec:
    """What a machine must be: memory in MiB, and whose account the tests run under.

    ``cpus`` is None where the engine decides; ``disks`` are the sizes of its scratch disks in bytes.
    A ``nested`` one can run machines itself.
    """

    memory: int
    user: str
    cpus: int | None = None
    disks: tuple[int, ...] = ()
    nested: bool = False


@dataclass(frozen=True)
class Placement:
    """Where one test runs: tests with equal placements share a machine."""

    scope: str
    boundary: str
    spec: MachineSpec


@dataclass(frozen=True)
class PlannedTest:
    """Where a test runs in a VM, and how long it may take, in seconds."""

    placement: Placement
    timeout: float


def spec_of(settings: Settings, arguments: MarkerArguments | None = None) -> MachineSpec:
    """The spec that settings and a marker ask for; the host's user may be root itself.

    Raises :class:`SettingError` where the VM's memory is less than its tests may write.
    """
    arguments = arguments or MarkerArguments()
    user = arguments.user or "host"
    memory = arguments.memory or settings.memory
    if settings.tmp is not None and settings.tmp >= memory << 20:
        raise SettingError(
            f"smol_tmp={settings.tmp >> 20} is no less than the {memory} MiB of the VM, which it is part of",
            remedy="choose a smaller smol_tmp, or more memory: smol_memory, @pytest.mark.smol(memory=...)",
        )
    return MachineSpec(
        memory,
        "root" if os.getuid() == 0 else user,
        arguments.cpus or settings.cpus,
        settings.disks if arguments.disks is None else arguments.disks,
        settings.nested if arguments.nested is None else arguments.nested,
    )


def placement(
    boundaries: dict[str, str],
    place: str | None,
    arguments: MarkerArguments,
    settings: Settings,
    least: str = "test",
) -> Placement:
    """Where a test runs.

    ``boundaries`` gives the node id of the test's boundary for each scope;
    ``place`` is the scope that the closest marker's place stands for, None
    without a marker. The marker's ``scope`` argument wins over the option,
    the option over the place, and a module is the default. No scope is narrower than ``least``.
    """
    scope = max(arguments.scope or settings.scope or place or "module", least, key=SCOPES.index)
    spec = spec_of(settings, arguments)
    return Placement(scope, boundaries[scope], spec)


def planned_test(item: pytest.Item, settings: Settings, least: str = "test") -> PlannedTest:
    """Where ``item`` runs, in no scope narrower than ``least``.

    Raises :class:`SettingError` for a wrong marker.
    """
    marks = _marks(item)
    arguments = marker.marker_arguments(item.nodeid, marks)
    if arguments.untrusted and settings.collect != "module":
        raise SettingError(
            f"{item.nodeid}: untrusted=True comes too late: all modules were imported in one VM",
            remedy="with --smol, give --smol-collect=module or set smol_collect = module in the ini-file",
        )
    boundaries = _boundaries(item)
    if marks:
        boundaries[marks[0].place] = marks[0].nodeid
    where = placement(boundaries, marks[0].place if marks else None, arguments, settings, least)
    return PlannedTest(where, arguments.timeout or settings.timeout)


def has_untrusted(items: Iterable[pytest.Item]) -> bool:
    """Whether a marker says of any of ``items`` that its module is not trusted.

    Raises :class:`SettingError` for a wrong marker.
    """
    return any(marker.marker_arguments(item.nodeid, _marks(item)).untrusted for item in items)


def _marks(item: pytest.Item) -> Sequence[Mark]:
    return item.marks if isinstance(item, GuestItem) else marker.marks_of(item)


def _boundaries(item: pytest.Item) -> dict[str, str]:
    """The node id of the test's boundary in each scope. A function outside classes is its own class."""
    places = (
        (node, node.place if isinstance(node, GuestCollector) else marker.place(node))
        for node in item.listchain()
    )
    classes = [node.nodeid for node, scope in places if scope == "class"]
    return {
        "test": item.nodeid,
        "class": classes[-1] if classes else item.nodeid,
        "module": item.nodeid.split("::")[0],
        "session": "",
    }
