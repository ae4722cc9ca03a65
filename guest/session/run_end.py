"""The end of the session in the guest, for plugins that only the guest has.

Tests ran in forks of their own, so the reports of all are replayed here before
these plugins finish the session and add to the summary. What they gathered by
other means in those forks is not known here. The host's end is pytest_smol/session/run_end.py.
"""

from __future__ import annotations

import io
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from _pytest.terminal import WarningReport

from pytest_smol.guest.session.own_plugins import OwnPlugins

#: The hooks that take part in the end of a session, in their order.
PHASES = ("pytest_sessionfinish", "pytest_terminal_summary", "pytest_unconfigure")


#: What of a report is a tuple, and a list in a message, unless it is text or an object.
_TUPLES = ("location", "longrepr")


class Closing:
    """Ends ``session`` as the host asks; ``reporter`` is the terminal reporter, None if there is none."""

    def __init__(self, port: Any, session: pytest.Session, own: OwnPlugins, reporter: Any) -> None:
        self._port = port
        self._session = session
        self._config = session.config
        self._own = own
        self._reporter = reporter
        self._failure = ""
        self._phases: Mapping[str, Callable[[int], Any]] = {
            "pytest_sessionfinish": self._finish,
            "pytest_terminal_summary": self._summarise,
            "pytest_unconfigure": self._unconfigure,
        }

    def serve(self) -> None:
        """Do what the host asks for, until it takes the machine away."""
        while True:
            message = self._port.receive()
            if message["type"] == "replay":
                self._failure = self._failure or failure_of(
                    self._replay, message["reports"], message["warnings"]
                )
                self._port.send("replayed")
            else:
                self._run_phase(message["name"], message["exitstatus"])

    def _run_phase(self, name: str, exitstatus: int) -> None:
        self._session.exitstatus = _exit_code(exitstatus)
        failure = self._failure or failure_of(self._phases[name], exitstatus)
        self._port.send("closed", exitstatus=int(self._session.exitstatus), failure=failure)

    # --- what has been --------------------------------------------------------------------

    def take_collection(self, reports: list[pytest.CollectReport], deselected: list[pytest.Item]) -> None:
        """Let the reporter know how collection went."""
        if self._reporter is not None:
            with Quietly(self._reporter):
                for report in reports:
                    self._reporter.pytest_collectreport(report=report)
                if deselected:
                    self._reporter.pytest_deselected(items=deselected)
            self._reporter._numcollected = len(self._session.items) + len(deselected)

    def _replay(self, reports: list[Any], caught: list[list[Any]]) -> None:
        hook = self._own.hook("pytest_runtest_logreport")
        for data in reports:
            data.update({key: tuple(data[key]) for key in _TUPLES if isinstance(data[key], list)})
            report = self._config.hook.pytest_report_from_serializable(config=self._config, data=data)
            if self._reporter is not None:
                with Quietly(self._reporter):
                    self._reporter.pytest_runtest_logreport(report=report)
            hook(report=report)
        if self._reporter is not None and caught:
            self._reporter._add_stats("warnings", [_warning(*each) for each in caught])

    # --- the phases -----------------------------------------------------------------------

    def _finish(self, exitstatus: int) -> None:
        hook = self._own.hook("pytest_sessionfinish")
        hook(session=self._session, exitstatus=_exit_code(exitstatus))

    def _summarise(self, exitstatus: int) -> None:
        hook = self._own.hook("pytest_terminal_summary")
        hook(terminalreporter=self._reporter, exitstatus=_exit_code(exitstatus), config=self._config)

    def _unconfigure(self, exitstatus: int) -> None:
        self._own.hook("pytest_unconfigure")(config=self._config)


def failure_of(function: Callable[..., Any], *arguments: Any) -> str:
    """Call ``function``; gives the innermost frame and the message of what it raised, empty if nothing."""
    try:
        function(*arguments)
    except pytest.exit.Exception:
        raise
    except Exception as error:
        return traceback.format_exc(-1).partition("\n")[2] or repr(error)
    return ""


class Quietly:
    """Keeps what ``reporter`` would show from the terminal, for a while."""

    def __init__(self, reporter: Any) -> None:
        self._reporter = reporter
        self._writer = reporter._tw

    def __enter__(self) -> None:
        self._file, self._writer._file = self._writer._file, io.StringIO()

    def __exit__(self, *_: object) -> None:
        self._writer._file = self._file
        self._writer._current_line = ""
        self._reporter.currentfspath = None


def _exit_code(status: int) -> int:
    """As hooks are given it: a number where all is well, else one of pytest's own where it has one."""
    try:
        return pytest.ExitCode(status) if status else 0
    except ValueError:
        return status


def _warning(message: str, nodeid: str, filename: str | None, lineno: int | None) -> WarningReport:
    place = (filename, lineno or 0) if filename is not None else None
    return WarningReport(message=message, nodeid=nodeid, fslocation=place)
