"""What one run of a suite came to, and how two runs differ. Pure: no process, no file is touched."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.evidence.boot_ids import BootIds, outside_machines

__all__ = ["Difference", "Run", "differences", "parse", "summary"]

ABSENT = "absent"


@dataclass(frozen=True)
class Run:
    """Outcomes by node id of one run, with pytest's exit status and the wall clock in seconds.

    ``boot_ids`` names the kernels on which each test ran.
    """

    status: int
    seconds: float
    tests: Mapping[str, str] = field(default_factory=dict)
    collection: Mapping[str, str] = field(default_factory=dict)
    boot_ids: BootIds = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """One thing that was not the same: a node id (or ``exit status``) and what each run said."""

    where: str
    plain: str
    smol: str

    def __str__(self) -> str:
        return f"{self.where}: plain {self.plain}, smol {self.smol}"


def _outcomes(table: object) -> dict[str, str]:
    if not isinstance(table, dict):
        raise ValueError(f"not a table of outcomes: {table!r}")
    return {nodeid: " + ".join(sorted(outcomes)) or "no outcome" for nodeid, outcomes in table.items()}


def parse(text: str, status: int, seconds: float, boot_ids: BootIds | None = None) -> Run:
    """The run whose outcomes the plugin ``smol_outcomes`` wrote as ``text``.

    Raises :class:`ValueError` for a text that plugin did not write.
    """
    found = json.loads(text)
    if not isinstance(found, dict) or found.keys() != {"tests", "collection"}:
        raise ValueError("not written by smol_outcomes")
    return Run(status, seconds, _outcomes(found["tests"]), _outcomes(found["collection"]), boot_ids or {})


def _compare(plain: Mapping[str, str], smol: Mapping[str, str], label: str) -> list[Difference]:
    nodeids = sorted(plain.keys() | smol.keys())
    pairs = [(nodeid, plain.get(nodeid, ABSENT), smol.get(nodeid, ABSENT)) for nodeid in nodeids]
    return [Difference(label + nodeid, a, b) for nodeid, a, b in pairs if a != b]


def differences(plain: Run, smol: Run, host: str) -> list[Difference]:
    """Everything in which the runs differ, tests first, or that makes a comparison worthless.

    It is worthless where a test of ``smol`` ran on the kernel whose boot id is ``host``, or may have.
    """
    found = _compare(plain.tests, smol.tests, "")
    found += _compare(plain.collection, smol.collection, "collection of ")
    if plain.status != smol.status:
        found.append(Difference("exit status", str(plain.status), str(smol.status)))
    if not plain.tests:
        found.append(Difference("number of tests", "0, which proves nothing", str(len(smol.tests))))
    if any({*ids} != {host} for ids in plain.boot_ids.values()):
        found.append(Difference("kernel", "not the host's", "not compared"))
    outside = outside_machines({nodeid: smol.boot_ids.get(nodeid, ()) for nodeid in smol.tests}, host)
    if smol.tests and outside:
        found.append(Difference("kernel", "the host's", outside))
    return found


def summary(run: Run) -> str:
    """How many tests came to what, as in ``5 passed, 1 skipped``."""
    counts = Counter(run.tests.values())
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common()) or "no tests"
