"""Guests that lie or die when the run ends in them: one line says so, and the results stay."""

from __future__ import annotations

import pytest

from pytest_smol.protocol.wire import Message
from tests.plugin.fakes import Script
from tests.plugin.lab import Lab
from tests.plugin.test_lies import FRESH, Says

REPLAYED: Message = {"type": "replayed"}
CLOSED: Message = {"type": "closed", "exitstatus": 0, "failure": ""}
BEGUN = [FRESH, REPLAYED]

LIES: dict[str, Says] = {
    "not fresh": [REPLAYED],
    "nothing replayed": [FRESH, CLOSED],
    "a report": [*BEGUN, {"type": "start", "index": 0}],
    "collected once more": [
        *BEGUN,
        {"type": "collected", "items": [], "deselected": [], "lines": [], "closing": False},
    ],
    "bytes": [*BEGUN, b"\xff\xff\xff\xff"],
    "its end": [*BEGUN, {"type": "exit", "status": 0}],
    "a death": [*BEGUN, {"type": "died", "status": None, "signal": 11}],
    "a place that is none": [
        *BEGUN,
        {"type": "stop", "kind": "interrupt", "reason": "", "returncode": None, "place": [1, "x"]},
    ],
    "an end of no known kind": [
        *BEGUN,
        {"type": "stop", "kind": "no such kind", "reason": "enough", "returncode": 7, "place": None},
    ],
    "a failure of many lines": [*BEGUN, {**CLOSED, "failure": "a\nb\x1b[2J\nValueError: why\n"}],
}

#: A run without tests needs no other machine than that for its end.
ARGS = ("--smol", "--collect-only", "--smol-timeout=2")


@pytest.fixture
def project(lab: Lab) -> Lab:
    lab.project(
        conftest="def pytest_sessionfinish(): pass\ndef pytest_terminal_summary(): pass\n",
        test_a="def test_a(): pass\n",
    )
    return lab


@pytest.mark.parametrize("says", LIES.values(), ids=LIES.keys())
def test_a_guest_that_breaks_the_protocol(project: Lab, says: Says) -> None:
    outcome = project.smol(*ARGS, forks=[Script(says, gone=False)])
    assert outcome.status == 0, outcome
    [line] = [line for line in outcome.out if "own plugins failed" in line]
    assert line.startswith("smol: pytest_sessionfinish of the project's own plugins failed: ")
    assert "1 test collected" in outcome.text
    assert "\x1b" not in outcome.text


def test_a_guest_that_keeps_to_the_protocol(project: Lab) -> None:
    text: Message = {"type": "screen", "text": "said\x1b[2J\r at the end\n", "fresh_line": True}
    says = [*BEGUN, CLOSED, text, CLOSED]
    outcome = project.smol(*ARGS, forks=[Script(says, gone=False)])
    assert outcome.status == 0
    assert "said^[[2J^M at the end" in outcome.out


OPEN: Message = {"type": "terminal", "open": True}
CLOSE: Message = {"type": "terminal", "open": False}


@pytest.mark.parametrize("talk", [[OPEN, CLOSE], [{"type": "input"}], [OPEN, {"type": "input"}, CLOSE]])
@pytest.mark.parametrize("place", ["sessionfinish", "terminal_summary", "unconfigure"])
def test_a_guest_that_asks_for_the_terminal(project: Lab, talk: list[Message], place: str) -> None:
    """As a debugger does: ``breakpoint()`` in a hook of the end."""
    before = {"sessionfinish": [], "terminal_summary": [CLOSED], "unconfigure": [CLOSED, CLOSED]}[place]
    after = {"sessionfinish": [CLOSED, CLOSED], "terminal_summary": [CLOSED], "unconfigure": []}[place]
    says = [*BEGUN, *before, *talk, CLOSED, *after]
    outcome = project.smol(*ARGS, forks=[Script(says, gone=False)])
    assert outcome.status == 0, outcome
    assert not [line for line in outcome.out if "own plugins failed" in line]
    [fork] = project.record.forks
    answers = [sent["type"] for sent in fork.sent if sent["type"] in ("terminal", "line")]
    assert answers == ["line" if asked["type"] == "input" else "terminal" for asked in talk if asked != CLOSE]


@pytest.mark.parametrize("status", [-1, 256, 1 << 40])
def test_an_exit_status_that_no_process_has(project: Lab, status: int) -> None:
    says = [*BEGUN, {**CLOSED, "exitstatus": status}, CLOSED]
    assert project.smol(*ARGS, forks=[Script(says, gone=False)]).status == 0


@pytest.mark.parametrize(("kind", "status"), [("exit", 7), ("interrupt", 2)])
def test_a_guest_that_stops_the_run(project: Lab, kind: str, status: int) -> None:
    stop: Message = {"type": "stop", "kind": kind, "reason": "enough", "returncode": 7, "place": None}
    outcome = project.smol(*ARGS, forks=[Script([*BEGUN, stop], gone=False)])
    assert outcome.status == status


def test_what_is_said_while_reports_are_replayed_is_not_shown_again(project: Lab) -> None:
    text: Message = {"type": "screen", "text": "once more\n", "fresh_line": False}
    outcome = project.smol(*ARGS, forks=[Script([FRESH, text, REPLAYED, CLOSED, CLOSED], gone=False)])
    assert "once more" not in outcome.text


def test_a_status_that_the_terminal_does_not_know(lab: Lab) -> None:
    """At home markup of an unknown name ends pytest with a traceback of its own."""
    lab.project(
        conftest="""
            def pytest_report_teststatus(report):
                if report.when == "call":
                    markup = {"no such colour": True, "red": 1}
                    return "of\\x1bits own", "\\x07", ("WORD\\n" * 1000, markup)
        """,
        test_a="def test_a(): pass\n",
    )
    outcome = lab.smol("--smol", "-v")
    assert outcome.status == 0, outcome
    assert "1 of^[its own" in outcome.out[-1]
    assert max(map(len, outcome.out)) < 300
