"""Every message and field with values that break what is careless, with all plugins that are bridged.

tests/plugin/test_nasty_values.py does so without other plugins. Here all of requirements.txt are loaded and
write what they can, in one process and with ``-n2``. One run has a test, and so a machine, for each value.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from pytest_smol.errors import ProtocolError
from pytest_smol.protocol.wire import FROM_GUEST, Decoder, Message
from pytest_smol.reports.message_schema import require_valid
from pytest_smol.reports.nodes import NodeTable
from pytest_smol.reports.schema import COLLECT_REPORT, TEST_REPORT, checked
from pytest_smol.reports.text import clean
from tests.plugin.lab import Outcome
from tests.plugin.test_hostile_reports import framed
from tests.plugin.test_lies import report
from tests.plugin.test_nasty_values import EXAMPLES, NASTY, paths, with_nasty
from tests.suites.run import ROOT
from tests.thirdparty.bench import Bench
from tests.thirdparty.scripted_machines import SCRIPTS, write_script

#: How a run is distributed, and whether coverage measures branches in it.
RUNS = {"alone": ((), False), "two workers": (("-n2",), True)}

PHASES = ("setup", "call", "teardown")

#: Values beyond those of the other test.
MORE = {"2**31": str(1 << 31), "-2**31-1": str(-(1 << 31) - 1), "1e308": "1e308", "an empty list": "[]"}

#: The types that a test's machine may send, and those that break the protocol with no value that is valid:
#: these come in batches.
TOGETHER = ("screen", "suite_property", "warning", "unsent", "state")
IN_TESTS = (*TOGETHER, "report", "file", "writes", "start", "finish", "done", "pdb_shown")

BATCH = 40

#: Of the values that the host's checks refuse one in so many is sent.
EACH_REFUSED = 200

#: What ends a run: each value has a run of its own, so there are few.
ENDS = ("stop", "exit", "terminal", "input")

_MUCH = '"' + "x" * 10_000_000 + '"'

#: The fields that take the longest text of a message, by the example's name.
LONG_TEXTS: dict[str, tuple[str | int, ...]] = {
    "screen": ("text",),
    "suite_property": ("value",),
    "warning": ("text",),
    "unsent": ("path",),
    "writes": ("paths", 0, 1),
    "report": ("data", "longrepr", "reprcrash", "message"),
    "report of a skip": ("data", "longrepr", 2),
    "report of a subtest": ("data", "_subtest.context", "kwargs", "a"),
}


def _states(root: Path, branch: bool) -> dict[str, Message]:
    """What plugins in a guest say when its machine ends, and a file of hypothesis' database."""
    module = str(root / "test_a.py")
    measured: dict[str, Any] = (
        {"arcs": [["test_a.py::test_n|run", module, -1, 2]]}
        if branch
        else {"lines": [["test_a.py::test_n|run", module, "06"]]}
    )
    texts = {"name": "n", "fullname": "f", "group": None, "param": "1", "params": {"n": 1}}
    numbers = {
        "extra_info": {"a": 1},
        "iterations": 1,
        "options": {"a": 1},
        "has_error": False,
        "data": [0.5],
    }
    item = dict.fromkeys(("nodeid", "name", "path", "modulename", "methodname"), "test_a.py")
    place = str(root / "__snapshots__/test_a.ambr")
    snapshots = {
        "collections": {"discovered": {place: ["test_1"]}, "used": {place: ["test_1"]}},
        "num_xfails": 0,
        "selected": {"test_a.py::test_n": "passed"},
        "extensions": {place: "syrupy.extensions.amber.AmberSnapshotExtension"},
        "collected": [item],
        "collected_modules": ["test_a"],
    }
    said = {
        "coverage": {**measured, "tracers": [[module, None]]},
        "benchmark": {**texts, **numbers},
        "syrupy": snapshots,
    }
    states: dict[str, Message] = {
        name: {"type": "state", "plugin": name, "data": data} for name, data in said.items()
    }
    example = ".hypothesis/examples/0123456789abcdef/0123456789abcdef"
    return {**states, "an example": {**EXAMPLES["file"], "path": example}}


def _doubled(message: Message, path: tuple[str | int, ...]) -> bytes:
    """``message`` with the value at ``path`` twice: in a list, or under one key."""
    value: Any = message
    for key in path:
        value = value[key]
    text = json.dumps(value)
    name = "" if isinstance(path[-1], int) else f"{json.dumps(path[-1])}: "
    return with_nasty(message, path, f"{text}, {name}{text}")


def _variants(name: str, message: Message) -> Iterator[bytes]:
    """The frames of ``message`` with each value in each field."""
    for path in paths(message):
        for value in (*NASTY.values(), *MORE.values()):
            yield with_nasty(message, path, value)
        yield _doubled(message, path)
    if name in LONG_TEXTS:
        yield with_nasty(message, LONG_TEXTS[name], _MUCH)
    yield framed(json.dumps(message).encode())


def _refused(frame: bytes) -> bool:
    """Whether the host's own checks refuse a message, as they do with any plugin."""
    try:
        (message,) = Decoder(FROM_GUEST).feed(frame)
        require_valid(message)
        if message["type"] == "report":
            checked(message["data"], TEST_REPORT, clean)
        if message["type"] == "collect_report":
            checked(message["data"], COLLECT_REPORT, clean)
        if message["type"] == "nodes":
            NodeTable(clean).add(message["rows"])
    except ValueError:
        return True
    except ProtocolError:
        return True
    return False


def _is_between(frame: bytes) -> bool:
    """Whether other messages of a test may follow a message that is not refused."""
    message: Message = json.loads(frame[4:])
    data = message.get("data", {})
    if message["type"] != "report":
        return message["type"] in TOGETHER
    return (message["index"], data["when"]) == (0, "call") and data["outcome"] != "rerun"


def _tests(examples: Mapping[str, Message]) -> list[list[bytes]]:
    """What is said test by test: what breaks the protocol ends it, the rest comes in batches.

    Of what the host's checks refuse some stand for all, as plugins see nothing of it.
    """
    tests: list[list[bytes]] = []
    for name, message in examples.items():
        frames = list(_variants(name, message))
        refused = [frame for frame in frames if _refused(frame)]
        taken = [frame for frame in frames if not _refused(frame)]
        if message["type"] not in IN_TESTS:  # refused for its type
            refused, taken = [], frames[-1:]
        alone = [frame for frame in taken if not _is_between(frame)] + refused[::EACH_REFUSED]
        tests += [[frame] for frame in alone]
        batched = [frame for frame in taken if _is_between(frame)]
        tests += [batched[at : at + BATCH] for at in range(0, len(batched), BATCH)]
    return tests


def _test(
    number: int, said: Sequence[bytes | Message], phases: Sequence[str] = PHASES
) -> list[bytes | Message]:
    """What a fork says that runs the test ``number``: the first of ``phases``, ``said``, the others."""
    start, finish = ({"type": kind, "index": number} for kind in ("start", "finish"))
    first, *others = ({**report(when), "index": number} for when in phases)
    return [start, first, *said, *others, finish]


def _of_the_call(message: Message) -> Message:
    return {**message, "data": {**message["data"], "when": "call"}}


def _numbered(frame: bytes, number: int) -> bytes:
    """``frame`` of a message about the test 0, which is right in that, about the test ``number``."""
    return framed(frame[4:].replace(b'"index": 0,', b'"index": %d,' % number, 1))


def _session(directory: Path, rows: Sequence[Any], *more: Message | bytes) -> None:
    """Let a guest collect ``rows``, of which those with an item are tests, and say ``more`` before."""
    items = [row["item"]["number"] for row in rows if "item" in row]
    collected = {**EXAMPLES["collected"], "items": items}
    nodes = [{"type": "nodes", "rows": rows[at : at + 500]} for at in range(0, len(rows), 500)]
    said: list[Message | bytes] = [EXAMPLES["header"], EXAMPLES["collecting"], *more, *nodes, collected]
    write_script(directory, "session", said)


def _rows(root: Path, count: int) -> list[Any]:
    module, test = EXAMPLES["nodes"]["rows"]
    path = str(root / "test_a.py")
    rows = [{**module, "path": path}]
    for number in range(count):
        name = f"test_{number}"
        item = {**test["item"], "number": number, "location": ["test_a.py", 0, name], "marks": []}
        rows.append({**test, "name": name, "nodeid": f"test_a.py::{name}", "path": path, "item": item})
    return rows


def _write_honest(directory: Path, number: int) -> None:
    """Let the test ``number`` be an honest one that fails."""
    failed = {**report("call", outcome="failed", longrepr="why"), "index": number}
    write_script(directory, str(number), _test(number, [failed], ("setup", "teardown")))


class Scripts:
    """A project whose machines are scripted."""

    def __init__(self, bench: Bench, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self.root = bench.root
        self._bench = bench
        bench.write("test_a.py", "def test_a():\n    assert 0\n")
        bench.write("__snapshots__/test_a.ambr", "# name: test_1\n  1\n# ---\n")
        settings = ["smol_artifacts = out/**", "junit_logging = all", "generate_report_on_test = true"]
        bench.write("pytest.ini", "\n".join(["[pytest]", *settings]))

    def run(self, *args: str, branch: bool = False) -> Outcome:
        """pytest with all plugins, each of which writes a report."""
        reports = ["--junitxml=out.xml", "--html=report.html", "--self-contained-html", "--cov=."]
        reports += ["--cov-report=term-missing", "--cov-report=xml:coverage.xml", "--cov-context=test"]
        reports += ["--cov-branch"] if branch else []
        reports += ["--benchmark-json=bench.json", "--snapshot-details", "--hypothesis-show-statistics"]
        shown = [
            "-ra",
            "--durations=5",
            "--smol-scope=test",
            "--smol-show-writes",
            "-p",
            "tests.thirdparty.scripted_machines",
        ]
        env = {SCRIPTS: str(self.directory), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        return self._bench.run("--smol", *reports, *shown, *args, plugins=None, env=env)


@pytest.fixture
def scripts(bench: Bench, tmp_path: Path) -> Scripts:
    return Scripts(bench, tmp_path / "scripts")


def check(outcome: Outcome) -> None:
    """No internal error, no traceback, a line that sums up, readable reports and a status that tells."""
    text = "\n".join([*outcome.out, *outcome.err])
    assert "INTERNALERROR" not in text, outcome
    assert "Traceback (most recent call last)" not in text, outcome
    assert " of the plugin " not in text, outcome  # a hook that failed
    assert outcome.status not in (0, 3), outcome
    assert any(" in " in line and line.endswith(("s =", "s", "=")) for line in outcome.out[-3:]), outcome
    for name in ("out.xml", "coverage.xml"):
        if outcome.files.get(name):
            ElementTree.fromstring(outcome.files[name])
    if outcome.files.get("bench.json"):
        json.loads(outcome.files["bench.json"])


@pytest.mark.parametrize("run", RUNS)
def test_what_a_fork_says(scripts: Scripts, run: str) -> None:
    args, branch = RUNS[run]
    examples = {name: each for name, each in EXAMPLES.items() if name not in ENDS}
    # After its setup a test that is skipped there can report no more.
    examples["report of a skip"] = _of_the_call(examples["report of a skip"])
    examples |= _states(scripts.root, branch)
    tests = _tests(examples)
    for number, frames in enumerate(tests):
        said = [_numbered(frame, number) for frame in frames]
        write_script(scripts.directory, str(number), _test(number, said))
    honest = len(tests)
    _write_honest(scripts.directory, honest)
    _session(scripts.directory, _rows(scripts.root, honest + 1))
    outcome = scripts.run(*args, branch=branch)
    check(outcome)
    names = {case.get("name") for case in ElementTree.fromstring(outcome.files["out.xml"]).iter("testcase")}
    assert names >= {f"test_{number}" for number in range(honest + 1)}


def _accepted(name: str) -> list[Message]:
    """The messages of the example ``name`` with values that the host's checks let through."""
    frames = [frame for frame in _variants(name, EXAMPLES[name]) if not _refused(frame)]
    return [json.loads(frame[4:]) for frame in frames]


def _asks_for_scopes(rows: Sequence[Any]) -> bool:
    """Whether all markers of the tests in ``rows`` ask for a scope and nothing else."""
    kwargs: list[object] = [mark["kwargs"] for row in rows if "item" in row for mark in row["item"]["marks"]]
    return all(each == {"scope": "test"} for each in kwargs)


def _all_rows(root: Path) -> list[Any]:
    """The rows of all trees that are let through, one tree after another, and of an honest module."""
    # What a marker cannot ask for is an error of the user's, and ends the run.
    trees = [message["rows"] for message in _accepted("nodes") if _asks_for_scopes(message["rows"])]
    rows: list[Any] = []
    count = 0
    for tree in [*trees, _rows(root, 1)]:
        first = len(rows)
        for row in tree:
            parent = None if row["parent"] is None else first + row["parent"]
            item = {"item": {**row["item"], "number": count}} if "item" in row else {}
            rows.append({**row, **item, "parent": parent})
            count += "item" in row
    return rows


@pytest.mark.parametrize("run", RUNS)
def test_what_a_guest_says_that_collects(scripts: Scripts, run: str) -> None:
    args, branch = RUNS[run]
    rows = _all_rows(scripts.root)
    numbers = [row["item"]["number"] for row in rows if "item" in row]
    said = [
        each for name in ("warning", "suite_property", "collect_report", "screen") for each in _accepted(name)
    ]
    headers = [line for message in _accepted("header") for line in message["lines"]]
    _session(scripts.directory, rows, {"type": "header", "lines": headers}, *said)
    for number in numbers[:-1]:
        write_script(scripts.directory, str(number), _test(number, []))
    _write_honest(scripts.directory, numbers[-1])
    outcome = scripts.run("--continue-on-collection-errors", *args, branch=branch)
    check(outcome)
    assert len(numbers) > 150
    assert f"{len(numbers) - 1} passed" in outcome.out[-1], outcome.out[-1]


def _stop(**changes: Any) -> Message:
    return {"type": "stop", "kind": "exit", "reason": "why", "returncode": 3, "place": None, **changes}


_ODD = "\ud800\0\ufffe\x1b]0;x\x07" + "x" * 5000

#: What ends the run in a test.
STOPS: dict[str, Message] = {
    "a code of 32 bits": _stop(returncode=(1 << 31) - 1, reason=_ODD),
    "a negative code": _stop(returncode=-(1 << 31)),
    "an odd place": _stop(kind="interrupt", place=[_ODD, -(1 << 31)], reason=_ODD),
    "a failure": _stop(kind="fail", reason=_ODD),
}

#: What ends the run while the guest collects.
ENDS_OF_COLLECTION: dict[str, Sequence[Message]] = {
    "a negative status": [{"type": "exit", "status": -(1 << 31)}],
    "an odd error": [{"type": "usage_error", "lines": [_ODD, ""]}, {"type": "exit", "status": 4}],
    "an odd reason": [_stop(kind="fail", reason=_ODD), {"type": "exit", "status": 2}],
    "a death at an odd place": [{"type": "collecting", "nodeid": _ODD}, {"type": "done"}],
}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("stop", STOPS.values(), ids=STOPS)
def test_what_stops_a_run(scripts: Scripts, run: str, stop: Message) -> None:
    args, branch = RUNS[run]
    _session(scripts.directory, _rows(scripts.root, 2))
    for number in range(2):
        write_script(scripts.directory, str(number), _test(number, [stop, {"type": "done"}]))
    check(scripts.run(*args, branch=branch))


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("says", ENDS_OF_COLLECTION.values(), ids=ENDS_OF_COLLECTION)
def test_what_stops_a_collection(scripts: Scripts, run: str, says: Sequence[Message]) -> None:
    args, branch = RUNS[run]
    write_script(scripts.directory, "session", [EXAMPLES["header"], EXAMPLES["collecting"], *says])
    outcome = scripts.run(*args, branch=branch)
    text = "\n".join([*outcome.out, *outcome.err])
    assert "INTERNALERROR" not in text, outcome
    assert "Traceback (most recent call last)" not in text, outcome
    assert outcome.status % 256, outcome
