"""One group of tests in one machine after another: reports out, and a fresh fork after a death."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import pytest

from pytest_smol.artifacts.collector import ArtifactCollector
from pytest_smol.artifacts.incoming import IncomingArtifacts
from pytest_smol.errors import ProtocolError, SmolError
from pytest_smol.machine.dispatcher import Deadline, GuestStop, Phase, Rule, exchange, finish, stop_rule
from pytest_smol.machine.machine import Machine, OutputSink
from pytest_smol.machine.user_terminal import Terminal
from pytest_smol.pool.pool import Pool
from pytest_smol.protocol.wire import Message
from pytest_smol.reports.budget import MessageBudget, RunBudget
from pytest_smol.reports.builder import ReportBuilder
from pytest_smol.session.guests.module_collection import GroupCollection
from pytest_smol.session.plan import Step
from pytest_smol.session.run_messages import RunMessages
from pytest_smol.session.test_progress import TestDeadline, TestProgress
from pytest_smol.snapshots.snapshot import Snapshot

__all__ = ["GroupContext", "GroupRun", "not_collected"]

#: The least time that plugins have to end in a machine after its last test, in seconds.
MIN_END_TIME = 60.0

#: The most that is kept of what a guest says about one test, in bytes, without files.
MAX_KEPT = 64 << 20

#: What a report costs beyond its data, in bytes: the objects that the host and pytest make of it.
_REPORT = 1 << 10

#: What a keyword of the test's costs in each of its reports, in bytes.
_KEYWORD = 128

#: The most that plugins in one machine may say when it ends, in bytes.
MAX_PLUGIN_STATE = 1 << 30


def not_collected() -> ProtocolError:
    """The error for a test that the guest has not."""
    return ProtocolError(
        "the guest did not collect this test",
        remedy="what is collected must not depend on what a guest lacks, such as the network",
    )


@dataclass(frozen=True)
class GroupContext:
    """What all groups of a run have in common.

    ``on_output`` is given what tests write. ``worker`` is the message that tells
    machines of the worker of pytest-xdist that this process is, None elsewhere.
    Debuggers in the guest talk with the user on ``terminal``.
    """

    pool: Pool
    reports: ReportBuilder
    messages: RunMessages
    on_output: OutputSink | None = None
    worker: Message | None = None
    artifacts: ArtifactCollector | None = None
    terminal: Terminal | None = None
    #: What all tests of the run may report together.
    budget: RunBudget | None = None


class GroupRun:
    """Runs the ``steps`` of a group in forks of ``snapshot``; one machine at a time.

    With ``collection`` each fork collects the group's tests itself, and the numbers in ``steps`` are
    places in what that gives.
    """

    def __init__(
        self,
        context: GroupContext,
        snapshot: Snapshot,
        steps: Iterable[Step],
        collection: GroupCollection | None = None,
    ) -> None:
        self._context = context
        self._snapshot = snapshot
        self._steps = deque(steps)
        self._collection = collection
        #: The machine's numbers of the tests, by the numbers in the steps; None where these are the same.
        self._numbers: list[int | None] | None = None
        self._machine: Machine | None = None
        self._budget = MessageBudget("the test", MAX_KEPT, context.budget)
        self._state_budget = MessageBudget("a plugin", MAX_PLUGIN_STATE)
        artifacts = context.artifacts
        self._incoming = IncomingArtifacts(artifacts) if artifacts is not None and artifacts.expects else None
        self._test: TestProgress
        self._phase: Phase
        self._test_rules = self._rules_of_a_test()
        #: How many of the steps the machine has been told.
        self._told = 0
        #: Set when the guest's pytest was told to stop.
        self.stop: GuestStop | None = None

    # --- what a guest may say -------------------------------------------------------------

    def _common_rules(self) -> dict[str, Rule]:
        """The messages that may come in a test as well as after the last."""
        rules = self._context.messages.rules(self._budget)
        if self._incoming is not None:
            take = self._incoming.take
            # Files have a limit of their own, MAX_TEST_BYTES: what is more stays in the VM.
            rules["file"] = Rule(take)
            rules["unsent"] = rules["writes"] = Rule(take, self._budget)
            rules["state"] = Rule(take, self._state_budget)
        return rules

    def _rules_of_a_test(self) -> Mapping[str, Rule]:
        return {
            **self._common_rules(),
            "start": Rule(self._require_turn),
            "report": Rule(self._take_report, self._budget),
            "finish": Rule(self._finish, ends=True),
            "pdb_shown": Rule(lambda message: self._test.shown_in_debugger()),
            "stop": stop_rule(self._stopped, self._context.reports.clean, self._budget),
            "done": Rule(self._require_stop, ends=True),
        }

    def _rules_of_the_end(self) -> Mapping[str, Rule]:
        return {
            **self._common_rules(),
            "stop": stop_rule(self._stopped, self._context.reports.clean, self._budget, ends=True),
            "done": Rule(ends=True),
        }

    def _require_turn(self, message: Message) -> None:
        """Only the test whose turn it is may be spoken of. Raises :class:`ProtocolError`."""
        if message["index"] != self._number(self._steps[0][0]):
            raise self._phase.refusal(message)

    def _finish(self, message: Message) -> None:
        self._require_turn(message)
        self._test.require_end()

    def _take_report(self, message: Message) -> pytest.TestReport:
        self._require_turn(message)
        self._budget.add(_REPORT + _KEYWORD * self._test.keywords)
        report = self._test.report(message["data"])
        refused = self._machine.vm.disk_error if report.failed and self._machine is not None else ""
        if refused:
            report.sections.append(("Captured scratch disks", refused))
        return report if self._incoming is None else self._incoming.add_to_report(report)

    def _require_stop(self, message: Message) -> None:
        """Before its tests are over, only a guest that was stopped is done. Raises :class:`ProtocolError`."""
        if self.stop is None:
            raise self._phase.refusal(message)

    def _stopped(self, stop: GuestStop) -> None:
        self.stop = stop

    # --- run ------------------------------------------------------------------------------

    def add(self, step: Step) -> None:
        """One more step. The step before must have named a test that follows, or be over with its machine."""
        self._steps.append(step)

    def run(self, item: pytest.Item, timeout: float) -> Iterator[pytest.TestReport]:
        """The reports of ``item``, the next of the group, as they come; it may take ``timeout`` seconds."""
        self._test = TestProgress(item, self._context.reports)
        deadline = TestDeadline(timeout)
        self._phase = Phase("out of turn", self._test_rules, deadline, self._context.terminal, item.nodeid)
        self._budget.begin()
        if self._incoming is not None:
            self._incoming.begin()
        try:
            yield from exchange(self._machine_for_test(item, deadline), self._phase)
        except SmolError as error:
            yield from self._test.crashed(error, self._machine, self._budget)
            if self._incoming is not None:
                self._incoming.lost(item.nodeid)
            self.close()
        _, following = self._steps.popleft()
        self._told -= 1
        if following is None or self.stop is not None:
            self._end_machine(item.nodeid, max(timeout, MIN_END_TIME))
            self.close()

    def _machine_for_test(self, item: pytest.Item, deadline: Deadline) -> Machine:
        """The machine, which has been told the steps. Raises :class:`SmolError`."""
        if self._machine is None:
            self._machine = self._fork(item, deadline)
        elif not self._told:
            self._machine.send({"type": "more", "steps": self._untold_steps()})
        if self._number(self._steps[0][0]) is None:
            raise not_collected()
        self._told = len(self._steps)
        return self._machine

    def _fork(self, item: pytest.Item, deadline: Deadline) -> Machine:
        """A fork that was told to run; failed tests of the run count towards its --maxfail."""
        machine = self._machine = self._context.pool.fork(self._snapshot, self._context.on_output)
        deadline.restart()  # the wait for a machine counts as duration of the test, not towards its timeout
        self._state_budget.begin()
        self._context.pool.keep_console(machine, item.nodeid)
        if self._collection is not None:
            self._numbers = self._collection.run(machine)
            deadline.restart()
        if self._context.worker is not None:
            machine.send(self._context.worker)
        machine.send({"type": "run", "steps": self._untold_steps(), "failed": item.session.testsfailed})
        return machine

    def _untold_steps(self) -> list[list[int | None]]:
        """The steps in the machine's own numbers, without tests that it has not."""
        steps: list[list[int | None]] = []
        following: int | None = None
        for number, after in reversed(self._steps):
            own = self._number(number)
            if own is None:
                continue
            next_one = None if after is None else self._number(after)
            steps.append([own, next_one if next_one is not None or after is None else following])
            following = own
        return steps[::-1]

    def _number(self, number: int) -> int | None:
        return number if self._numbers is None else self._numbers[number]

    # --- end ------------------------------------------------------------------------------

    def _end_machine(self, nodeid: str, seconds: float) -> None:
        """Take what a machine sends after its last test, that of ``nodeid``, for ``seconds`` at most."""
        if self._incoming is None or self._machine is None:
            return
        try:
            if self.stop is None:
                rules, terminal = self._rules_of_the_end(), self._context.terminal
                phase = Phase("after its tests", rules, Deadline(seconds), terminal, nodeid)
                finish(self._machine, phase)
        except SmolError as error:
            self._incoming.lost(nodeid, error)
        self._incoming.tell(nodeid, [])

    def close(self) -> None:
        """Kill the machine, if there is one; idempotent."""
        if self._machine is not None:
            self._context.pool.retire(self._machine)
            self._machine = None
