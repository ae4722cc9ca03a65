"""Guests that say too much, or what must not reach terminal, XML or memory as it is."""

from __future__ import annotations

import struct
from typing import Any
from xml.etree import ElementTree

import pytest

from pytest_smol.protocol.wire import Message
from pytest_smol.session import group_run, run_end
from pytest_smol.session.guests import guest_session
from tests.plugin.fakes import Script
from tests.plugin.lab import Lab, letters
from tests.plugin.test_lies import FINISH, FRESH, START, TWO_TESTS, Says, report

DUNDER = {"__class__": "x", "__dict__": {}, "__reduce__": ["os.system", ["true"]], "__init__": 1}


def framed(body: bytes) -> bytes:
    return struct.pack("<I", len(body)) + body


def raw_report(data: str) -> bytes:
    """A report of JSON that :func:`~pytest_smol.protocol.wire.encode` would not write."""
    return framed(b'{"type": "report", "index": 0, "data": {%s}}' % data.encode("ascii"))


BREAKS: dict[str, Says] = {
    "four gigabytes announced": [FRESH, START, b"\xff\xff\xff\xff"],
    "half a length": [FRESH, START, b"\x10\x00"],
    "half a frame": [FRESH, START, struct.pack("<I", 1000) + b'{"type": '],
    "deep": [FRESH, START, raw_report('"x": ' + "[" * 5000 + "]" * 5000)],
    "a huge integer": [FRESH, START, raw_report('"x": ' + "9" * 10_000)],
    "not a number": [FRESH, START, raw_report('"x": NaN')],
    "infinity": [FRESH, START, raw_report('"x": -Infinity')],
    "a key twice": [FRESH, START, raw_report('"outcome": "failed", "outcome": "passed"')],
    "a missing phase": [FRESH, START, report("setup"), report("teardown"), report("call")],
    "teardown twice": [FRESH, START, report("setup"), report("teardown"), report("teardown")],
    "dunder names in a traceback": [FRESH, START, report("setup", outcome="failed", longrepr=DUNDER)],
    "an unknown test": [FRESH, START, report("setup", 77, nodeid="../../etc/passwd::test")],
}


@pytest.mark.usefixtures("short_abort")
@pytest.mark.parametrize("says", BREAKS.values(), ids=BREAKS.keys())
def test_what_a_guest_may_not_say(lab: Lab, says: Says) -> None:
    """Its test fails within its time limit (the run's own is the lab's), and the next one passes."""
    lab.project(test_a=TWO_TESTS)
    outcome = lab.smol("--smol", "-v", "--smol-timeout=2", forks=[Script(says)])
    assert outcome.status == 1, outcome
    assert "INTERNAL" not in outcome.text + "".join(outcome.err)
    verdicts = letters(outcome.text.partition("short test summary")[0])
    assert verdicts["test_1"][-1] in ("FAILED", "ERROR")
    assert verdicts["test_2"] == ["PASSED"]


ODD: dict[str, dict[str, Any]] = {
    "dunder names": {**DUNDER, "user_properties": [["p", DUNDER]], "keywords": DUNDER},
    "surrogates": {"user_properties": [["p", "\ud800"]], "sections": [["Captured stdout call", "\udcff"]]},
    "an early end of CDATA": {"sections": [["Captured stdout call", "]]>]]&gt;<evil/>"]]},
    "controls": {"sections": [["Captured stdout call", "\x00\x1b[2J\x08\ufffe"]]},
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize("option", ["junit_logging=all", "junit_family=xunit1"])
def test_what_is_odd_but_no_lie(lab: Lab, odd: dict[str, Any], option: str) -> None:
    """It is shown, and the XML file can be read."""
    lab.project(test_a="def test_1(): pass\n")
    says = [FRESH, START, report("setup", **odd), report("call", **odd), report("teardown", **odd), FINISH]
    outcome = lab.smol("--smol", "-rA", "--junitxml=out.xml", "-o", option, forks=[Script(says)])
    assert outcome.status == 0, outcome
    assert "INTERNAL" not in outcome.text
    suite = ElementTree.fromstring(outcome.files["out.xml"])
    assert [case.get("name") for case in suite.iter("testcase")] == ["test_1"]
    assert not list(suite.iter("evil"))
    assert not {"\x00", "\x1b", "\x08"} & set(outcome.text)


def warning(text: str) -> Message:
    return {
        "type": "warning",
        "text": text,
        "category": "UserWarning",
        "filename": "test_a.py",
        "lineno": 1,
        "line": "",
        "when": "runtest",
        "nodeid": "test_a.py::test_1",
        "location": None,
    }


FLOODS: dict[str, Message] = {
    "warnings": warning("x" * 5000),
    "subtests": report("call", sections=[["Captured stdout call", "x" * 5000]]),
    "reruns": report("setup", outcome="rerun", longrepr="x" * 5000),
}


NODES: Message = {
    "type": "nodes",
    "rows": [
        {
            "kind": "Module",
            "name": "x" * 5000,
            "nodeid": "",
            "path": "",
            "doc": None,
            "parent": None,
            "place": "module",
        }
    ],
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
def test_what_a_run_keeps_of_a_test_is_bounded(
    lab: Lab, flood: Message, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_run, "MAX_KEPT", 100_000)
    lab.project(test_a=TWO_TESTS)
    outcome = lab.smol("--smol", "-v", "-s", forks=[Script([FRESH, START, *[flood] * 25])])
    assert outcome.status == 1, outcome
    assert "the test reported more than" in outcome.text
    assert letters(outcome.text)["test_2"] == ["PASSED"]


@pytest.mark.parametrize("flood", [FLOODS["warnings"], NODES], ids=["warnings", "nodes"])
def test_what_a_run_keeps_of_collection_is_bounded(
    lab: Lab, flood: Message, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest_session, "MAX_COLLECTED", 100_000)
    lab.project(test_a=TWO_TESTS)
    begin: Message = {"type": "collecting", "nodeid": "test_a.py"}
    outcome = lab.smol("--smol", session=Script([begin, *[flood] * 25]))
    assert outcome.status == 2, outcome
    assert "collection reported more than" in outcome.text
    assert "ERROR test_a.py" in outcome.text
    assert "INTERNAL" not in outcome.text


def test_what_a_run_keeps_of_its_end_is_bounded(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_end, "MAX_KEPT", 100_000)
    lab.project(conftest="def pytest_sessionfinish(): pass\n", test_a="def test_a(): pass\n")
    says = [FRESH, {"type": "replayed"}, *[FLOODS["warnings"]] * 25]
    outcome = lab.smol("--smol", "--collect-only", forks=[Script(says)])
    assert outcome.status == 0, outcome
    assert "own plugins failed: a plugin reported more than" in outcome.text


WRITES = """
    import sys
    def test_much():
        for _ in range(3):
            sys.stdout.write("x" * 1_000_000 + "\\n")
        print("the end")
        {verdict}
    def test_next():
        print("so much for that")
        {verdict}
"""


def test_output_of_a_test_is_cut_in_reports(lab: Lab) -> None:
    lab.project(test_a=WRITES.format(verdict="assert 0"), pytest_ini="[pytest]\nsmol_output_limit = 4\n")
    outcome = lab.smol("--smol", "--junitxml=out.xml")
    # Of each report, half of the limit: then texts are halved until it fits.
    assert outcome.text.count("characters are left out here]") == 1
    assert 1 << 19 < outcome.text.count("x") < 1 << 21
    assert "the end" in outcome.out
    assert "so much for that" in outcome.out


@pytest.mark.parametrize("how", ["-s", "--capture=tee-sys"])
def test_output_of_a_test_is_cut_on_the_terminal(lab: Lab, how: str) -> None:
    lab.project(test_a=WRITES.format(verdict="pass"), pytest_ini="[pytest]\nsmol_output_limit = 1\n")
    outcome = lab.smol("--smol", how)
    assert outcome.status == 0
    assert outcome.out.count("[smol: more than 1 MiB of output, the rest is left out]") == 1
    assert outcome.text.count("x") < 1_100_000
    assert "the end" not in outcome.out
    assert any("so much for that" in line for line in outcome.out)


def test_a_failure_larger_than_any_message_is_cut(lab: Lab) -> None:
    lab.project(test_a="def test_1(): raise ValueError('x' * (17 << 20))\ndef test_2(): pass\n")
    outcome = lab.smol("--smol", "-v", "--tb=short")
    assert letters(outcome.text.partition("short test summary")[0])["test_2"] == ["PASSED"]
    assert outcome.status == 1
    assert "characters are left out here" in outcome.text


# --- numbers at random

DRAWS = """
    import random
    COLLECTED = random.random()
    def test_1(record_property): record_property("drawn", (COLLECTED, random.random()))
    def test_2(record_property): record_property("drawn", (COLLECTED, random.random()))
"""


def drawn(lab: Lab, *args: str) -> tuple[dict[str, str], str]:
    """What each test draws, by its name, and our line in the header of the run."""
    outcome = lab.smol("--smol", "--junitxml=out.xml", *args)
    assert outcome.status == 0, outcome
    cases = ElementTree.fromstring(outcome.files["out.xml"]).iter("testcase")
    found = {str(case.get("name")): str(case.find("*/property").get("value")) for case in cases}  # type: ignore[union-attr]
    (line,) = (line for line in outcome.out if line.startswith("smol: "))
    return found, line


def test_with_a_seed_numbers_are_those_of_the_test(lab: Lab) -> None:
    """Whichever tests run before it in its machine, and each test has its own."""
    lab.project(test_a=DRAWS)
    both, header = drawn(lab, "--smol-seed=7")
    assert "seed 7" in header.split(", ")
    assert both["test_1"] != both["test_2"]
    assert drawn(lab, "--smol-seed=7", "--smol-scope=test")[0] == both
    assert drawn(lab, "--smol-seed=7", "-k", "test_2")[0] == {"test_2": both["test_2"]}
    others = drawn(lab, "--smol-seed=8")[0]
    assert not {*both.values()} & {*others.values()}


def test_without_a_seed_numbers_differ_from_run_to_run(lab: Lab) -> None:
    lab.project(test_a=DRAWS)
    first, header = drawn(lab)
    assert "seed" not in header
    assert not {*first.values()} & {*drawn(lab)[0].values()}


CATEGORIES = (
    "warnings",
    "skipped",
    "xfailed",
    "xpassed",
    "deselected",
    "error",
    "failed",
    "subtests skipped",
)


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_category_that_a_reporter_takes_for_its_own(lab: Lab, category: str) -> None:
    """The report has not the form that the terminal reporter expects of that category."""
    lab.project(test_a="def test_1(): pass\ndef test_2(): assert 0, 'the reason'\n")
    odd = report("call", smol_teststatus=[category, "?", "ODD"])
    says = [FRESH, START, report("setup"), odd, report("teardown"), FINISH]
    outcome = lab.smol("--smol", "--smol-scope=test", "-rA", "-v", forks=[Script(says, gone=True)])
    assert "INTERNALERROR" not in outcome.text
    assert "failed: " not in outcome.text  # no hook did
    assert outcome.status == 1, outcome
    assert "AssertionError: the reason" in outcome.text
    assert f"guest's {category}" in outcome.out[-1]


@pytest.mark.parametrize("separator", ["", "--", "\n", "é", "\x1b"])
def test_separators_that_the_terminal_writer_cannot_repeat(lab: Lab, separator: str) -> None:
    """It divides by the length of one."""
    lab.project(test_a=TWO_TESTS)
    failure = {
        "reprcrash": {"path": "test_a.py", "lineno": 1, "message": "why"},
        "reprtraceback": {"reprentries": [], "extraline": None, "style": "long"},
        "sections": [["title", "content", separator]],
        "chain": None,
    }
    says = [FRESH, START, report("setup"), report("call", outcome="failed", longrepr=failure)]
    outcome = lab.smol("--smol", "--smol-scope=test", forks=[Script(says, gone=True)])
    assert outcome.status == 1, outcome
    assert "the guest sent a report that is none: longrepr" in outcome.text


@pytest.mark.parametrize("number", [1 << 31, 1 << 63, -(1 << 31) - 1, -1 << 63])
def test_numbers_that_execnet_cannot_send(lab: Lab, number: int) -> None:
    lab.project(test_a=TWO_TESTS)
    crash = {"path": "test_a.py", "lineno": number, "message": "why"}
    failure = {
        "reprcrash": crash,
        "reprtraceback": {"reprentries": [], "extraline": None, "style": "long"},
        "sections": [],
        "chain": None,
    }
    says = [FRESH, START, report("setup"), report("call", outcome="failed", longrepr=failure)]
    outcome = lab.smol("--smol", "--smol-scope=test", forks=[Script(says, gone=True)])
    assert outcome.status == 1, outcome
    assert "the guest sent a report that is none: longrepr" in outcome.text


def test_where_a_collection_died_is_written_as_it_can_be(lab: Lab) -> None:
    """The node id that a guest said it collects is that of a report: of the cache and of XML as well."""
    lab.project(test_a=TWO_TESTS)
    begin: Message = {"type": "collecting", "nodeid": "a\ud800/b\udfff.py::c\ufffe"}
    outcome = lab.smol("--smol", "--junitxml=out.xml", session=Script([begin, START]))
    assert outcome.status == 2, outcome
    assert "INTERNAL" not in outcome.text
    assert "failed: " not in outcome.text  # of a hook
    ElementTree.fromstring(outcome.files["out.xml"])
    assert "ERROR a\\ud800/b\\udfff.py::c\\ufffe" in outcome.text
    lastfailed = lab.path / ".pytest_cache/v/cache/lastfailed"
    assert "\\ud800" in lastfailed.read_text("utf-8")
