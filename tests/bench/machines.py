"""Forks without pytest on the host: QEMU's floor, restoring, answering, reporting, and their memory."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytest_smol.engines.qemu.engine import QemuEngine
from pytest_smol.engines.qemu.qmp import QmpClient
from pytest_smol.host.process import ChildProcess
from pytest_smol.machine.machine import Machine
from pytest_smol.pool.factory import MachineFactory, fresh_identity
from pytest_smol.protocol.wire import TO_GUEST
from pytest_smol.session.guests.guest_session import GuestSession, collection_budget
from pytest_smol.session.guests.request import SessionRequest
from pytest_smol.session.placement import MachineSpec
from pytest_smol.settings import Settings
from pytest_smol.snapshots.snapshot import Snapshot
from tests.bench.figures import Figure

__all__ = [
    "FAILS",
    "PASSES",
    "measure",
    "measure_live",
    "one_fork",
    "order",
    "printed_by",
    "qemu_floor",
    "request_for",
    "session",
    "until",
]

_TESTS = """
def test_passes():
    assert 1 + 1 == 2

def test_fails():
    value = {"a": [1, 2], "b": "text"}
    assert value == {"a": [1, 3], "b": "text"}
"""

PASSES, FAILS = 0, 1
_LIMIT = 120.0


def request_for(directory: Path, tests: str = _TESTS) -> SessionRequest:
    """What a guest is asked that collects the module ``tests``, which is written to ``directory``."""
    (directory / "test_module.py").write_text(tests, "utf-8")
    (directory / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\n", "utf-8")
    return SessionRequest(
        args=("test_module.py",),
        argv=("pytest",),
        rootdir=directory,
        cwd=directory,
        sys_path=tuple(sys.path),
        env=Settings().guest_environment(),
    )


@contextmanager
def session(directory: Path, tests: str = _TESTS) -> Iterator[tuple[MachineFactory, Snapshot]]:
    """A factory, and the session snapshot of a project in ``directory`` with the module ``tests``."""
    request = request_for(directory, tests)
    with MachineFactory(Settings(), lambda text: print(f"  {text}", file=sys.stderr, flush=True)) as factory:
        guest = GuestSession(factory, request, MachineSpec(512, "host"), str, collection_budget())
        guest.start(_LIMIT)
        yield factory, guest.snapshot


def qemu_floor(factory: MachineFactory) -> float:
    """Milliseconds from the start of an empty machine of ours to its end."""
    mine, other = socket.socketpair()
    assert isinstance(factory.engine, QemuEngine)
    emulator, accelerator = factory.engine.config.emulator, factory.engine.config.accelerator
    argv = [emulator.path, "-nodefaults", "-no-user-config", "-display", "none", "-S"]
    argv += ["-machine", "microvm,acpi=on", "-accel", accelerator.name, "-cpu", accelerator.cpu, "-m", "512M"]
    argv += ["-chardev", f"socket,id=qmp,fd={other.fileno()}", "-mon", "chardev=qmp,mode=control"]
    begin = time.perf_counter()
    with mine, other:
        process = ChildProcess(argv, [other.fileno()])
        other.close()
        qmp = QmpClient(mine)
        deadline = time.monotonic() + _LIMIT
        qmp.negotiate(deadline)
        qmp.execute("quit", deadline)
        process.wait(_LIMIT)
        taken = time.perf_counter() - begin
        process.kill()
    return taken * 1000


def until(machine: Machine, kind: str) -> None:
    """Take messages up to the first one of the type ``kind``. Raises MachineTimeout."""
    deadline = time.monotonic() + _LIMIT
    while machine.receive(deadline)["type"] != kind:
        continue


_EMPTY: dict[type, Any] = {int: 0, bool: False, str: "", list: [], dict: {}, float: 0.0, type(None): None}


def order(number: int) -> dict[str, Any]:
    """A ``run`` message for one test, with nothing in the fields that are not for it."""
    fields = {name: _EMPTY[types[-1]] for name, types in TO_GUEST["run"].items()}
    return {**fields, "type": "run", "steps": [[number, None]]}


def one_fork(factory: MachineFactory, snapshot: Snapshot, number: int, ahead: float = 0) -> dict[str, float]:
    """Milliseconds that one fork takes to each of its stages; ``ahead`` seconds pass before it is needed."""
    begin = time.perf_counter()
    machine = factory.fork(snapshot)
    restored = time.perf_counter()
    machine.send({"type": "identity", "fresh": fresh_identity()})
    until(machine, "fresh")
    answered = time.perf_counter()
    if ahead:
        time.sleep(ahead)
        begin = answered = time.perf_counter()
    machine.send(order(number))
    until(machine, "finish")
    reported = time.perf_counter()
    factory.retire(machine)
    ended = time.perf_counter()
    marks = {"restored": restored, "first answer": answered, "report": reported}
    taken = {stage: (mark - begin) * 1000 for stage, mark in marks.items()}
    return {**taken, "test": (reported - answered) * 1000, "kill": (ended - reported) * 1000}


def printed_by(factory: MachineFactory, snapshot: Snapshot, number: int) -> str:
    """What the test ``number`` prints in a fork of its own. Raises AssertionError if it does not pass."""
    machine = factory.fork(snapshot)
    machine.send({"type": "identity", "fresh": fresh_identity()})
    machine.send(order(number))
    deadline = time.monotonic() + _LIMIT
    printed = ""
    while (message := machine.receive(deadline))["type"] != "finish":
        if message["type"] == "report":
            assert message["data"]["outcome"] == "passed", message["data"]
            printed = "".join(text for title, text in message["data"]["sections"] if "stdout call" in title)
    factory.retire(machine)
    return printed


def measure(directory: Path, count: int) -> Iterator[Figure]:
    """The costs of a fork, all read in turn, so that a busy moment falls on all of them."""
    floor, passing, failing, ahead = [], [], [], []
    with session(directory) as (factory, snapshot):
        one_fork(factory, snapshot, PASSES)
        for _ in range(count):
            floor.append(qemu_floor(factory))
            passing.append(one_fork(factory, snapshot, PASSES))
            failing.append(one_fork(factory, snapshot, FAILS))
            ahead.append(one_fork(factory, snapshot, PASSES, ahead=0.2))
    yield Figure("QEMU: start and quit", "ms", tuple(floor))
    for stage in ("restored", "first answer", "report", "kill"):
        yield Figure(f"fork to {stage}" if stage != "kill" else "kill a fork", "ms", _of(passing, stage))
    yield Figure("fork to report, made ahead", "ms", _of(ahead, "report"))
    yield Figure("in the fork: a passing test", "ms", _of(passing, "test"))
    yield Figure("in the fork: a failing test", "ms", _of(failing, "test"))


def _of(forks: Sequence[dict[str, float]], stage: str) -> tuple[float, ...]:
    return tuple(fork[stage] for fork in forks)


def private_memory(pid: int) -> float:
    """MB that a process has for itself: Anonymous of proc(5)'s smaps_rollup.

    Private_Dirty would count pages of the snapshot's file that are not yet on disk.
    """
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) / 1024


def measure_live(directory: Path, counts: Sequence[int]) -> Iterator[Figure]:
    """Private memory of forks that wait for orders, at each of ``counts`` live ones."""
    with session(directory) as (factory, snapshot):
        forks: list[Machine] = []
        for count in sorted(counts):
            begin = time.perf_counter()
            new = count - len(forks)
            forks += [factory.fork(snapshot) for _ in range(new)]
            taken = (time.perf_counter() - begin) * 1000 / new
            yield Figure(f"fork, up to {count} live", "ms", (taken,))
            sizes = tuple(private_memory(fork.vm.pid) for fork in forks)
            yield Figure(f"private memory of a fork, {count} live", "MB", sizes)
