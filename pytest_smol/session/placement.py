"""Which tests share a machine, and in which steps each machine runs them. Pure."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pytest_smol.marker import MarkerArguments
from pytest_smol.settings import SCOPES, Settings

__all__ = ["MachineSpec", "Placement", "Step", "placement", "steps"]

T = TypeVar("T", bound=Hashable)

#: A test's number in the guest and that of the test that follows in its session, if any.
Step = tuple[int, "int | None"]


@dataclass(frozen=True)
class MachineSpec:
    """What a machine must be: memory in MiB, and whose account the tests run under."""

    memory: int
    user: str


@dataclass(frozen=True)
class Placement:
    """Where one test runs: tests with equal placements share a machine."""

    scope: str
    boundary: str
    spec: MachineSpec


def spec_of(settings: Settings, arguments: MarkerArguments | None = None) -> MachineSpec:
    """The spec that settings and a marker ask for; the host's user may be root itself."""
    arguments = arguments or MarkerArguments()
    user = arguments.user or "host"
    return MachineSpec(arguments.memory or settings.memory, "root" if os.getuid() == 0 else user)


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


def steps(members: Sequence[T], run: Sequence[T], numbers: Mapping[T, int | None]) -> list[Step]:
    """The steps of a machine that runs ``members``, by the guest's ``numbers``; None has no step.

    What follows a test in the whole ``run`` is told, so that fixtures live as
    long as at home; nothing follows the last test of a machine.
    """
    following: dict[T, int | None] = {}
    after: int | None = None
    for test in reversed(run):
        following[test] = after
        after = numbers[test] if numbers[test] is not None else after
    known = [(number, following[test]) for test in members if (number := numbers[test]) is not None]
    return [*known[:-1], (known[-1][0], None)] if known else []
