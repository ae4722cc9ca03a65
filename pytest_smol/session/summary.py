"""Hooks of the end of a run on the host: what the guest's own plugins add, and what the machines cost."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from pytest_smol.pytest_private import name_interrupted_place
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
        """Keep the report, where the guest's own plugins will want it."""
        if self._smol.run_end is not None:
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
        """Let the reporter name the place in the guest: that on the host is in this plugin."""
        place = getattr(excinfo.value, "smol_place", None)
        if place is not None:
            name_interrupted_place(self._config, *place)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Let the project's hooks end the run, and take the status that they set."""
        self._session = session
        status = self._run_in_guest("pytest_sessionfinish")
        # A hook of the project may make things worse, and say how; it cannot make a success of a failure.
        if status is not None and (status != pytest.ExitCode.OK or session.exitstatus == pytest.ExitCode.OK):
            session.exitstatus = status

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show what the project's hooks add, and with ``-v`` what machines cost."""
        self._run_in_guest("pytest_terminal_summary")
        cost = self._smol.factory.usage.describe()
        if cost and self._config.get_verbosity() >= _VERBOSE:
            terminalreporter.write_line(cost)

    def pytest_unconfigure(self) -> None:
        """Run the project's last hooks."""
        self._run_in_guest("pytest_unconfigure")

    def _run_in_guest(self, hook: str) -> int | None:
        """Run the guest's part of ``hook``; gives the exit status that it leaves, None for as it was."""
        run_end = self._smol.run_end
        if run_end is None or self._session is None:
            return None
        return run_end.run(hook, self._session, self._reports)
