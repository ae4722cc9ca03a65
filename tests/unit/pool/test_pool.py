"""The pool against a factory that is none: what is made ahead, how often, and what is left in the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from pytest_smol.errors import MachineDied, NotEnoughMemory, ProtocolError, SmolError
from pytest_smol.host.resources import needed_memory
from pytest_smol.machine.machine import Machine
from pytest_smol.pool import pool as pool_module
from pytest_smol.pool.admission import Ledger
from pytest_smol.pool.factory import MachineFactory
from pytest_smol.pool.pool import Pool, forks_ahead
from pytest_smol.protocol.wire import Message
from pytest_smol.snapshots.snapshot import Snapshot
from tests.unit.snapshot_samples import Builder


class FakeMachine:
    def __init__(self, answer: Message | SmolError) -> None:
        self.answer = answer
        self.sent: list[Message] = []
        self.killed = False
        self.on_output: Any = None

    def send(self, message: Message) -> None:
        self.sent.append(message)

    def receive(self, deadline: float) -> Message:
        if isinstance(self.answer, SmolError):
            raise self.answer
        return self.answer

    def show_output(self, sink: Any) -> None:
        self.on_output = sink

    def kill(self) -> None:
        self.killed = True


class FakeFactory:
    """Makes machines that answer with what ``answers`` holds, then with what is right."""

    ledger: Ledger

    def __init__(self) -> None:
        self.answers: list[Message | SmolError] = []
        self.made: list[FakeMachine] = []
        self.retired: list[FakeMachine] = []
        self.threads: set[str] = set()
        self.changed = threading.Condition()

    def fork(self, snapshot: Snapshot) -> FakeMachine:
        machine = FakeMachine(self.answers.pop(0) if self.answers else {"type": "fresh"})
        with self.changed:
            self.threads.add(threading.current_thread().name)
            self.made.append(machine)
            self.changed.notify_all()
        return machine

    def retire(self, machine: FakeMachine) -> None:
        with self.changed:
            self.retired.append(machine)
            self.changed.notify_all()

    def kill_all(self) -> None:
        for machine in self.made:
            machine.kill()

    def wait_made(self, number: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.made) >= number, 30)

    def wait_retired(self, number: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.retired) >= number, 30)


@pytest.fixture
def factory() -> FakeFactory:
    return FakeFactory()


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    return Builder()(tmp_path)


class Room:
    """What the ledgers of a test know of the host: as much memory as ``machines`` need, and its cores."""

    def __init__(self, directory: Path, memory: int) -> None:
        self.machines, self.cores = 64, 64
        self._directory, self._memory = directory, memory

    def ledger(self) -> Ledger:
        return Ledger(
            self._directory, lambda: self.machines * needed_memory(self._memory), lambda: self.cores
        )

    def claims(self) -> int:
        return len(list(self._directory.iterdir()))


@pytest.fixture
def room(tmp_path: Path, snapshot: Snapshot) -> Room:
    return Room(tmp_path / "domain", snapshot.hardware.memory)


@pytest.fixture
def pool(factory: FakeFactory, room: Room) -> Iterator[Pool]:
    factory.ledger = room.ledger()
    made = Pool(cast(MachineFactory, factory), ahead=2)
    yield made
    made.close()


def machine_of(pool: Pool, snapshot: Snapshot) -> FakeMachine:
    return cast(FakeMachine, pool.fork(snapshot))


def test_nothing_is_made_before_it_is_asked_for(pool: Pool, factory: FakeFactory, snapshot: Snapshot) -> None:
    pool.plan(snapshot, 5)
    assert factory.made == []


def test_a_fork_has_an_identity_of_its_own(pool: Pool, snapshot: Snapshot) -> None:
    machines = [machine_of(pool, snapshot) for _ in range(2)]
    for machine in machines:
        (message,) = machine.sent
        assert message["type"] == "identity"
        assert message["fresh"].keys() == {"entropy", "time_ns", "hostname", "machine_id", "boot_id"}
    assert machines[0].sent != machines[1].sent


def test_no_more_are_made_ahead_than_are_planned(
    pool: Pool, factory: FakeFactory, snapshot: Snapshot
) -> None:
    machine_of(pool, snapshot)
    pool.close()
    assert len(factory.made) == 1


@pytest.mark.parametrize(("planned", "made"), [(1, 2), (2, 3), (9, 3)])
def test_forks_are_made_ahead_up_to_a_limit(
    pool: Pool, factory: FakeFactory, snapshot: Snapshot, planned: int, made: int
) -> None:
    pool.plan(snapshot, planned)
    machine_of(pool, snapshot)
    factory.wait_made(made)
    pool.close()
    assert len(factory.made) == made


def test_each_fork_is_handed_out_once_and_in_turn(
    pool: Pool, factory: FakeFactory, snapshot: Snapshot
) -> None:
    pool.plan(snapshot, 9)
    taken = [machine_of(pool, snapshot) for _ in range(6)]
    assert len(set(taken)) == 6
    assert all(name.startswith("smol-pool") for name in factory.threads)


def test_forks_of_another_snapshot_are_of_no_use(
    pool: Pool, factory: FakeFactory, tmp_path: Path, snapshot: Snapshot
) -> None:
    (tmp_path / "other").mkdir()
    other = Builder()(tmp_path / "other")
    pool.plan(snapshot, 1)
    machine_of(pool, snapshot)
    factory.wait_made(2)
    assert machine_of(pool, other) not in factory.made[:2]


@pytest.mark.parametrize(("machines", "cores", "made"), [(1, 64, 1), (2, 64, 2), (64, 0, 1), (64, 1, 2)])
def test_nothing_is_made_ahead_without_memory_and_cores(
    pool: Pool, factory: FakeFactory, snapshot: Snapshot, room: Room, machines: int, cores: int, made: int
) -> None:
    room.machines, room.cores = machines, cores
    pool.plan(snapshot, 5)
    machine_of(pool, snapshot)
    factory.wait_made(made)
    pool.close()
    assert len(factory.made) == made


def test_machines_of_other_runs_count(
    pool: Pool, factory: FakeFactory, snapshot: Snapshot, room: Room
) -> None:
    room.cores = 2
    with room.ledger() as other:
        assert other.claim(snapshot.hardware.memory)
        pool.plan(snapshot, 5)
        machine_of(pool, snapshot)
        factory.wait_made(2)
        assert room.claims() == 3
    machine_of(pool, snapshot)
    factory.wait_made(3)
    assert room.claims() == 3


def test_a_fork_waits_while_another_run_has_the_room(
    pool: Pool, factory: FakeFactory, snapshot: Snapshot, room: Room
) -> None:
    room.machines = 1
    with room.ledger() as other:
        claim = other.claim(snapshot.hardware.memory)
        assert claim
        ended = threading.Timer(0.2, other.release, [claim])
        ended.start()
        machine_of(pool, snapshot)
        assert ended.finished.is_set()


def test_a_run_that_keeps_machines_does_not_wait_for_itself(
    pool: Pool, factory: FakeFactory, snapshot: Snapshot, room: Room
) -> None:
    room.machines = 1
    kept = [machine_of(pool, snapshot) for _ in range(3)]
    room.machines = 0
    with pytest.raises(NotEnoughMemory, match="the 3 machines which this run keeps"):
        pool.fork(snapshot)
    for machine in kept:
        pool.retire(cast(Machine, machine))
    with pytest.raises(NotEnoughMemory, match="that are available\n"):
        pool.fork(snapshot)
    assert len(factory.made) == 3


def test_what_nothing_needs_yet_makes_room(
    pool: Pool, factory: FakeFactory, snapshot: Snapshot, tmp_path: Path, room: Room
) -> None:
    (tmp_path / "other").mkdir()
    other = Builder()(tmp_path / "other")
    room.machines = 3
    pool.plan(snapshot, 2)
    pool.retire(cast(Machine, machine_of(pool, snapshot)))
    factory.wait_made(3)
    with room.ledger() as neighbour:
        assert neighbour.claim(snapshot.hardware.memory)
        machine_of(pool, other)
        assert {id(each) for each in factory.retired} == {id(each) for each in factory.made[:3]}
        assert room.claims() == 2


@pytest.mark.parametrize("answer", [{"type": "fresh"}, MachineDied("it died")])
def test_no_claim_is_left(
    pool: Pool, factory: FakeFactory, snapshot: Snapshot, room: Room, answer: Message | SmolError
) -> None:
    factory.answers = [{"type": "fresh"}, answer, answer]
    pool.plan(snapshot, 5)
    machine_of(pool, snapshot)
    factory.wait_made(3)
    pool.close()
    assert room.claims() == 0


def test_what_went_wrong_ahead_of_need_is_tried_again(
    pool: Pool, factory: FakeFactory, snapshot: Snapshot
) -> None:
    factory.answers = [{"type": "fresh"}, MachineDied("no memory left")]
    pool.plan(snapshot, 1)
    machine_of(pool, snapshot)
    factory.wait_retired(1)
    assert machine_of(pool, snapshot) not in factory.retired


@pytest.mark.parametrize(
    ("answer", "error"),
    [({"type": "start", "index": 0}, ProtocolError), (MachineDied("it died"), MachineDied)],
)
def test_a_fork_that_does_not_become_distinct_is_none(
    pool: Pool, factory: FakeFactory, snapshot: Snapshot, answer: Message | SmolError, error: type[SmolError]
) -> None:
    factory.answers = [answer]
    with pytest.raises(error):
        pool.fork(snapshot)
    assert factory.retired == factory.made


def test_a_retired_machine_is_killed_at_once(pool: Pool, factory: FakeFactory, snapshot: Snapshot) -> None:
    machine = pool.fork(snapshot)
    pool.retire(machine)
    assert cast(FakeMachine, machine).killed
    factory.wait_retired(1)


def test_output_goes_to_whom_the_fork_was_made_for(pool: Pool, snapshot: Snapshot) -> None:
    def sink(name: str, data: bytes) -> None:
        raise AssertionError

    assert cast(FakeMachine, pool.fork(snapshot, sink)).on_output is sink


def test_nothing_lives_on_when_the_pool_is_closed(
    pool: Pool, factory: FakeFactory, snapshot: Snapshot
) -> None:
    pool.plan(snapshot, 9)
    machine_of(pool, snapshot)
    pool.close()
    pool.close()
    assert all(machine.killed for machine in factory.made[:1])
    assert not [each for each in threading.enumerate() if each.name.startswith("smol-pool")]


@pytest.mark.parametrize(
    ("cores", "workers", "ahead"),
    [
        (1, None, 0),
        (2, None, 2),
        (3, None, 3),
        (64, None, 4),
        (2, "2", 0),
        (8, "2", 4),
        (64, "8", 4),
        (4, "16", 0),
    ],
)
def test_the_number_made_ahead_follows_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, workers: str | None, ahead: int
) -> None:
    monkeypatch.setattr(pool_module, "cores", lambda: cores)
    environ = {} if workers is None else {"PYTEST_XDIST_WORKER_COUNT": workers}
    assert forks_ahead(environ) == ahead
