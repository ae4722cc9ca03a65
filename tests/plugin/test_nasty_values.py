"""Every message and every field of it with values that break what is careless, through the whole host side.

Whatever a guest says: no internal error, no traceback of ours, a summary, an XML file that can be read, and a
status that tells that not all went well.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import pytest

from pytest_smol.protocol.wire import FROM_GUEST, Message
from tests.plugin.fakes import Script
from tests.plugin.lab import Lab, Outcome
from tests.plugin.test_hostile_reports import framed, warning
from tests.plugin.test_lies import FINISH, FRESH, START, report

#: The values as they stand in JSON; None leaves the field out.
NASTY: dict[str, str | None] = {
    "a lone surrogate": '"\\ud800"',
    "NUL": '"\\u0000"',
    "a noncharacter": '"\\ufffe"',
    "an escape sequence": '"\\u001b]0;x\\u0007"',
    "much text": '"' + "x" * 5_000 + '"',
    "nothing": '""',
    "2**63": str(1 << 63),
    "-2**63": str(-(1 << 63)),
    "-1": "-1",
    "1e400": "1e400",
    "NaN": "NaN",
    "deep": "[" * 900 + "]" * 900,
    "null": "null",
    "an object": '{"a": [1]}',
    "missing": None,
    **{
        f"the word {word}": f'"{word}"'
        for word in ("warnings", "skipped", "xpassed", "error", "__class__", "../x")
    },
}

_FAILURE = {
    "reprcrash": {"path": "test_a.py", "lineno": 1, "message": "why"},
    "reprtraceback": {
        "reprentries": [
            {
                "type": "ReprEntry",
                "data": {
                    "lines": ["E  why"],
                    "reprfuncargs": {"args": [["a", "b"]]},
                    "reprlocals": {"lines": ["a = 1"]},
                    "reprfileloc": {"path": "test_a.py", "lineno": 1, "message": "why"},
                    "style": "long",
                },
            }
        ],
        "extraline": "more",
        "style": "long",
    },
    "sections": [["title", "content", "-"]],
    "chain": None,
}

_REPORT = report(
    "call",
    outcome="failed",
    longrepr=_FAILURE,
    keywords={"a": 1},
    user_properties=[["name", "value"]],
    sections=[["Captured stdout call", "text"]],
    wasxfail="reason",
    smol_teststatus=["failed", "F", ["FAILED", {"red": True}]],
    rerun=1,
    _hypothesis_stats="stats",
    extras=[
        {"name": "n", "format_type": "text", "content": "c", "mime_type": "text/plain", "extension": "txt"}
    ],
)

_SUBTEST = report(
    "call", _report_type="SubTestReport", **{"_subtest.context": {"msg": "m", "kwargs": {"a": 1}}}
)

_NODE = {
    "kind": "Function",
    "name": "test_1",
    "nodeid": "test_a.py::test_1",
    "path": "/test_a.py",
    "doc": "a doc",
    "parent": 0,
    "place": "test",
    "item": {
        "number": 0,
        "location": ["test_a.py", 0, "test_1"],
        "marks": [{"place": "test", "nodeid": "test_a.py::test_1", "kwargs": {"scope": "test"}}],
        "keywords": ["slow"],
    },
}
_MODULE = {
    **_NODE,
    "kind": "Module",
    "name": "test_a.py",
    "nodeid": "test_a.py",
    "parent": None,
    "place": "module",
}
_MODULE.pop("item")

_COLLECT = {"nodeid": "test_a.py", "outcome": "failed", "longrepr": "why", "sections": [["a", "b"]]}

#: One message of each type, with all that it may hold.
EXAMPLES: dict[str, Message] = {
    "ready": {"type": "ready", "python": "3.11"},
    "header": {"type": "header", "lines": ["a line"]},
    "mark": {"type": "mark", "stderr": False},
    "printing": {"type": "printing"},
    "screen": {"type": "screen", "text": "shown", "fresh_line": True},
    "suite_property": {"type": "suite_property", "name": "n", "value": "v"},
    "collecting": {"type": "collecting", "nodeid": "test_a.py"},
    "nodes": {"type": "nodes", "rows": [_MODULE, _NODE]},
    "files": {"type": "files", "rows": [["test_a.py", "/test_a.py"]]},
    "collect_report": {"type": "collect_report", "data": _COLLECT},
    "warning": {**warning("text"), "location": ["test_a.py", 1, "f"]},
    "collected": {"type": "collected", "items": [0], "deselected": [], "lines": ["x"], "closing": False},
    "fresh": FRESH,
    "start": START,
    "finish": FINISH,
    "report": _REPORT,
    "report of a subtest": _SUBTEST,
    "report of a skip": report("setup", outcome="skipped", longrepr=["test_a.py", 1, "Skipped: why"]),
    "file": {"type": "file", "path": "out/a.txt", "data": "aGk=", "last": True, "executable": False},
    "unsent": {"type": "unsent", "path": "out/b.txt", "reason": "too large"},
    "writes": {"type": "writes", "paths": [["created", "/tmp/x"]], "more": 0},
    "state": {"type": "state", "plugin": "cov", "data": {"lines": [["a.py", [1]]]}},
    "stop": {"type": "stop", "kind": "fail", "reason": "why", "returncode": 1, "place": ["a.py", 1]},
    "done": {"type": "done"},
    "replayed": {"type": "replayed"},
    "closed": {"type": "closed", "exitstatus": 0, "failure": ""},
    "usage_error": {"type": "usage_error", "lines": ["wrong"]},
    "exit": {"type": "exit", "status": 1},
    "died": {"type": "died", "status": None, "signal": 9},
    "terminal": {"type": "terminal", "open": True},
    "input": {"type": "input"},
    "pdb_shown": {"type": "pdb_shown"},
}

#: Plugins that take part where they are installed.
BUNDLED = ("pytest_cov", "pytest_benchmark", "pytest_html", "syrupy", "_hypothesis_pytestplugin", "xdist")

Path = tuple["str | int", ...]


def paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """The places of all values within ``value``."""
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, inner in entries:
        yield (*path, key)
        yield from paths(inner, (*path, key))


_HOLE = "the value goes here"


def with_nasty(message: Message, path: Path, raw: str | None) -> bytes:
    """The frame of ``message`` with ``raw`` at ``path``."""
    changed: Any = json.loads(json.dumps(message))
    holder = changed
    for key in path[:-1]:
        holder = holder[key]
    if raw is None:
        del holder[path[-1]]
        return framed(json.dumps(changed).encode())
    holder[path[-1]] = _HOLE
    return framed(json.dumps(changed).replace(json.dumps(_HOLE), raw, 1).encode())


def plugins() -> list[str]:
    return [part for name in BUNDLED if importlib.util.find_spec(name) for part in ("-p", name)]


def check(outcome: Outcome) -> None:
    text = "\n".join([*outcome.out, *outcome.err])
    assert "INTERNALERROR" not in text, outcome
    assert "Traceback (most recent call last)" not in text, outcome
    assert " of the plugin " not in text, outcome  # a hook that failed
    assert outcome.status not in (0, 3), outcome
    assert " in " in outcome.out[-1], outcome  # the line that sums up
    if "out.xml" in outcome.files:
        ElementTree.fromstring(outcome.files["out.xml"])


def test_there_is_an_example_of_every_message() -> None:
    assert {message["type"] for message in EXAMPLES.values()} == FROM_GUEST.keys()
    for message in EXAMPLES.values():
        assert message.keys() - {"type"} == FROM_GUEST[message["type"]].keys()


TESTS = "import pytest\n@pytest.mark.parametrize('n', range({}))\ndef test_n(n): assert 0\n"

#: Messages of which a fork may say anything between the start and the end of a test.
_IN_FORKS = [name for name in EXAMPLES if name not in ("terminal", "input")]


@pytest.mark.parametrize("name", _IN_FORKS)
def test_what_a_fork_says(lab: Lab, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine for each value, in one run; the last test is an honest guest's, and fails."""
    # With one core no machine is made ahead, so each test has the script of its own number.
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    message = EXAMPLES[name]
    cases = [(path, nasty) for path in paths(message) for nasty in NASTY.values()] or [((), None)]
    for begin in range(0, len(cases), 100):
        part = cases[begin : begin + 100]
        forks = []
        for number, (path, nasty) in enumerate(part):
            own = {**message, **({"index": number} if "index" in message else {})}
            said = with_nasty(own, path, nasty) if path else own
            rest = [{**report(when), "index": number} for when in ("setup", "call", "teardown")]
            says = [
                FRESH,
                {"type": "start", "index": number},
                said,
                *rest,
                {"type": "finish", "index": number},
            ]
            forks.append(Script(says, gone=True))
        lab.project(test_a=TESTS.format(len(part) + 1), pytest_ini="[pytest]\nsmol_artifacts = out/**\n")
        args = ("--smol", "--smol-scope=test", "-ra", "--junitxml=out.xml", "--smol-show-writes")
        check(lab.smol(*args, *plugins(), forks=forks))


def _session(name: str, path: Path, nasty: str | None) -> list[Message | bytes]:
    """What a guest says that collects one test, with a value in the message ``name``."""
    told = {
        each: EXAMPLES[each]
        for each in ("header", "collecting", "nodes", "collected")
        if each != name or name == "collecting"
    }
    said: Message | bytes = with_nasty(EXAMPLES[name], path, nasty) if path else EXAMPLES[name]
    if name == "nodes":
        return [told["header"], told["collecting"], said, told["collected"]]
    if name == "collected":
        return [told["header"], told["collecting"], told["nodes"], said]
    return [told["collecting"], said, told.get("nodes", said), told.get("collected", said)]


#: Messages that a guest may send while it collects; of the others one example is enough: they are refused.
_IN_COLLECTION = (
    *("header", "screen", "suite_property", "collecting", "nodes", "collect_report", "warning", "collected"),
    *("stop", "usage_error", "exit", "mark", "printing"),
)


#: Each costs a run of pytest, so these are the most telling.
_FOR_COLLECTION = ("a lone surrogate", "NUL", "2**63", "-2**63", "NaN", "null", "an object", "missing")


def _cases(name: str) -> list[tuple[Path, str | None]]:
    if name not in _IN_COLLECTION:
        return [((), None)]
    values = [NASTY[each] for each in _FOR_COLLECTION]
    return [(path, nasty) for path in paths(EXAMPLES[name]) for nasty in values] or [((), None)]


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name not in ("terminal", "input")])
def test_what_a_guest_says_that_collects(lab: Lab, name: str) -> None:
    lab.project(test_a="def test_1(): assert 0\n")
    fails = report("call", outcome="failed", longrepr="why")
    fork = [FRESH, START, report("setup"), fails, report("teardown"), FINISH]
    for path, nasty in _cases(name):
        session = Script(_session(name, path, nasty), gone=True)
        forks = [Script(fork, gone=True) for _ in range(2)]
        check(lab.smol("--smol", "--junitxml=out.xml", session=session, forks=forks))
