"""pytest-html with tests in machines: the report is the host's, with what guests attached."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import pytest

from tests.plugin.lab import Outcome, normalised
from tests.thirdparty.bench import Bench

pytestmark = pytest.mark.vm

CONFTEST = """
    import pytest
    from pytest_html import extras

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(item, call):
        outcome = yield
        report = outcome.get_result()
        if report.when == "call":
            report.extras = [
                extras.url("https://example.com/"),
                extras.html("<b>bold</b>"),
                extras.json({"name": item.name, "values": [1, None]}),
                extras.png("aGVsbG8="),
            ]
"""

TESTS = """
    import sys
    import pytest
    from pytest_html import extras as make

    def test_passes(extras):
        print("printed <b>")
        extras.append(make.text("attached text", name="Log"))

    def test_fails():
        print("to stderr", file=sys.stderr)
        assert {"a": 1} == {"a": 2}

    @pytest.fixture
    def broken():
        raise ValueError("set-up")

    def test_error(broken):
        pass

    @pytest.mark.skip(reason="why not")
    def test_skipped():
        pass

    @pytest.mark.xfail
    def test_expected():
        assert 0
"""


def _rows(outcome: Outcome) -> Any:
    """The tests of the report, without times."""
    found = re.search(r'data-jsonblob="([^"]*)"', outcome.files["report.html"])
    assert found is not None
    tests = json.loads(html.unescape(found[1]))["tests"]
    text = re.sub(r"\d+ ms|\d\d:\d\d:\d\d", "TIME", json.dumps(tests, indent=1))
    return normalised(text.replace("\\n", "\n").splitlines())


def test_the_report_has_the_same_rows_and_what_was_attached(bench: Bench) -> None:
    bench.write("conftest.py", CONFTEST)
    bench.write("test_it.py", TESTS)
    ((plain, smol),) = bench.both("--html=report.html", plugins=("metadata", "html", "html_fixtures"))
    assert _rows(smol) == _rows(plain)
    assert smol.comparable() == plain.comparable()
    assets = {name: text for name, text in plain.files.items() if name.startswith("assets/")}
    assert "attached text" in assets.values()
    assert assets == {name: text for name, text in smol.files.items() if name.startswith("assets/")}
