"""What a run's machines cost, and which hidden files they looked up: lines for the end of the run."""

from __future__ import annotations

import time
from collections.abc import Collection
from statistics import median

from pytest_smol.virtiofs.hiding.rules import PUBLIC

__all__ = ["Usage", "describe_hidden"]

#: How many hidden files are named.
_NAMED = 5
_TEST_DIRECTORIES = frozenset(PUBLIC)


def describe_hidden(paths: Collection[str], rootdir: str) -> str:
    """One line that names hidden files which guests looked up: a test may have failed without them.

    ``paths`` are host paths; those in ``rootdir`` are shown relative to it.
    """
    names = sorted(path.removeprefix(f"{rootdir}/") for path in paths)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    in_tests = any(not _TEST_DIRECTORIES.isdisjoint(name.lower().split("/")[:-1]) for name in names)
    how = "smol_show makes exceptions" + ("; test data that git tracks is shown" if in_tests else "")
    return f"smol: hidden from tests: {', '.join(names[:_NAMED])}{more} ({how})"


class Usage:
    """Counts the forks of one run."""

    def __init__(self) -> None:
        self._forks: list[float] = []
        self._alive: dict[object, float] = {}
        self._seconds = 0.0

    def forked(self, machine: object, begin: float) -> None:
        """Count ``machine``, whose making began at ``begin`` on time.monotonic()'s clock."""
        self._alive[machine] = time.monotonic()
        self._forks.append(self._alive[machine] - begin)

    def ended(self, machine: object) -> None:
        """Count the time of ``machine``, which has ended; nothing for one that is no fork. Idempotent."""
        now = time.monotonic()
        self._seconds += now - self._alive.pop(machine, now)

    def describe(self) -> str:
        """One line, empty if there was no fork."""
        if not self._forks:
            return ""
        number = len(self._forks)
        forks = f"{number} fork{'s' if number != 1 else ''}"
        return f"smol: {forks}, p50 {median(self._forks) * 1000:.0f} ms, {self._seconds:.1f} s in guests"
