"""What one test has reported so far, and what is reported in its place when its machine goes wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from pytest_smol.errors import MachineTimeout, ProtocolError, SmolError
from pytest_smol.machine.dispatcher import Deadline
from pytest_smol.machine.machine import Machine
from pytest_smol.pytest_private import mark_shown_in_debugger
from pytest_smol.reports.budget import MessageBudget
from pytest_smol.reports.builder import PHASES, ReportBuilder

__all__ = ["MAX_REPORTS", "TestDeadline", "TestProgress"]

#: The most reports that one test may have (subtests, reruns).
MAX_REPORTS = 100_000


class TestDeadline(Deadline):
    """The time limit of one test, in seconds."""

    __test__ = False

    def missed(self, machine: Machine, error: MachineTimeout) -> None:
        """Abort the test, which lets it say where it is. Raises :class:`MachineTimeout`."""
        machine.abort_test()
        raise MachineTimeout(
            f"the test was not over after {self._seconds:g} s",
            remedy="if it needs longer, raise --smol-timeout or the timeout of its smol marker",
        ) from None


class TestProgress:
    """The reports of ``item``, checked to come in turn."""

    __test__ = False

    def __init__(self, item: pytest.Item, reports: ReportBuilder) -> None:
        self.item = item
        #: How many keywords the test has: each of its reports has them.
        self.keywords = sum(1 for _ in item.keywords)
        self._reports = reports
        self._begin = time.monotonic()
        self._phase = -1
        self._count = 0
        self._needs_call = True
        #: A rerun was reported: the next setup begins the test anew.
        self._again = False
        self._last: pytest.TestReport | None = None

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
        if report.when != "teardown":  # a setup that did not pass has no call
            self._needs_call = report.when == "setup" and report.passed
        self._phase = self._reached(report)
        self._again = self._again or str(report.outcome) == "rerun"
        self._last = report
        return report

    def require_end(self) -> None:
        """Raise :class:`ProtocolError` unless all phases were reported: a test does not end without."""
        if self._phase != PHASES.index("teardown") or self._again:
            raise ProtocolError("the guest ended the test without a report of its teardown")
        if self._needs_call and not self.item.config.getoption("setuponly", False):
            raise ProtocolError("the guest ended the test without a report of its call")

    def shown_in_debugger(self) -> None:
        """The failure of the last report was shown: at the end of the run it is not shown again."""
        if self._last is not None:
            mark_shown_in_debugger(self._last)

    def _reached(self, report: pytest.TestReport) -> int:
        """The phase that is over: a setup that did not pass has no call."""
        if report.when == "setup" and not report.passed:
            return PHASES.index("call")
        return PHASES.index(str(report.when))

    def crashed(
        self, error: SmolError, machine: Machine | None, budget: MessageBudget
    ) -> Iterator[pytest.TestReport]:
        """The reports of a test whose machine went wrong, in the phase that it had reached."""
        when = "setup" if self._again else PHASES[min(self._phase + 1, len(PHASES) - 1)]
        duration = time.monotonic() - self._begin
        yield self._reports.crash_report(self.item, when, error, _sections(machine, budget), duration)
        if when != "teardown":
            yield self._reports.passed_teardown(self.item)


def _sections(machine: Machine | None, budget: MessageBudget) -> list[tuple[str, str]]:
    """The end of a machine's console and of its standard error, as sections of a report.

    None where the run keeps no more of them.
    """
    if machine is None:
        return []
    machine.drain()
    tails = (("guest console", machine.console.text()), ("guest stderr", machine.output["stderr"].text()))
    sections = [(f"Captured {title}", text) for title, text in tails if text.strip()]
    return sections if budget.allows_beyond(text for _, text in sections) else []
