"""Reports as a guest's pytest makes and sends them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from pytest_smol.protocol.wire import FROM_GUEST, Decoder, encode

SUITE = """
import pytest, sys, warnings

def test_passes(record_property):
    record_property("key", {"nested": [1, "two"]})
    print("printed")

def helper(value):
    local = value + 1
    raise ValueError(f"bad {local}")

def test_fails():
    try:
        helper(1)
    except ValueError as error:
        raise RuntimeError("chained") from error

def test_asserts():
    assert {"a": 1} == {"a": 2}, "no \\x1b[31mred\\x1b[0m"

def test_skips():
    pytest.skip("not today")

@pytest.mark.xfail(reason="known")
def test_expected():
    assert 0

@pytest.mark.xfail(reason="known")
def test_unexpected():
    pass

@pytest.mark.xfail(strict=True, reason="known")
def test_strict():
    pass

@pytest.fixture
def broken():
    raise OSError("fixture")

def test_error(broken):
    pass

def test_native():
    exec("raise KeyError('x')")

def test_subtests(subtests):
    for number in range(2):
        with subtests.test("even", number=number):
            assert number % 2 == 0

def test_text():
    pytest.fail("reprcrash reprtraceback", pytrace=False)
"""


@dataclass(eq=False)  # plugins of pytest 8.4 have to be hashable
class Catcher:
    """A plugin that keeps each report together with what would be sent of it."""

    caught: list[tuple[Any, dict[str, Any]]] = field(default_factory=list)

    def pytest_configure(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._keep(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if not report.passed:
            self._keep(report)

    def _keep(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        hook = self.config.hook.pytest_report_to_serializable
        data = sent(hook(config=self.config, report=report))
        self.caught.append((report, data))


def sent(data: dict[str, Any]) -> dict[str, Any]:
    """``data`` after its way over the wire."""
    (message,) = Decoder(FROM_GUEST).feed(encode({"type": "report", "index": 0, "data": data}))
    received: dict[str, Any] = message["data"]
    return received


def run(pytester: pytest.Pytester, source: str = SUITE, *args: str) -> list[tuple[Any, dict[str, Any]]]:
    """Each report of a run of ``source``, and what would be sent of it."""
    pytester.makepyfile(test_suite=source)
    catcher = Catcher()
    pytester.inline_run("-p", "no:terminal", *args, plugins=[catcher])
    return catcher.caught


def passed(**changes: Any) -> dict[str, Any]:
    """A test report that passed, with ``changes``."""
    report = {
        "nodeid": "a.py::test",
        "location": ["a.py", 1, "test"],
        "keywords": {"test": 1},
        "outcome": "passed",
        "longrepr": None,
        "when": "call",
        "user_properties": [],
        "sections": [],
        "duration": 0.25,
    }
    return {**report, **changes}


def exception(**changes: Any) -> dict[str, Any]:
    """The ``longrepr`` of an exception, with ``changes``."""
    location = {"path": "a.py", "lineno": 3, "message": "AssertionError"}
    traceback = {
        "reprentries": [{"type": "ReprEntryNative", "data": {"lines": ["E  assert 0"]}}],
        "extraline": None,
        "style": "native",
    }
    crash = {"reprcrash": location, "reprtraceback": traceback, "sections": [], "chain": None}
    return {**crash, **changes}
