"""What forks and runs cost on KVM, as counts: run in the host that ``scripts/bench --kvm`` emulates.

That host's clock counts instructions, so times here are instructions, in millions of them. Run as a module
it prints the figures as JSON in its last line. ``python -m tests.bench.counted FORKED RUNS REPEATS``: the
interpreters with pytest-forked and with pytest-xdist, and how often each figure is taken.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pytest_smol.pool.factory import MachineFactory, fresh_identity
from pytest_smol.session.guests.guest_session import GuestSession, collection_budget
from pytest_smol.session.placement import MachineSpec
from pytest_smol.settings import Settings
from pytest_smol.snapshots.snapshot import Snapshot
from tests.bench.calibration import COMMANDS, run_command
from tests.bench.figures import Figure
from tests.bench.kernel_counts import SystemCalls, host_page_faults, kvm_statistics
from tests.bench.machines import FAILS, PASSES, one_fork, order, qemu_floor, request_for, until
from tests.bench.runs import Way, run_pytest

__all__ = ["COUNTS", "fork_counts", "measure"]

#: Stages of a fork at which its counters are read, and what they count.
STAGES = ("restored", "first answer", "report")
COUNTS = ("exits", "pf_taken", "host page faults", "system calls", "FUSE requests")

#: Tests of the trivial suite that is run in several ways.
TESTS = 20

_MODULE = f"""
import pytest

@pytest.mark.parametrize("number", range({TESTS}))
def test_trivial(number):
    assert number >= 0
"""

_LIMIT = 600.0


def fork_counts(factory: MachineFactory, snapshot: Snapshot, number: int) -> dict[str, dict[str, int]]:
    """The counts of one fork that runs the test ``number``, from its start to each stage."""
    found: dict[str, dict[str, int]] = {}
    with SystemCalls() as calls:
        machine = factory.fork(snapshot)
        own = 0

        def read(stage: str) -> None:
            nonlocal own
            made = calls.count() - own
            requests = machine.backend.requests.total()
            values = (*kvm_statistics(machine.vm.pid).values(), host_page_faults(machine.vm.pid))
            found[stage] = dict(zip(COUNTS, (*values, made, requests), strict=True))
            own = calls.count() - made  # those that reading takes are not the fork's

        read("restored")
        machine.send({"type": "identity", "fresh": fresh_identity()})
        until(machine, "fresh")
        read("first answer")
        machine.send(order(number))
        until(machine, "finish")
        read("report")
        factory.retire(machine)
    return found


def _timed(step: Callable[[], object]) -> float:
    begin = time.perf_counter()
    step()
    return (time.perf_counter() - begin) * 1000


def forks(directory: Path, repeats: int) -> Iterator[Figure]:
    """Base, session, and forks of it: their instructions, then their counts."""
    with MachineFactory(Settings(accel="kvm"), lambda text: print(text, file=sys.stderr)) as factory:
        hardware = factory.hardware(512)
        base, project = directory / "base", directory / "project"
        base.mkdir()
        project.mkdir()
        yield Figure("base snapshot", "ms", (_timed(lambda: factory.base(hardware, base)),))
        session = GuestSession(
            factory, request_for(project), MachineSpec(512, "host"), str, collection_budget()
        )
        yield Figure("session snapshot", "ms", (_timed(lambda: session.start(_LIMIT)),))
        snapshot = session.snapshot
        for test in (PASSES, FAILS):
            one_fork(factory, snapshot, test)
        yield Figure("QEMU: start and quit", "ms", tuple(qemu_floor(factory) for _ in range(repeats)))
        passing = [one_fork(factory, snapshot, PASSES) for _ in range(repeats)]
        failing = [one_fork(factory, snapshot, FAILS) for _ in range(repeats)]
        ahead = [one_fork(factory, snapshot, PASSES, ahead=0.2) for _ in range(repeats)]
        for stage in (*STAGES, "kill"):
            name = "kill a fork" if stage == "kill" else f"fork to {stage}"
            yield Figure(name, "ms", tuple(each[stage] for each in passing))
        yield Figure("fork to report, made ahead", "ms", tuple(each["report"] for each in ahead))
        yield Figure("in the fork: a passing test", "ms", tuple(each["test"] for each in passing))
        yield Figure("in the fork: a failing test", "ms", tuple(each["test"] for each in failing))
        try:
            counted = [fork_counts(factory, snapshot, PASSES) for _ in range(repeats)]
        except OSError as error:  # debugfs and perf_event_open(2) are root's
            print(f"left out what the kernel counts: {error}", file=sys.stderr)
            return
    for stage in STAGES:
        for name in COUNTS:
            values = tuple(float(each[stage][name]) for each in counted)
            yield Figure(f"fork to {stage}: {name}", "1", values)


def runs(directory: Path, forked: Path, ours: Path, repeats: int) -> Iterator[Figure]:
    """Whole runs of a trivial suite, each for one test: plain, in processes, in machines."""
    (directory / "pytest.ini").write_text("[pytest]\n", "utf-8")
    (directory / "test_trivial.py").write_text(_MODULE, "utf-8")
    smol = ("--smol", "--smol-accel=kvm")
    ways = (
        (ours, Way("plain pytest", ("-p", "no:smol"))),
        (forked, Way("pytest-forked (pytest 8.4)", ("--forked",))),
        (ours, Way("pytest-xdist -n 2", ("-p", "no:smol", "-n", "2"))),
        (ours, Way("smol, module scope", smol)),
        (ours, Way("smol, test scope", (*smol, "--smol-scope=test"))),
    )
    for python, way in ways:
        run_pytest(python, directory, (*way.arguments, "-q"))  # makes what later runs find
        samples = [run_pytest(python, directory, (*way.arguments, "-q"))[1] for _ in range(repeats)]
        yield Figure(
            f"{TESTS} trivial tests, each: {way.name}", "ms", tuple(each * 1000 / TESTS for each in samples)
        )
    samples = [run_pytest(ours, directory, (*smol, "-v"), "PASSED")[0] * 1000 for _ in range(repeats)]
    yield Figure("first result, warm", "ms", tuple(samples))


def measure(forked: Path, ours: Path, repeats: int) -> list[Figure]:
    """All figures. Each is taken when all files that it reads are in this host's page cache."""
    found: list[Figure] = []
    for name, command in COMMANDS.items():
        run_command(command)
        samples = tuple(_timed(lambda command=command: run_command(command)) for _ in range(repeats))  # type: ignore[misc]
        found.append(Figure(f"calibration: {name}", "ms", samples))
    with tempfile.TemporaryDirectory() as folder:
        found += forks(Path(folder), repeats)
    with tempfile.TemporaryDirectory() as folder:
        found += runs(Path(folder), forked, ours, max(2, repeats // 2))
    return found


def main(argv: list[str]) -> None:
    """Print all figures."""
    forked, ours, repeats = argv
    found = measure(Path(forked), Path(ours), int(repeats))
    for figure in found:
        print(f"{figure.name}: {statistics.median(figure.samples):.6g} {figure.unit}", file=sys.stderr)
    print(json.dumps([{"name": each.name, "unit": each.unit, "samples": each.samples} for each in found]))


if __name__ == "__main__":
    main(sys.argv[1:])
