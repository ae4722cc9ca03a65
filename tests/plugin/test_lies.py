"""Guests that lie or speak out of turn: scripts in the place of guests. No run breaks for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from pytest_smol.protocol.wire import Message
from pytest_smol.reports.nodes import MAX_PATH
from tests.plugin.fakes import Script
from tests.plugin.lab import Lab, letters

TWO_TESTS = "def test_1(): pass\ndef test_2(): pass\n"


def report(when: str, index: int = 0, /, **changes: Any) -> Message:
    data = {
        "nodeid": "test_a.py::test_1",
        "location": ["test_a.py", 0, "test_1"],
        "keywords": {},
        "outcome": "passed",
        "longrepr": None,
        "when": when,
        "user_properties": [],
        "sections": [],
        "duration": 0.1,
        "$report_type": "TestReport",
        **changes,
    }
    return {"type": "report", "index": index, "data": data}


FRESH: Message = {"type": "fresh"}
START: Message = {"type": "start", "index": 0}
FINISH: Message = {"type": "finish", "index": 0}
GOOD = [FRESH, START, report("setup"), report("call"), report("teardown"), FINISH]

Says = Sequence["Message | bytes"]

_OWN_CLASS: dict[str, Any] = {"$report_type": "os.system"}

LIES: dict[str, Says] = {
    "nothing fresh": [START],
    "another test": [FRESH, {"type": "start", "index": 1}],
    "a report of another test": [FRESH, START, report("setup", 1)],
    "a test that does not exist": [FRESH, START, report("setup", 10**6)],
    "no report at all": [FRESH, START, {"type": "report", "index": 0, "data": {}}],
    "an outcome of its own": [FRESH, START, report("setup", outcome="great")],
    "a phase of its own": [FRESH, START, report("warm-up")],
    "call before setup and back": [FRESH, START, report("call"), report("setup")],
    "setup twice": [FRESH, START, report("setup"), report("setup")],
    "done without a word": [FRESH, START, {"type": "done"}],
    "collected once more": [
        FRESH,
        {"type": "collected", "items": [], "deselected": [], "lines": [], "closing": False},
    ],
    "bytes": [FRESH, b"\xff\xff\xff\xff and more"],
    "an unknown message": [FRESH, {"type": "give me root"}],
    "a field too many": [FRESH, {"type": "start", "index": 0, "more": 1}],
    "a wrong type": [FRESH, {"type": "start", "index": "0"}],
    "no JSON": [FRESH, b"\x03\x00\x00\x00{]}"],
    "nesting": [FRESH, b"\x40\x9c\x00\x00" + b"[" * 40000],
    "a report class of its own": [FRESH, START, report("setup", **_OWN_CLASS)],
    "an exception of its own": [FRESH, START, report("setup", outcome="failed", longrepr={"reprcrash": "x"})],
    "a failure without a reason": [FRESH, START, report("setup", outcome="failed")],
    "an endless time": [FRESH, START, report("setup", duration="long")],
}


@pytest.mark.usefixtures("short_abort")
@pytest.mark.parametrize("says", LIES.values(), ids=LIES.keys())
def test_a_guest_that_breaks_the_protocol(lab: Lab, says: Says) -> None:
    lab.project(test_a=TWO_TESTS)
    outcome = lab.smol("--smol", "-v", "--smol-timeout=5", forks=[Script(says, gone=False)])
    assert outcome.status == 1, outcome
    assert "INTERNAL" not in outcome.text + "".join(outcome.err)
    verdicts = letters(outcome.text.partition("short test summary")[0])
    assert verdicts["test_1"][-1] in ("FAILED", "ERROR")
    assert verdicts["test_2"] == ["PASSED"]
    assert len(lab.record.forks) == 2


def test_a_guest_that_keeps_to_the_protocol(lab: Lab) -> None:
    lab.project(test_a="def test_1(): assert 0\n")
    assert lab.smol("--smol", forks=[Script(GOOD)]).status == 0


def test_a_guest_cannot_speak_for_another_test(lab: Lab) -> None:
    """Node ids, places and durations are the host's."""
    lab.project(test_a=TWO_TESTS)
    lies: dict[str, Any] = {
        "nodeid": "test_a.py::test_2",
        "location": ["/etc/passwd", 1, "x"],
        "duration": 1e9,
    }
    says = [FRESH, START, *(report(when, **lies) for when in ("setup", "call", "teardown")), FINISH]
    outcome = lab.smol("--smol", "--smol-scope=test", "-v", "--durations=3", forks=[Script(says)])
    assert letters(outcome.text) == {"test_1": ["PASSED"], "test_2": ["PASSED"]}
    assert "/etc/passwd" not in outcome.text
    assert "1000000000" not in outcome.text


def test_a_guest_that_has_gone(lab: Lab) -> None:
    lab.project(test_a=TWO_TESTS)
    panic = b"Kernel panic - not syncing: sysrq triggered crash\r\n"
    outcome = lab.smol("--smol", "-v", forks=[Script([FRESH, START, report("setup")], panic, gone=True)])
    assert "the guest kernel panicked: sysrq triggered crash" in outcome.text
    assert "Captured guest console" in outcome.text
    assert "1 failed, 1 passed" in outcome.text


def test_a_guest_that_says_what_a_terminal_would_obey(lab: Lab) -> None:
    lab.project(test_a=TWO_TESTS)
    evil = "\x1b]0;title\x07\x1b[2J\r\x9b31m"
    frames = {
        "reprcrash": {"path": evil, "lineno": 1, "message": evil},
        "reprtraceback": {
            "reprentries": [{"type": "ReprEntryNative", "data": {"lines": [evil]}}],
            "extraline": evil,
            "style": "native",
        },
        "sections": [["Captured" + evil, evil, "-"]],
        "chain": None,
    }
    call = report("call", outcome="failed", longrepr=frames, sections=[["Captured stdout call", evil]])
    warning: Message = {
        "type": "warning",
        "text": evil,
        "category": "Evil" + evil,
        "filename": evil,
        "lineno": 1,
        "line": evil,
        "when": "runtest",
        "nodeid": evil,
        "location": [evil, 1, evil],
    }
    says = [FRESH, START, warning, report("setup"), call, report("teardown"), FINISH]
    forks = [Script(says, evil.encode(), gone=True)]
    outcome = lab.smol("--smol", "-rA", "--smol-scope=test", "--color=no", forks=forks)
    assert "1 failed, 1 passed" in outcome.text
    shown = "\n".join([*outcome.out, *outcome.err])
    assert not {"\x1b", "\x07", "\r", "\x9b"} & set(shown)
    assert "^[[2J" in shown


def test_a_guest_that_dies_before_it_says_a_word(lab: Lab) -> None:
    lab.project(test_a=TWO_TESTS)
    died: Message = {"type": "died", "status": None, "signal": 9}
    outcome = lab.smol("--smol", forks=[Script([died]), Script([died])])
    assert "2 errors" in outcome.text
    assert outcome.text.count("killed by SIGKILL") >= 2


def directory(number: int) -> Message:
    """One node, within the one that was sent before."""
    name = f"d{number}"
    row = {"kind": "Dir", "place": "session", "name": name, "nodeid": name, "path": f"/{name}", "doc": None}
    return {**row, "parent": number - 1 if number else None}


NO_TESTS: Message = {"type": "collected", "items": [], "deselected": [], "lines": [], "closing": False}

BAD_SESSIONS: dict[str, Says] = {
    "a test message": [START],
    "an order of tests that it has not": [
        {"type": "collected", "items": [3], "deselected": [], "lines": [], "closing": False}
    ],
    "an order of no numbers": [
        {"type": "collected", "items": ["x"], "deselected": [], "lines": [], "closing": False}
    ],
    "nodes of nothing": [{"type": "nodes", "rows": [{}]}],
    "nodes without a bottom": [{"type": "nodes", "rows": [*map(directory, range(1500))]}, NO_TESTS],
    "a report that is none before it ends": [
        {"type": "collect_report", "data": {"outcome": "great"}},
        {"type": "usage_error", "lines": ["wrong"]},
        {"type": "exit", "status": 4},
    ],
    "bytes": [b"\xff\xff\xff\xff"],
    "death": [{"type": "died", "status": 1, "signal": None}],
}


@pytest.mark.parametrize("says", BAD_SESSIONS.values(), ids=BAD_SESSIONS.keys())
def test_a_session_that_breaks_the_protocol(lab: Lab, says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.project(test_a=TWO_TESTS)
    outcome = lab.smol("--smol", session=Script([{"type": "collecting", "nodeid": "test_a.py"}, *says]))
    assert outcome.status in (2, 4), outcome
    assert "INTERNAL" not in outcome.text + "".join(outcome.err)
    assert not lab.record.forks


LOST: dict[str, Says] = {
    "without any report": [FRESH, START, FINISH],
    "after its setup": [FRESH, START, report("setup"), FINISH],
    "after its call": [FRESH, START, report("setup"), report("call"), FINISH],
    "without its call": [FRESH, START, report("setup"), report("teardown"), FINISH],
    "in a rerun": [FRESH, START, report("setup"), report("call", outcome="rerun", longrepr="x"), FINISH],
}


@pytest.mark.parametrize("says", LOST.values(), ids=LOST.keys())
def test_a_test_cannot_be_lost(lab: Lab, says: Says) -> None:
    """A guest that ends a test without all of its reports has one failed test."""
    lab.project(test_a=TWO_TESTS)
    outcome = lab.smol("--smol", "--smol-scope=test", "-v", forks=[Script(says, gone=True)])
    assert outcome.status == 1, outcome
    assert letters(outcome.text.partition("short test summary")[0])["test_2"] == ["PASSED"]
    assert "1 failed" in outcome.out[-1] or "1 error" in outcome.out[-1]


@pytest.mark.parametrize("code", [0, 256, -512])
@pytest.mark.parametrize("when", ["collection", "test", "end"])
def test_a_guest_cannot_end_the_run_green(lab: Lab, when: str, code: int) -> None:
    """pytest.exit(returncode=0) ends the run, and tests that did not run are no success.

    The system takes the last eight bits of a status.
    """
    call = f"pytest.exit('enough', returncode={code})"
    leaves = f"import pytest\n{call}\n"
    files = {
        "collection": {"test_a": leaves, "test_b": "def test_b(): assert 0\n"},
        "test": {"test_a": f"def test_a():\n    import pytest\n    {call}\n"},
        "end": {
            "conftest": f"import pytest\ndef pytest_sessionfinish(): {call}\n",
            "test_a": "def test_a(): assert 0\n",
        },
    }
    lab.project(**files[when])
    outcome = lab.smol("--smol")
    assert outcome.status == pytest.ExitCode.INTERRUPTED, outcome
    assert "enough" in outcome.text + "".join(outcome.err)


@pytest.mark.parametrize(
    ("test", "status"), [("assert 0", pytest.ExitCode.TESTS_FAILED), ("pass", pytest.ExitCode.OK)]
)
def test_a_hook_of_the_project_makes_no_success_of_a_failure(lab: Lab, test: str, status: int) -> None:
    lab.project(
        conftest="def pytest_sessionfinish(session):\n    session.exitstatus = 0\n",
        test_a=f"def test_a(): {test}\n",
    )
    assert lab.smol("--smol").status == status


def test_a_hook_of_the_project_makes_no_success_of_no_tests(lab: Lab) -> None:
    lab.project(conftest="def pytest_sessionfinish(session):\n    session.exitstatus = 0\n", test_a="")
    assert lab.smol("--smol").status == pytest.ExitCode.NO_TESTS_COLLECTED


@pytest.mark.parametrize(
    "path", ["/no/such/test_a.py", "a\0b", "x" * MAX_PATH], ids=["missing", "NUL", "long"]
)
def test_new_tests_first_where_the_host_has_not_their_file(lab: Lab, path: str) -> None:
    """--nf sorts by the time of the file, which the guest has done; the host asks for no file."""
    lab.project(test_a=TWO_TESTS)
    file = {"kind": "Module", "place": "module", "name": "test_a.py", "nodeid": "test_a.py", "path": path}
    tests = [
        {
            "kind": "Function",
            "place": "test",
            "name": f"test_{n}",
            "nodeid": f"test_a.py::test_{n}",
            "path": path,
            "doc": None,
            "parent": 0,
            "item": {"number": n - 1, "location": ["test_a.py", n, f"test_{n}"], "keywords": [], "marks": []},
        }
        for n in (1, 2)
    ]
    rows = [{**file, "doc": None, "parent": None}, *tests]
    said: Says = [{"type": "nodes", "rows": rows}, {**NO_TESTS, "items": [1, 0]}]
    outcome = lab.smol("--smol", "--nf", "--collect-only", "-q", session=Script(said))
    assert outcome.out[:2] == ["test_a.py::test_2", "test_a.py::test_1"], outcome
    assert outcome.status == 0
