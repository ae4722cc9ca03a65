"""The paths that tests wrote in VMs, shown at the end of a run."""

from __future__ import annotations

from typing import Any

import pytest

__all__ = ["ATTRIBUTE", "WrittenPaths"]

#: The name of what a report carries of the paths that its test wrote.
ATTRIBUTE = "smol_writes"


class WrittenPaths:
    """A plugin that shows which paths the tests of a run wrote, as their reports tell."""

    def __init__(self) -> None:
        self._written: dict[str, list[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember the paths that the report's test wrote."""
        if lines := getattr(report, ATTRIBUTE, None):
            self._written.setdefault(report.nodeid, []).extend(lines)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """List the paths by test."""
        if self._written:
            terminalreporter.write_sep("=", "paths written in VMs")
        for nodeid, lines in self._written.items():
            terminalreporter.write_line(nodeid)
            for line in lines:
                terminalreporter.write_line(f"  {line}")
