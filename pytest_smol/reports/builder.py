"""Guest messages to pytest reports: rebuilt from checked data, with what the host owns filled in."""

from __future__ import annotations

import builtins
import time
import warnings
from typing import Any

import pytest

from pytest_smol.errors import ProtocolError, SmolError
from pytest_smol.protocol.wire import Message
from pytest_smol.pytest_private import CollectErrorRepr, TerminalRepr, TerminalWriter
from pytest_smol.reports.plugin_compat import note_rerun
from pytest_smol.reports.schema import COLLECT_REPORT, TEST_REPORT, checked
from pytest_smol.reports.text import clean, encodable
from pytest_smol.reports.warning_classes import stand_in

__all__ = ["PHASES", "ReportBuilder", "has_colour"]

#: The phases of a test in order; a test dies in the one after the last that it reported.
PHASES = ("setup", "call", "teardown")

_PYTEST_WARNINGS = {name: kind for name, kind in vars(pytest).items() if isinstance(kind, type)}


class _Shown(TerminalRepr):
    """What was shown of a failure that is no traceback: a doctest, a fixture that is not found."""

    def __init__(self, text: str) -> None:
        self._text = text

    def toterminal(self, tw: TerminalWriter) -> None:
        tw.line(self._text)


def has_colour(config: pytest.Config) -> bool:
    """Whether this process shows colours."""
    try:
        return config.get_terminal_writer().hasmarkup
    except (AssertionError, AttributeError):  # the reporter that has it can be left out: -p no:terminal
        return False


class ReportBuilder:
    """Makes reports for one run of pytest; ``config`` decides on colour.

    In a worker of pytest-xdist it is the controller that shows them, so it is
    told whether that shows ``colour``.
    """

    def __init__(self, config: pytest.Config, colour: bool | None = None) -> None:
        self.config = config
        self._sent = colour is not None
        self._colour = has_colour(config) if colour is None else colour

    def clean(self, text: str) -> str:
        """Guest text, safe to show in this run, and to send to where it is shown."""
        shown = clean(text, colour=self._colour)
        return encodable(shown) if self._sent else shown  # execnet has no form for lone surrogates

    def test_report(self, item: pytest.Item, data: dict[str, Any], longest: float) -> pytest.TestReport:
        """The report of ``item`` from a guest's ``data``; no longer than ``longest`` seconds.

        Raises :class:`ProtocolError` when ``data`` is no report.
        """
        try:
            report = checked(data, TEST_REPORT, self.clean)
        except ValueError as error:
            raise ProtocolError(f"the guest sent a report that is none: {error}") from error
        report["duration"] = min(max(report["duration"], 0.0), longest)
        return self._built(item, report)

    def _built(self, item: pytest.Item, report: dict[str, Any]) -> pytest.TestReport:
        stop = time.time()
        report["$report_type"] = "TestReport"
        report.update(nodeid=item.nodeid, location=item.location, start=stop - report["duration"], stop=stop)
        report["keywords"] = {str(key): 1 for key in (*item.keywords, *report["keywords"])}
        built = self._rebuilt(report)
        note_rerun(item, built)
        if hasattr(built, "context"):
            # pytest shows the values' reprs, and takes the repr of what it is given once more.
            object.__setattr__(built.context, "kwargs", report["_subtest.context"]["kwargs"])
        test_report: pytest.TestReport = built
        return test_report

    def _rebuilt(self, report: dict[str, Any]) -> Any:
        # pytest takes a text or skip that contains its words for an exception's parts for an exception.
        plain = None if isinstance(report["longrepr"], dict) else report.pop("longrepr")
        shown = report.pop("smol_shown", False)
        hook = self.config.hook.pytest_report_from_serializable
        built = hook(config=self.config, data={"longrepr": None, **report})
        if plain is not None:
            built.longrepr = _Shown(plain) if shown else plain
        return built

    def crash_report(
        self, item: pytest.Item, when: str, error: SmolError, sections: list[tuple[str, str]], duration: float
    ) -> pytest.TestReport:
        """The failed report of ``item`` for a machine that went wrong in the phase ``when``."""
        path, lineno, _ = item.location
        crash = {"path": path, "lineno": (lineno or 0) + 1, "message": self.clean(error.message)}
        lines = [self.clean(str(error)) + "\n"]
        traceback = {
            "reprentries": [{"type": "ReprEntryNative", "data": {"lines": lines}}],
            "extraline": None,
            "style": "native",
        }
        report = {
            "outcome": "failed",
            "when": when,
            "longrepr": {"reprcrash": crash, "reprtraceback": traceback, "sections": [], "chain": None},
            "sections": [(title, self.clean(text)) for title, text in sections],
            "user_properties": [],
            "keywords": {},
            "duration": duration,
        }
        return self._built(item, report)

    def passed_teardown(self, item: pytest.Item) -> pytest.TestReport:
        """An empty teardown, for reporters that count a test as over only then."""
        report: dict[str, Any] = {
            "outcome": "passed",
            "when": "teardown",
            "longrepr": None,
            "sections": [],
            "duration": 0.0,
        }
        return self._built(item, {**report, "user_properties": [], "keywords": {}})

    def collect_report(self, data: dict[str, Any]) -> pytest.CollectReport:
        """A guest's collect report that did not pass. Raises :class:`ProtocolError`."""
        try:
            report = checked(data, COLLECT_REPORT, self.clean)
        except ValueError as error:
            raise ProtocolError(f"the guest sent a collect report that is none: {error}") from error
        report["$report_type"] = "CollectReport"
        report["result"] = None
        built: pytest.CollectReport = self._rebuilt(report)
        if isinstance(built.longrepr, str):
            built.longrepr = CollectErrorRepr(
                built.longrepr
            )  # as in plain pytest: in red, and not in the summary
        return built

    def relay_warning(self, message: Message) -> None:
        """Let the host's pytest record a warning that the guest's recorded: a valid ``warning`` message."""
        category = _warning_category(message["category"])
        text, filename, line = (self.clean(message[key]) for key in ("text", "filename", "line"))
        # With a line given, warnings does not read one from the file that the guest names.
        caught = warnings.WarningMessage(category(text), category, filename, message["lineno"], line=line)
        when = message["when"] if message["when"] in ("config", "collect", "runtest") else "runtest"
        self.config.hook.pytest_warning_recorded.call_historic(
            kwargs={
                "warning_message": caught,
                "when": when,
                "nodeid": encodable(self.clean(message["nodeid"])),
                "location": self._location(message["location"]),
            }
        )

    def _location(self, location: list[Any] | None) -> tuple[str, int, str] | None:
        if location is None:
            return None
        filename, lineno, function = location
        return self.clean(filename), lineno, self.clean(function)


def _warning_category(name: str) -> type[Warning]:
    """The host's warning class of that name, or an empty stand-in: never the guest's own."""
    known = getattr(builtins, name, None) or _PYTEST_WARNINGS.get(name)
    if isinstance(known, type) and issubclass(known, Warning):
        return known
    return stand_in(name)
