"""Where each module is collected in a machine of its own: which files the machines of a group collect."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter

import pytest

from pytest_smol.session.guests.module_collection import FileCollector, GroupCollection
from pytest_smol.session.plan import GuestNumbers

__all__ = ["GroupFiles"]


class GroupFiles:
    """The files of ``tests``, those in VMs in the order of the run; ``collector`` has forks collect them."""

    def __init__(self, tests: Iterable[pytest.Item], collector: FileCollector) -> None:
        self._collector = collector
        self._tests: dict[str, list[tuple[int, pytest.Item]]] = {}
        for place, test in enumerate(tests):
            self._tests.setdefault(str(test.path), []).append((place, test))
        self._known: dict[tuple[str, ...], tuple[GuestNumbers[pytest.Item], GroupCollection]] = {}

    def of(self, members: Sequence[pytest.Item]) -> tuple[GuestNumbers[pytest.Item], GroupCollection]:
        """What has machines collect the files of ``members``, and the numbers of the tests in these."""
        paths = tuple(dict.fromkeys(str(test.path) for test in members))
        if paths not in self._known:
            placed = sorted((pair for path in paths for pair in self._tests[path]), key=itemgetter(0))
            tests = [test for _, test in placed]
            collection = GroupCollection(self._collector, paths, [test.nodeid for test in tests])
            self._known[paths] = GuestNumbers(tests, range(len(tests))), collection
        return self._known[paths]
