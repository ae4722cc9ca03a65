"""A group's tests in one machine after another, against machines that follow a script."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_smol.errors import BootFailed, MachineDied, MachineTimeout, ProtocolError, SmolError
from pytest_smol.machine.dispatcher import GuestStop
from pytest_smol.machine.exit_evidence import Tail
from pytest_smol.pool.pool import Pool
from pytest_smol.protocol.wire import Message
from pytest_smol.reports.builder import ReportBuilder
from pytest_smol.session import test_progress
from pytest_smol.session.group_run import GroupContext, GroupRun
from pytest_smol.session.plan import Step
from pytest_smol.session.run_messages import RunMessages
from pytest_smol.snapshots.snapshot import Snapshot
from tests.unit.report_samples import exception, passed
from tests.unit.snapshot_samples import Builder

#: What a machine does next: a message it sends, or how it ends.
Script = Sequence[Message | SmolError]

DONE: Message = {"type": "done"}
DEATH = MachineDied("the guest rebooted itself")
TIMEOUT = MachineTimeout("no answer came from the guest in time")


class FakeMachine:
    """Sends the messages of a script; silent afterwards."""

    vm = SimpleNamespace(disk_error="")

    def __init__(self, script: Script) -> None:
        self.script = deque(script)
        self.sent: list[Message] = []
        self.console = Tail()
        self.output = {"stdout": Tail(), "stderr": Tail()}
        self.aborted = False
        self.drained = False

    def send(self, message: Message) -> None:
        self.sent.append(message)
        if self.script and self.script[0] is REFUSES:
            raise MachineDied("it does not take orders")

    def receive(self, deadline: float) -> Message:
        assert deadline > time.monotonic() - 60
        step = self.script.popleft() if self.script else TIMEOUT
        if isinstance(step, SmolError):
            raise step
        return step

    def abort_test(self) -> None:
        self.aborted = True
        self.output["stderr"].add(b"File test.py, line 3 in test_hangs")

    def drain(self) -> None:
        self.drained = True
        self.console.add(b"last words\n")


REFUSES = MachineDied("refuses")


class FakePool:
    """Gives machines that follow the scripts, one after another."""

    def __init__(self, *scripts: Script | SmolError) -> None:
        self.scripts = deque(scripts)
        self.machines: list[FakeMachine] = []
        self.running: list[FakeMachine] = []
        self.titles: list[str] = []

    def fork(self, snapshot: Snapshot, on_output: Any = None) -> FakeMachine:
        script = self.scripts.popleft()
        if isinstance(script, SmolError):
            raise script
        machine = FakeMachine(script)
        self.machines.append(machine)
        self.running.append(machine)
        return machine

    def keep_console(self, machine: FakeMachine, title: str) -> None:
        self.titles.append(title)

    def retire(self, machine: FakeMachine) -> None:
        self.running.remove(machine)


class Group:
    """Two tests, 0 and 1 in the guest, whose machines follow scripts."""

    def __init__(self, items: Sequence[pytest.Item], tmp_path: Path) -> None:
        self.items = items
        self._snapshot = Builder()(tmp_path)
        self.factory = FakePool()
        self.steps: list[Step] = [(0, 1), (1, None)]
        self.worker: Message | None = None

    def begin(self, *scripts: Script | SmolError) -> GroupRun:
        self.factory = FakePool(*scripts)
        pool = cast(Pool, self.factory)
        reports = ReportBuilder(self.items[0].config)
        context = GroupContext(pool, reports, RunMessages(reports), worker=self.worker)
        return GroupRun(context, self._snapshot, self.steps)

    def run(self, *scripts: Script | SmolError, timeout: float = 60) -> list[pytest.TestReport]:
        """The reports of the first test."""
        return list(self.begin(*scripts).run(self.items[0], timeout))


@pytest.fixture
def group(request: pytest.FixtureRequest, tmp_path: Path) -> Group:
    following = next((item for item in request.session.items if item is not request.node), request.node)
    return Group([request.node, following], tmp_path)


def report(when: str, index: int = 0, **changes: Any) -> Message:
    return {"type": "report", "index": index, "data": passed(when=when, **changes)}


def failure(when: str, index: int = 0) -> Message:
    return report(when, index, outcome="failed", longrepr=exception())


def skip(when: str) -> Message:
    return report(when, outcome="skipped", longrepr=["a.py", 1, "Skipped: x"])


def whole(index: int = 0) -> list[Message]:
    """All that a guest says of a test that passes."""
    phases = [report(when, index) for when in ("setup", "call", "teardown")]
    return [{"type": "start", "index": index}, *phases, {"type": "finish", "index": index}]


def shown(reports: Sequence[pytest.TestReport]) -> list[tuple[str, str]]:
    return [(str(each.when), each.outcome) for each in reports]


PASSED = [("setup", "passed"), ("call", "passed"), ("teardown", "passed")]


# --- orders


def test_a_machine_is_told_all_steps(group: Group) -> None:
    assert shown(group.run([*whole()])) == PASSED
    (order,) = group.factory.machines[0].sent
    assert (order["type"], order["steps"]) == ("run", [[0, 1], [1, None]])


def test_a_machine_goes_on_while_steps_are_added_and_ends_with_the_last(group: Group) -> None:
    group.steps = [(0, 1)]
    run = group.begin([*whole(0), *whole(1)])
    assert shown(list(run.run(group.items[0], 60))) == PASSED
    (machine,) = group.factory.running
    run.add((1, None))
    assert shown(list(run.run(group.items[1], 60))) == PASSED
    assert [(order["type"], order["steps"]) for order in machine.sent] == [
        ("run", [[0, 1]]),
        ("more", [[1, None]]),
    ]
    assert not group.factory.running


def test_a_step_that_is_added_after_a_death_begins_a_new_machine(group: Group) -> None:
    group.steps = [(0, 1)]
    run = group.begin(REFUSES, [*whole(1)])
    assert [each.outcome for each in run.run(group.items[0], 60)] == ["failed", "passed"]
    run.add((1, None))
    assert shown(list(run.run(group.items[1], 60))) == PASSED
    (machine,) = group.factory.machines
    assert [(order["type"], order["steps"]) for order in machine.sent] == [("run", [[1, None]])]


def test_a_group_that_ended_begins_again(group: Group) -> None:
    group.steps = [(0, None)]
    run = group.begin([*whole(0)], [*whole(1)])
    list(run.run(group.items[0], 60))
    run.add((1, None))
    list(run.run(group.items[1], 60))
    assert [[order["steps"] for order in each.sent] for each in group.factory.machines] == [
        [[[0, None]]],
        [[[1, None]]],
    ]


def test_a_machine_is_told_its_worker_first(group: Group) -> None:
    group.worker = {"type": "worker", "input": {"workerid": "gw1"}, "env": {}, "screen": {}}
    group.run([*whole()])
    (machine,) = group.factory.machines
    assert [order["type"] for order in machine.sent] == ["worker", "run"]
    assert machine.sent[0] == group.worker


def test_a_machine_is_told_how_many_tests_have_failed(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group.items[0].session, "testsfailed", 3)
    group.run([*whole()])
    assert group.factory.machines[0].sent[0]["failed"] == 3


def test_the_tests_of_a_group_share_a_machine_which_ends_with_the_last(group: Group) -> None:
    run = group.begin([*whole(0), *whole(1)])
    assert shown(list(run.run(group.items[0], 60))) == PASSED
    assert len(group.factory.running) == 1
    reports = list(run.run(group.items[1], 60))
    assert shown(reports) == PASSED
    assert {each.nodeid for each in reports} == {group.items[1].nodeid}
    assert group.factory.running == []
    assert len(group.factory.machines) == 1


def test_reports_come_as_they_arrive(group: Group) -> None:
    run = group.begin([*whole()])
    first = next(run.run(group.items[0], 60))
    assert first.when == "setup"
    assert len(group.factory.machines[0].script) == 3


@pytest.mark.parametrize("script", [BootFailed("no fork"), [REFUSES], [DEATH], []])
def test_a_machine_that_cannot_begin_fails_the_test(group: Group, script: Script | SmolError) -> None:
    assert shown(group.run(script)) == [("setup", "failed"), ("teardown", "passed")]
    assert group.factory.running == []


# --- the order of reports


@pytest.mark.parametrize(
    "messages",
    [
        [report("setup"), report("call"), report("teardown")],
        [failure("setup"), report("teardown")],
        [skip("setup"), report("teardown")],
        [report("setup"), failure("call"), failure("teardown")],
        [report("setup"), report("call"), report("call"), failure("call"), report("teardown")],
        [
            report("setup"),
            report("call", outcome="rerun"),
            report("setup"),
            report("call"),
            report("teardown"),
        ],
        [report("setup", outcome="rerun"), report("setup"), report("call"), report("teardown")],
        [
            report("setup"),
            report("call", outcome="rerun"),
            report("teardown", outcome="rerun"),
            *(report("setup", outcome="rerun"), report("teardown")),
            *(report("setup"), report("call"), report("teardown")),
        ],
    ],
)
def test_phases_in_turn_are_reported(group: Group, messages: list[Message]) -> None:
    reports = group.run([*messages, {"type": "finish", "index": 0}])
    assert shown(reports) == [(each["data"]["when"], each["data"]["outcome"]) for each in messages]


@pytest.mark.parametrize(
    ("messages", "when"),
    [
        ([report("setup"), report("setup")], "call"),
        ([report("setup"), report("call"), report("setup")], "teardown"),
        ([report("setup"), report("teardown"), report("call")], "teardown"),
        ([report("setup"), report("teardown"), report("teardown")], "teardown"),
    ],
)
def test_phases_out_of_turn_fail_the_test(group: Group, messages: list[Message], when: str) -> None:
    reports = group.run([*messages, {"type": "finish", "index": 0}])
    failed = [each for each in reports if each.failed]
    assert [each.when for each in failed] == [when]
    assert "out of turn" in failed[0].longreprtext


@pytest.mark.parametrize(
    "message",
    [
        report("setup", index=1),
        {"type": "start", "index": 1},
        {"type": "finish", "index": 1},
        {"type": "finish", "index": -1},
        DONE,
        {"type": "ready", "python": "3"},
        {"type": "nodes", "rows": []},
        {"type": "exit", "status": 0},
    ],
)
def test_a_message_out_of_turn_fails_the_test(group: Group, message: Message) -> None:
    reports = group.run([report("setup"), message, *whole()])
    assert shown(reports) == [("setup", "passed"), ("call", "failed"), ("teardown", "passed")]
    assert f"'{message['type']}' message out of turn" in reports[1].longreprtext
    assert group.factory.running == []


def test_a_report_that_is_none_fails_the_test(group: Group) -> None:
    reports = group.run([{"type": "report", "index": 0, "data": {}}])
    assert shown(reports) == [("setup", "failed"), ("teardown", "passed")]


def test_a_test_cannot_report_without_end(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_progress, "MAX_REPORTS", 4)
    reports = group.run([report("setup"), *[report("call")] * 9])
    assert shown(reports) == [("setup", "passed"), *[("call", "passed")] * 3, ("teardown", "failed")]


def test_a_guest_cannot_claim_another_test_or_a_longer_time(group: Group) -> None:
    reports = group.run([report("setup", nodeid="other.py::test", duration=1e9)])
    assert reports[0].nodeid == group.items[0].nodeid
    assert reports[0].duration < 1e6


# --- crashes


@pytest.mark.parametrize(
    ("before", "when"),
    [
        ([], "setup"),
        ([{"type": "start", "index": 0}], "setup"),
        ([report("setup")], "call"),
        ([report("setup"), report("call")], "teardown"),
        ([report("setup"), failure("call")], "teardown"),
        ([failure("setup")], "teardown"),
        ([skip("setup")], "teardown"),
        ([report("setup"), report("call"), report("teardown")], "teardown"),
        ([report("setup"), report("call", outcome="rerun")], "setup"),
        ([report("setup"), report("call", outcome="rerun"), report("teardown")], "setup"),
        ([report("setup", outcome="rerun"), report("teardown"), report("setup")], "call"),
    ],
)
@pytest.mark.parametrize("error", [DEATH, ProtocolError("the guest broke the protocol"), TIMEOUT])
def test_a_crash_is_reported_in_the_phase_it_came_in(
    group: Group, before: list[Message], when: str, error: SmolError
) -> None:
    reports = group.run([*before, error])
    crash = [each for each in reports if each.failed][-1]
    assert crash.when == when
    assert reports[-1].when == "teardown"
    assert group.factory.running == []


def test_a_crash_names_its_cause_and_quotes_the_machine(group: Group) -> None:
    crash = group.run([report("setup"), DEATH])[1]
    assert crash.longreprtext.strip() == "the guest rebooted itself"
    assert ("Captured guest console", "last words") in crash.sections
    assert group.factory.machines[0].drained


def test_the_next_test_gets_a_fresh_machine_with_the_steps_left(group: Group) -> None:
    run = group.begin([report("setup"), DEATH], [*whole(1)])
    list(run.run(group.items[0], 60))
    assert shown(list(run.run(group.items[1], 60))) == PASSED
    assert [machine.sent[0]["steps"] for machine in group.factory.machines] == [
        [[0, 1], [1, None]],
        [[1, None]],
    ]


def test_each_death_costs_one_test(group: Group) -> None:
    run = group.begin([DEATH], [DEATH])
    for item in group.items:
        assert shown(list(run.run(item, 60))) == [("setup", "failed"), ("teardown", "passed")]
    assert group.factory.running == []


def test_a_fork_that_fails_once_costs_one_test(group: Group) -> None:
    run = group.begin(BootFailed("no memory"), [*whole(1)])
    list(run.run(group.items[0], 60))
    assert shown(list(run.run(group.items[1], 60))) == PASSED


# --- timeouts


def test_a_test_that_takes_too_long_is_aborted_and_says_where_it_was(group: Group) -> None:
    reports = group.run([report("setup"), TIMEOUT], timeout=1.5)
    assert shown(reports) == [("setup", "passed"), ("call", "failed"), ("teardown", "passed")]
    assert "the test was not over after 1.5 s" in reports[1].longreprtext
    assert "--smol-timeout" in reports[1].longreprtext
    assert ("Captured guest stderr", "File test.py, line 3 in test_hangs") in reports[1].sections
    assert group.factory.machines[0].aborted
    assert group.factory.running == []


def test_every_test_has_its_own_time(group: Group) -> None:
    deadlines = []

    class Timed(FakeMachine):
        def receive(self, deadline: float) -> Message:
            deadlines.append(deadline)
            return super().receive(deadline)

    run = group.begin()
    machine = Timed([*whole(0), *whole(1)])
    group.factory.running.append(machine)
    group.factory.fork = lambda snapshot, on_output=None: machine  # type: ignore[method-assign]
    for item in group.items:
        list(run.run(item, 60))
    assert len(set(deadlines)) == 2


# --- warnings and stops


def test_warnings_are_relayed(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    relayed: list[Message] = []
    monkeypatch.setattr(ReportBuilder, "relay_warning", lambda builder, message: relayed.append(message))
    warning = {"type": "warning", "text": "careful", "when": "runtest"}
    assert shown(group.run([warning, *whole()])) == PASSED
    assert relayed == [warning]


@pytest.mark.parametrize("kind", ["exit", "interrupt", "stop"])
def test_a_stop_ends_the_group(group: Group, kind: str) -> None:
    stop = {"type": "stop", "kind": kind, "reason": "\x1benough", "returncode": 3, "place": None}
    run = group.begin([report("setup"), stop, DONE])
    assert shown(list(run.run(group.items[0], 60))) == [("setup", "passed")]
    assert run.stop == GuestStop(kind, "^[enough", 3)
    assert group.factory.running == []


def test_a_machine_that_dies_while_it_stops_is_a_crash(group: Group) -> None:
    stop = {"type": "stop", "kind": "exit", "reason": "", "returncode": None, "place": None}
    run = group.begin([stop, DEATH])
    assert ("setup", "failed") in shown(list(run.run(group.items[0], 60)))
    assert group.factory.running == []


def test_closing_kills_what_runs_and_can_be_repeated(group: Group) -> None:
    run = group.begin([*whole()])
    list(run.run(group.items[0], 60))
    assert len(group.factory.running) == 1
    run.close()
    run.close()
    assert group.factory.running == []
