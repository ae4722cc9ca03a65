"""What a fork costs in an emulated host whose clock counts instructions, and what was recorded of it.

Run as a module it writes a new record::

    scripts/kvm --counted --bring tests/kvm/costs.json -- .venv/bin/python -m tests.kvm.costs
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
from pathlib import Path
from typing import Any

import pytest

from pytest_smol.engines.qemu import program
from tests.bench.counted import STAGES, fork_counts
from tests.bench.machines import FAILS, PASSES, one_fork, qemu_floor, session

__all__ = ["RECORD", "apart", "costs", "made_with"]

RECORD = Path(__file__).parent / "costs.json"

#: How often each cost is taken; it is the median that counts.
REPEATS = 5

#: How far a cost may be from the recorded one.
TOLERANCE = 0.05

#: Differences up to this many are none, whatever the cost: a timer more or less.
SPARE = 3


def made_with() -> dict[str, str]:
    """What a record depends on: with another kernel or another Python each cost is another."""
    return {
        "kernel": os.uname().release,
        "QEMU": program.find("qemu-system-x86_64").version_text,
        "python": platform.python_version(),
        "pytest": pytest.__version__,
    }


def costs() -> dict[str, float]:
    """Instructions in thousands, and what the kernel counts, of a fork that runs a trivial test."""
    with tempfile.TemporaryDirectory() as folder, session(Path(folder)) as (factory, snapshot):
        for number in (PASSES, FAILS):  # what is done for the first time is done before it is counted
            one_fork(factory, snapshot, number)
        floor = [qemu_floor(factory) for _ in range(REPEATS)]
        passing = [one_fork(factory, snapshot, PASSES) for _ in range(REPEATS)]
        failing = [one_fork(factory, snapshot, FAILS) for _ in range(REPEATS)]
        counted = [fork_counts(factory, snapshot, PASSES) for _ in range(REPEATS)]
    found = {"QEMU, start and quit: kilo-instructions": statistics.median(floor) * 1000}
    for stage in STAGES:
        middle = statistics.median(each[stage] for each in passing)
        found[f"fork to {stage}: kilo-instructions"] = middle * 1000
    found["a failing test: kilo-instructions"] = statistics.median(each["test"] for each in failing) * 1000
    for name in counted[0]["report"]:
        found[f"fork to report: {name}"] = statistics.median(each["report"][name] for each in counted)
    return {name: round(value) for name, value in found.items()}


def apart(found: dict[str, float], recorded: dict[str, float]) -> list[str]:
    """A line for each cost that is not the recorded one."""
    return [
        f"{name}: {found.get(name, 0):.0f}, recorded {value:.0f}"
        for name, value in recorded.items()
        if abs(found.get(name, 0) - value) > max(TOLERANCE * value, SPARE)
    ]


def record() -> dict[str, Any]:
    """What :data:`RECORD` holds."""
    table: dict[str, Any] = json.loads(RECORD.read_text("utf-8"))
    return table


if __name__ == "__main__":
    RECORD.write_text(json.dumps({"made with": made_with(), "costs": costs()}, indent=1) + "\n", "utf-8")
