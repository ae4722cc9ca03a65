"""One group of tests in one machine after another: reports out, and a fresh fork after a death."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from pytest_smol.artifacts.collector import KINDS, ArtifactCollector, IncomingArtifacts
from pytest_smol.errors import MachineTimeout, ProtocolError, SmolError
from pytest_smol.machine.machine import Machine, OutputSink
from pytest_smol.machine.user_terminal import TALK, Terminal
from pytest_smol.pool.pool import Pool
from pytest_smol.protocol.wire import Message
from pytest_smol.reports.budget import MessageBudget
from pytest_smol.reports.builder import PHASES, ReportBuilder
from pytest_smol.session.placement import Step
from pytest_smol.session.relay import Relay
from pytest_smol.snapshots.snapshot import Snapshot

__all__ = ["GroupRun", "Stop"]

#: The least time that plugins have to end in a machine after its last test, in seconds.
MIN_END_TIME = 60.0

#: The most reports that one test may have (subtests, reruns).
MAX_REPORTS = 100_000

#: The most that is kept of what a guest says about one test, in bytes, beside files.
MAX_KEPT = 64 << 20


@dataclass(frozen=True)
class Stop:
    """What stopped the guest's pytest, and why.

    ``kind`` is ``exit`` or ``interrupt`` (raised), ``fail`` or ``stop`` (the
    session's shouldfail or shouldstop); ``returncode`` is for ``exit``, ``place``,
    file and line, for ``interrupt``.
    """

    kind: str
    reason: str
    returncode: int | None
    place: tuple[str, int] | None = None

    @classmethod
    def of(cls, message: Message, clean: Callable[[str], str]) -> Stop:
        """What a ``stop`` message says, its text made safe to show by ``clean``."""
        place = message["place"]
        if place is not None and [type(part) for part in place] != [str, int]:
            raise ProtocolError("the guest says that it was stopped where no place is")
        where = (clean(place[0]), place[1]) if place is not None else None
        return cls(message["kind"], clean(message["reason"]), message["returncode"], where)


class GroupRun:
    """Runs the steps of a group in forks of ``snapshot``; one machine at a time.

    ``worker`` is the message that tells machines of the worker of pytest-xdist that runs here, if one does;
    ``terminal`` is what debuggers in the guest talk with the user on.
    """

    def __init__(
        self,
        pool: Pool,
        snapshot: Snapshot,
        steps: list[Step],
        reports: ReportBuilder,
        on_output: OutputSink | None = None,
        relay: Relay | None = None,
        worker: Message | None = None,
        artifacts: ArtifactCollector | None = None,
        terminal: Terminal | None = None,
    ) -> None:
        self._pool = pool
        self._snapshot = snapshot
        self._steps = steps
        self._reports = reports
        self._relay = relay or Relay(reports)
        self._on_output = on_output
        self._worker = worker
        self._terminal = terminal
        self._machine: Machine | None = None
        self._budget = MessageBudget("the test", MAX_KEPT)
        self._incoming = IncomingArtifacts(artifacts) if artifacts is not None and artifacts.expects else None
        #: How many of the steps the machine has been told.
        self._told = 0
        #: Set when the guest's pytest was told to stop.
        self.stop: Stop | None = None

    def add(self, step: Step) -> None:
        """One more step. The step before must have named a test that follows, or be over with its machine."""
        self._steps.append(step)

    def run(self, item: pytest.Item, timeout: float) -> Iterator[pytest.TestReport]:
        """The reports of ``item``, the next of the group, as they come."""
        test = _TestRun(item, self._reports, time.monotonic(), timeout)
        self._budget.begin()
        if self._incoming is not None:
            self._incoming.begin()
        try:
            yield from self._exchange(test)
        except SmolError as error:
            yield from test.crashed(error, self._machine)
            if self._incoming is not None:
                self._incoming.lost(item.nodeid)
            self.close()
        _, following = self._steps.pop(0)
        self._told -= 1
        if following is None or self.stop is not None:
            self._see_off(item.nodeid, time.monotonic() + max(timeout, MIN_END_TIME))
            self.close()

    def _exchange(self, test: _TestRun) -> Iterator[pytest.TestReport]:
        if self._machine is None:
            self._machine = self._begin(test)
        elif not self._told:
            self._machine.send({"type": "more", "steps": self._orders()})
        self._told = len(self._steps)
        number = self._steps[0][0]
        while True:
            message = self._receive(self._machine, test)
            kind = message["type"]
            if self._aside(message):
                continue
            if kind == "pdb_shown":
                test.shown_in_debugger()
            elif kind == "done" and self.stop is not None:
                return
            elif message.get("index") != number:
                raise ProtocolError(f"the guest sent a {kind!r} message out of turn")
            elif kind == "report":
                yield self._dressed(test.report(message["data"]))
            elif kind == "finish":
                return

    def _aside(self, message: Message) -> bool:
        """Take a message that is about more than one report; False for any other."""
        kind = message["type"]
        if kind == "stop":
            self.stop = Stop.of(message, self._reports.clean)
        elif self._relay.take(message):
            pass
        elif kind in KINDS and self._incoming is not None:
            self._incoming.take(message)
        else:
            return False
        return True

    def _dressed(self, report: pytest.TestReport) -> pytest.TestReport:
        return report if self._incoming is None else self._incoming.dress(report)

    def _see_off(self, nodeid: str, deadline: float) -> None:
        """Take what a machine sends home after its last test, which is that of ``nodeid``."""
        if self._incoming is None or self._machine is None:
            return
        try:
            while self.stop is None and (message := self._machine.receive(deadline))["type"] != "done":
                self._budget.take(message)
                if not self._aside(message):
                    raise ProtocolError(f"the guest sent a {message['type']!r} message after its tests")
        except SmolError as error:
            self._incoming.lost(nodeid, error)
        self._incoming.tell(nodeid, [])

    def _receive(self, machine: Machine, test: _TestRun) -> Message:
        """The next message that is about the test. No time passes for it while the user talks with it."""
        try:
            while (message := machine.receive(test.deadline))["type"] in TALK and self._terminal is not None:
                test.deadline += self._terminal.serve(machine, message)
            self._budget.take(message)
            return message
        except MachineTimeout:
            machine.abort_test()
            raise MachineTimeout(
                f"the test was not over after {test.timeout:g} s",
                remedy="if it needs longer, raise --smol-timeout or the timeout of its smol marker",
            ) from None

    def _begin(self, test: _TestRun) -> Machine:
        """A fork that has its orders; failed tests of the run count towards its --maxfail."""
        machine = self._machine = self._pool.fork(self._snapshot, self._on_output)
        test.begins()
        self._pool.keep_console(machine, test.item.nodeid)
        if self._worker is not None:
            machine.send(self._worker)
        machine.send({"type": "run", "steps": self._orders(), "failed": test.item.session.testsfailed})
        return machine

    def _orders(self) -> list[list[int | None]]:
        return [list(step) for step in self._steps]

    def close(self) -> None:
        """Kill the machine, if there is one; idempotent."""
        if self._machine is not None:
            self._pool.retire(self._machine)
            self._machine = None


class _TestRun:
    """What one test has reported so far."""

    def __init__(self, item: pytest.Item, reports: ReportBuilder, begin: float, timeout: float) -> None:
        self.item = item
        self._reports = reports
        self._begin = begin
        self._phase = -1
        self._count = 0
        #: A rerun was reported: the next setup begins the test anew.
        self._again = False
        self._last: pytest.TestReport | None = None
        self.timeout = timeout
        self.deadline = begin + timeout

    def begins(self) -> None:
        """It has its machine: what it waited for that counts as its duration, not towards its timeout."""
        self.deadline = time.monotonic() + self.timeout

    def report(self, data: dict[str, Any]) -> pytest.TestReport:
        """A guest's report, checked to be in turn. Raises :class:`ProtocolError`."""
        report = self._reports.test_report(self.item, data, time.monotonic() - self._begin)
        phase = PHASES.index(str(report.when))
        if self._again and report.when == "setup":
            self._phase, self._again = -1, False
        self._count += 1
        if (
            phase < self._phase
            or self._count > MAX_REPORTS
            or (phase == self._phase and report.when != "call")
        ):
            raise ProtocolError(f"the guest reported {report.when} out of turn")
        self._phase = self._reached(report)
        self._again = self._again or str(report.outcome) == "rerun"
        self._last = report
        return report

    def shown_in_debugger(self) -> None:
        """Note in the last report what pytest does there: at the end of the run it is not shown again."""
        if self._last is not None:
            vars(self._last)["_pdbshown"] = True

    def _reached(self, report: pytest.TestReport) -> int:
        """The phase that is over: a setup that did not pass has no call."""
        if report.when == "setup" and not report.passed:
            return PHASES.index("call")
        return PHASES.index(str(report.when))

    def crashed(self, error: SmolError, machine: Machine | None) -> Iterator[pytest.TestReport]:
        """The reports of a test whose machine went wrong, in the phase that it had reached."""
        when = "setup" if self._again else PHASES[min(self._phase + 1, len(PHASES) - 1)]
        duration = time.monotonic() - self._begin
        yield self._reports.crash_report(self.item, when, error, _sections(machine), duration)
        if when != "teardown":
            yield self._reports.passed_teardown(self.item)


def _sections(machine: Machine | None) -> list[tuple[str, str]]:
    """The last that a machine said, as sections of a report."""
    if machine is None:
        return []
    machine.drain()
    tails = (("guest console", machine.console.text()), ("guest stderr", machine.output["stderr"].text()))
    return [(f"Captured {title}", text) for title, text in tails if text.strip()]
