"""What a fork costs in things that can be counted, so that no clock is needed to see it grow."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_smol.engines.qemu.vm import QemuVm
from pytest_smol.machine.machine import Machine
from pytest_smol.pool.factory import MachineFactory
from pytest_smol.pool.pool import Pool
from pytest_smol.reports.builder import ReportBuilder
from pytest_smol.session.guests.guest_session import GuestSession, collection_budget
from pytest_smol.session.guests.request import SessionRequest
from pytest_smol.session.placement import spec_of
from pytest_smol.settings import Settings
from pytest_smol.snapshots.snapshot import Snapshot

pytestmark = pytest.mark.vm

TESTS = """
def test_passes():
    assert 1 + 1 == 2

def test_fails():
    value = {"a": [1, 2]}
    assert value == {"a": [1, 3]}
"""

PASSES, FAILS = 0, 1

#: QMP: capabilities negotiation, migration capabilities, migrate-incoming, cont.
QMP_COMMANDS = 4


@dataclass
class Forks:
    """A session snapshot, and the pool that forks it."""

    factory: MachineFactory
    pool: Pool
    snapshot: Snapshot

    def run(self, number: int) -> tuple[Machine, list[str]]:
        """A fork that has run one test, and the types of the messages that it sent for that."""
        machine = self.pool.fork(self.snapshot)
        machine.send({"type": "run", "steps": [[number, None]], "failed": 0})
        kinds: list[str] = []
        while "finish" not in kinds:
            kinds.append(machine.receive(time.monotonic() + 120)["type"])
        return machine, kinds

    def end(self, machine: Machine) -> None:
        """End it with its claim at once: the pool would clear it away in another thread."""
        self.factory.retire(machine)
        self.factory.ledger.close()


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Forks]:
    root = tmp_path_factory.mktemp("project")
    (root / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\n")
    (root / "test_two.py").write_text(TESTS)
    settings = Settings(everything=True)
    with MachineFactory(settings, print) as factory:
        request = SessionRequest((), ("pytest",), root, root, tuple(sys.path), {})
        guest = GuestSession(
            factory, request, spec_of(settings), ReportBuilder(pytestconfig).clean, collection_budget()
        )
        guest.start(settings.timeout)
        pool = Pool(factory, ahead=0)
        yield Forks(factory, pool, guest.snapshot)
        pool.close()


def qemu_of(machine: Machine) -> QemuVm:
    assert isinstance(machine.vm, QemuVm)
    return machine.vm


def children() -> set[int]:
    tasks = Path("/proc/self/task").iterdir()
    return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}


def test_a_passing_test(forks: Forks) -> None:
    before = children()
    machine, kinds = forks.run(PASSES)
    assert kinds == ["start", "report", "report", "report", "finish"]
    assert qemu_of(machine).qmp.commands == QMP_COMMANDS
    assert children() - before == {machine.vm.pid}
    # All that it reads is in the memory of the snapshot: not one request to the file server.
    assert machine.backend.requests.total() <= 2, machine.backend.requests
    forks.end(machine)


def test_a_passing_test_is_little_code(forks: Forks) -> None:
    """What is run first in a fork is translated first, which is most of what it costs under emulation."""
    if not forks.factory.engine.describe().startswith("tcg"):
        pytest.skip("nothing is translated")
    machine, _ = forks.run(PASSES)
    shown = qemu_of(machine).qmp.execute(
        "human-monitor-command", time.monotonic() + 120, **{"command-line": "info jit"}
    )
    (blocks,) = (int(line.split()[2]) for line in shown.splitlines() if line.startswith("TB count"))
    assert blocks < 18_000  # 13,000 to 15,000; 20,000 when it was first counted
    forks.end(machine)


def test_a_failing_test_reads_little_more(forks: Forks) -> None:
    machine, kinds = forks.run(FAILS)
    assert kinds == ["start", "report", "report", "report", "finish"]
    assert machine.backend.requests.total() <= 20, machine.backend.requests
    forks.end(machine)


def test_a_fork_writes_no_file_and_copies_no_memory(forks: Forks) -> None:
    def files() -> dict[str, int]:
        return {
            str(path): path.stat().st_mtime_ns
            for path in forks.factory.directory.rglob("*")
            if path.is_file()
        }

    before, descriptors = files(), len(os.listdir("/proc/self/fd"))
    machine, _ = forks.run(PASSES)
    assert files() == before
    ram = f"{forks.snapshot.ram}"
    maps = Path(f"/proc/{machine.vm.pid}/smaps").read_text()
    (mapping,) = (block for block in maps.split("VmFlags") if ram in block)
    fields = dict(line.split(":", 1) for line in mapping.splitlines() if ":" in line and "kB" in line)
    private = int(fields["Anonymous"].split()[0]) << 10
    # Copy-on-write: a fork has pages of its own only where it wrote.
    assert private < forks.snapshot.hardware.memory << 18
    forks.end(machine)
    assert len(os.listdir("/proc/self/fd")) == descriptors
