"""Which test runs in which machine, what follows it, and how many machines are to come. Made once; pure.

A plan is made when the tests of the run are known, in one pass over them. While
tests run it is only read, so what a test costs does not depend on how many there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pytest_smol.session.placement import MachineSpec, Placement, PlannedTest

__all__ = ["GuestNumbers", "Plan", "Step"]

T = TypeVar("T", bound=Hashable)

#: A test's number in the guest and that of the test that follows in its session, if any.
Step = tuple[int, "int | None"]


@dataclass(frozen=True)
class _Group(Generic[T]):
    """The tests that share one machine, in the order of the run."""

    members: tuple[T, ...]
    #: How many groups that need a machine of the same spec begin after this one.
    machines_to_come: int


class Plan(Generic[T]):
    """Where the tests of a run are to run. ``planned`` are those of ``tests`` that run in VMs."""

    def __init__(self, tests: Sequence[T] = (), planned: Mapping[T, PlannedTest] | None = None) -> None:
        self.tests = tuple(tests)
        self._planned = dict(planned or {})
        self._groups = self._grouped()
        self._next_on_host = self._host_tests()

    def _grouped(self) -> dict[Placement, _Group[T]]:
        members: dict[Placement, list[T]] = {}
        for test in self.tests:
            if test in self._planned:
                members.setdefault(self._planned[test].placement, []).append(test)
        groups = {}
        begun_later: Counter[MachineSpec] = Counter()
        for where in reversed(members):
            groups[where] = _Group(tuple(members[where]), begun_later[where.spec])
            begun_later[where.spec] += 1
        return groups

    def _host_tests(self) -> dict[T, T | None]:
        """For each test, itself or the first after it that runs on the host."""
        found: dict[T, T | None] = {}
        following: T | None = None
        for test in reversed(self.tests):
            following = following if test in self._planned else test
            found[test] = following
        return found

    @property
    def specs(self) -> set[MachineSpec]:
        """What the machines of the run must be."""
        return {where.spec for where in self._groups}

    @property
    def in_vms(self) -> Mapping[T, PlannedTest]:
        """The tests that run in VMs."""
        return self._planned

    def next_on_host(self, test: T) -> T | None:
        """``test`` or the first after it that runs on the host, None where there is none."""
        return self._next_on_host.get(test, test)

    def members(self, where: Placement) -> Sequence[T]:
        """The tests that share the machine of ``where``, in the order of the run."""
        return self._groups[where].members

    def machines_to_come(self, where: Placement) -> int:
        """How many groups begin after that of ``where`` which need a machine of the same spec."""
        return self._groups[where].machines_to_come


class GuestNumbers(Generic[T]):
    """The numbers that a guest has for the ``tests`` of a run, None for those that it did not collect."""

    def __init__(self, tests: Sequence[T], numbers: Sequence[int | None]) -> None:
        self._numbers = dict(zip(tests, numbers, strict=True))
        self._following: dict[T, int | None] = {}
        after: int | None = None
        for test in reversed(tests):
            self._following[test] = after
            number = self._numbers[test]
            after = number if number is not None else after

    def number(self, test: T) -> int | None:
        """The guest's number of ``test``."""
        return self._numbers[test]

    def steps(self, members: Sequence[T]) -> list[Step]:
        """The steps of a machine that runs ``members``; what the guest did not collect has none.

        What follows a test in the whole run is told, so that fixtures live as
        long as on the host; nothing follows the last test of a machine.
        """
        numbered = ((self._numbers[test], self._following[test]) for test in members)
        known = [(number, following) for number, following in numbered if number is not None]
        return [*known[:-1], (known[-1][0], None)] if known else []
