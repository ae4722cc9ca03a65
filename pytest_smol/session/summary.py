"""The end of a run on the host: what the guest's own plugins add, and what the machines cost."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
from _pytest._code.code import ReprFileLocation

from pytest_smol.session.run import SmolSession

__all__ = ["SummaryPlugin"]

#: From this verbosity on the cost is shown, and where each test of a mixed run ran.
_VERBOSE, _VERY_VERBOSE = 1, 2


class SummaryPlugin:
    """Hooks of the end of a run with machines; ``mixed`` tells that some tests may run on the host."""

    def __init__(self, config: pytest.Config, session: SmolSession, mixed: bool) -> None:
        self._config = config
        self._smol = session
        self._session: pytest.Session | None = None
        self._reports: list[pytest.TestReport] = []
        self._marks_places = mixed and config.get_verbosity() >= _VERY_VERBOSE

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if self._smol.closing is not None:
            self._reports.append(report)

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(self, report: Any) -> Generator[None, Any, Any]:
        """Say of each test where it ran, in a run of both kinds with ``-vv``."""
        status = yield
        if not self._marks_places or not status or not status[2] or not hasattr(report, "when"):
            return status
        category, letter, word = status
        place = "in VM" if self._smol.knows(report.nodeid) else "on host"
        shown = (f"{word[0]} {place}", word[1]) if isinstance(word, tuple) else f"{word} {place}"
        return category, letter, shown

    @pytest.hookimpl(trylast=True)
    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Let the reporter name the place in the guest: the one on the host says nothing."""
        place = getattr(excinfo.value, "smol_place", None)
        reporter: Any = self._config.pluginmanager.get_plugin("terminalreporter")
        shown = getattr(reporter, "_keyboardinterrupt_memo", None)
        if place is not None and shown is not None:
            path, lineno = place
            shown.reprcrash = ReprFileLocation(path, lineno, shown.reprcrash.message)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self._session = session
        status = self._close("pytest_sessionfinish")
        if status is not None:
            session.exitstatus = status

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        self._close("pytest_terminal_summary")
        cost = self._smol.factory.usage.describe()
        if cost and self._config.get_verbosity() >= _VERBOSE:
            terminalreporter.write_line(cost)

    def pytest_unconfigure(self) -> None:
        self._close("pytest_unconfigure")

    def _close(self, phase: str) -> int | None:
        closing = self._smol.closing
        if closing is None or self._session is None:
            return None
        return closing.run(phase, self._session, self._reports)
