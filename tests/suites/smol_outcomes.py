"""A pytest plugin that writes every test's outcome, as pytest counts it, to a file as JSON.

It is copied into the environment of each suite, so it imports pytest only. The file is named
by the environment variable ``SMOL_OUTCOMES``; without it, and inside a guest, none is written.

``--outcomes-limit=N`` leaves N of the collected tests, spread evenly: the same in guests as on the host.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

__all__ = ["Recorder", "pytest_addoption", "pytest_collection_modifyitems", "pytest_configure"]


class Recorder:
    """Collects outcomes by node id: several where a test gave several, as with an error at teardown."""

    def __init__(self, config: pytest.Config, path: Path) -> None:
        self.config = config
        self.path = path
        self.tests: dict[str, list[str]] = {}
        self.collection: dict[str, list[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        status = self.config.hook.pytest_report_teststatus(report=report, config=self.config)
        outcomes = self.tests.setdefault(report.nodeid, [])
        # A phase that pytest does not count (a setup that passed) has no category.
        if status[0]:
            outcomes.append(status[0])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if not report.passed:
            self.collection.setdefault(report.nodeid, []).append(report.outcome)

    def pytest_unconfigure(self) -> None:
        found = {"tests": self.tests, "collection": self.collection}
        self.path.write_text(json.dumps(found, indent=1, sort_keys=True), encoding="utf-8")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--outcomes-limit", type=int, metavar="N", help="run N of the tests, spread evenly")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    limit = config.getoption("outcomes_limit")
    if limit is not None and limit < len(items):
        chosen = {number * len(items) // limit for number in range(limit)}
        config.hook.pytest_deselected(items=[item for at, item in enumerate(items) if at not in chosen])
        items[:] = [item for at, item in enumerate(items) if at in chosen]


def pytest_configure(config: pytest.Config) -> None:
    path = os.environ.get("SMOL_OUTCOMES")
    if path and os.environ.get("SMOL_GUEST") != "1":
        config.pluginmanager.register(Recorder(config, Path(path)), "smol-outcomes")
