"""What the host keeps of a flood of any message, in any phase: no more than budgets say.

The table has large messages of each type. Each is sent a thousand times in a fork of this process, through
the dispatcher and all that is behind it. Texts are of 256 KiB, and the budgets are small: with frames
of 16 MiB a flood takes minutes and shows the same.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fuzz.fuzz_coverage import checked_coverage
from fuzz.support.plugins import collector_of, in_place, project
from pytest_smol.artifacts.collector import ArtifactCollector
from pytest_smol.artifacts.plugins import benchmark, coverage, syrupy
from pytest_smol.errors import MachineDied, SmolError
from pytest_smol.machine.dispatcher import Phase, exchange
from pytest_smol.machine.exit_evidence import Tail
from pytest_smol.machine.machine import Machine
from pytest_smol.protocol.wire import FROM_GUEST, Message
from pytest_smol.reports.budget import FREE, RunBudget
from pytest_smol.reports.builder import ReportBuilder
from pytest_smol.reports.screen import Screen
from pytest_smol.session import group_run, run_end
from pytest_smol.session.group_run import GroupContext, GroupRun
from pytest_smol.session.guests import guest_session
from pytest_smol.session.guests.collected import SessionEnded
from pytest_smol.session.guests.collection_deadline import CollectionDeadline
from pytest_smol.session.guests.guest_session import GuestSession, collection_budget
from pytest_smol.session.guests.module_collection import FileCollector, Said
from pytest_smol.session.run_end import GuestRunEnd
from pytest_smol.session.run_messages import RunMessages
from tests.unit.report_samples import passed
from tests.unit.snapshot_samples import Builder

MIB = 1 << 20

#: What a run may keep in these tests, a test of it, and each of the bridges to plugins.
RUN, TEST, BRIDGE = 16 * MIB, 2 * MIB, 4 * MIB

#: What may be kept beside it.
BESIDE = 64 * MIB

TIMES = 1000

#: The characters of a long text, and the entries of a long list.
LONG, MANY = MIB // 4, 3000

Make = Callable[[int], Message]


def _long(number: int, character: str = "x") -> str:
    """A long text that is no other's: equal ones could be kept once."""
    return f"{number}" + character * LONG


def _report(**changes: Any) -> Message:
    return {"type": "report", "index": 0, "data": {**passed(when="setup"), **changes}}


def _call(**changes: Any) -> Message:
    return {"type": "report", "index": 0, "data": {**passed(when="call"), **changes}}


def _warning(number: int, **changes: Any) -> Message:
    fields = {
        "text": f"{number}",
        "category": f"W{number}",
        "filename": "a.py",
        "lineno": number,
        "line": "x",
    }
    return {"type": "warning", **fields, "when": "runtest", "nodeid": "", "location": None, **changes}


def _node(number: int, **changes: Any) -> dict[str, Any]:
    texts = {"kind": "K", "name": f"n{number}", "nodeid": f"a.py::n{number}", "path": "/a.py", "doc": None}
    return {**texts, "parent": None, "place": "test", **changes}


def _item(number: int, **changes: Any) -> dict[str, Any]:
    item = {"number": number, "location": ["a.py", 1, "n"], "marks": [], "keywords": [], **changes}
    return _node(number, item=item)


def _nodes(rows: list[dict[str, Any]]) -> Message:
    return {"type": "nodes", "rows": rows}


def _state(plugin: str, data: dict[str, Any]) -> Message:
    return {"type": "state", "plugin": plugin, "data": data}


def _numbered(count: int, number: int) -> list[str]:
    return [f"{number}/{each}" for each in range(count)]


def _bench(number: int, **changes: Any) -> Message:
    texts = {"name": f"{number}", "fullname": "x", "group": None, "param": None, "params": None}
    numbers = {"extra_info": {}, "iterations": 1, "options": {}, "has_error": False, "data": [0.5]}
    return _state("benchmark", {**texts, **numbers, **changes})


_SYRUPY: dict[str, Any] = {"collections": {}, "num_xfails": 0, "selected": {}, "extensions": {}}

#: The makers of each type's messages, by type.
ROWS: dict[str, Sequence[Make]] = {
    "ready": [lambda n: {"type": "ready", "python": _long(n)}],
    "header": [
        lambda n: {"type": "header", "lines": [_long(n)]},
        lambda n: {"type": "header", "lines": _numbered(MANY, n)},
    ],
    "mark": [lambda n: {"type": "mark", "stderr": True}],
    "printing": [lambda n: {"type": "printing"}],
    "screen": [
        lambda n: {"type": "screen", "text": _long(n), "fresh_line": True},
    ],
    "suite_property": [
        lambda n: {"type": "suite_property", "name": _long(n), "value": ""},
        lambda n: {"type": "suite_property", "name": f"{n}", "value": "\x80" * (MIB // 256)},
    ],
    "collecting": [lambda n: {"type": "collecting", "nodeid": _long(n)}],
    "nodes": [
        lambda n: _nodes([_node(n, doc=_long(n))]),
        lambda n: _nodes([_node(n, name="\x80" * (MIB // 64))]),
        lambda n: _nodes([_node(each) for each in range(300)]),
        lambda n: _nodes([_item(n * 150 + each) for each in range(150)]),
        lambda n: _nodes([_item(n, keywords=_numbered(MANY, n))]),
        lambda n: _nodes([_item(n, marks=[{"place": "test", "nodeid": "", "kwargs": {}}] * MANY)]),
    ],
    "files": [
        lambda n: {"type": "files", "rows": [[_long(n), "/a"]]},
        lambda n: {"type": "files", "rows": [[each, "/a"] for each in _numbered(MANY, n)]},
    ],
    "collect_report": [
        lambda n: {
            "type": "collect_report",
            "data": {"nodeid": "", "outcome": "failed", "longrepr": _long(n), "sections": []},
        },
    ],
    "warning": [
        lambda n: _warning(n, text=_long(n)),
        lambda n: _warning(n, text="\x80" * (MIB // 256)),
        lambda n: _warning(n, filename="\ud800" * (MIB // 256)),
    ],
    "collected": [
        lambda n: {**_collected(), "items": list(range(n, n + MANY))},
        lambda n: {**_collected(), "lines": [_long(n)]},
    ],
    "fresh": [lambda n: {"type": "fresh"}],
    "start": [lambda n: {"type": "start", "index": 0}],
    "finish": [lambda n: {"type": "finish", "index": 0}],
    "report": [
        lambda n: _report(sections=[["Captured", _long(n)]]),
        lambda n: _call(sections=[["Captured", "\x80" * (MIB // 256)]]),
        lambda n: _call(user_properties=[["\ud800" * (MIB // 256), None]]),
        lambda n: _call(user_properties=[[each, None] for each in _numbered(300, n)]),
        lambda n: _call(user_properties=[["k", [[]] * MANY]]),
        lambda n: _call(user_properties=[["k", [{"k": 0} for _ in range(300)]]]),
        lambda n: _call(keywords=dict.fromkeys(_numbered(MANY // 10, n), 1)),
        lambda n: _call(longrepr=_traceback(60), outcome="failed"),
    ],
    "file": [
        lambda n: _file("out/a", "A" * (LONG // 4 * 4), last=False),
        lambda n: _file(_long(n), "", last=True),
        lambda n: _file(f"out/../{n}", "", last=True),
    ],
    "unsent": [
        lambda n: {"type": "unsent", "path": _long(n), "reason": _long(n)},
    ],
    "writes": [
        lambda n: {"type": "writes", "paths": [["created", _long(n)]], "more": 10**18},
        lambda n: {"type": "writes", "paths": [["created", each] for each in _numbered(MANY, n)], "more": 0},
    ],
    "state": [
        lambda n: _state(_long(n), {}),
        lambda n: _state(
            "coverage", {"lines": [["", f"/{n}/{each}" + "x" * 1000, ""] for each in range(150)]}
        ),
        lambda n: _state("coverage", {"lines": [[f"{n}/{each}", "/a", ""] for each in range(150)]}),
        lambda n: _state("coverage", {"tracers": [[f"/{n}/{each}", None] for each in range(150)]}),
        lambda n: _bench(n, data=[float(each) for each in range(MANY)]),
        lambda n: _bench(n, extra_info=dict.fromkeys(_numbered(1000, n), "x")),
        lambda n: _state("syrupy", {**_SYRUPY, "selected": dict.fromkeys(_numbered(1500, n), "passed")}),
        lambda n: _state(
            "syrupy", {**_SYRUPY, "collections": {"used": {each: [] for each in _numbered(150, n)}}}
        ),
    ],
    "stop": [
        lambda n: _stop(_long(n)),
        lambda n: _stop("", place=[_long(n), 1]),
    ],
    "done": [lambda n: {"type": "done"}],
    "replayed": [lambda n: {"type": "replayed"}],
    "closed": [lambda n: {"type": "closed", "exitstatus": 0, "failure": _long(n)}],
    "usage_error": [
        lambda n: {"type": "usage_error", "lines": [_long(n)]},
        lambda n: {"type": "usage_error", "lines": _numbered(MANY, n)},
    ],
    "exit": [lambda n: {"type": "exit", "status": n}],
    "died": [lambda n: {"type": "died", "status": n, "signal": None}],
    "terminal": [lambda n: {"type": "terminal", "open": True}],
    "input": [lambda n: {"type": "input"}],
    "pdb_shown": [lambda n: {"type": "pdb_shown"}],
}


def _collected() -> Message:
    return {"type": "collected", "items": [], "deselected": [], "lines": [], "closing": False}


def _file(path: str, data: str, last: bool) -> Message:
    return {"type": "file", "path": path, "data": data, "last": last, "executable": False}


def _stop(reason: str, place: Any = None) -> Message:
    return {"type": "stop", "kind": "fail", "reason": reason, "returncode": None, "place": place}


def _traceback(entries: int) -> dict[str, Any]:
    location = {"path": "a", "lineno": 1, "message": ""}
    parts = {
        "lines": ["E"],
        "reprfuncargs": None,
        "reprlocals": None,
        "reprfileloc": location,
        "style": "long",
    }
    rows = [{"type": "ReprEntry", "data": dict(parts)} for _ in range(entries)]
    trace = {"reprentries": rows, "extraline": None, "style": "long"}
    return {"reprcrash": location, "reprtraceback": trace, "sections": [], "chain": None}


class Flooding:
    """A machine that sends messages until there are no more, and then dies; a test's begin as they should."""

    def __init__(self, messages: Iterator[Message], begin: Sequence[Message] = ()) -> None:
        self._messages = itertools.chain(begin, messages)
        self.console = Tail()
        self.output = {"stdout": Tail(), "stderr": Tail()}
        self.vm = SimpleNamespace(disk_error="")

    def send(self, message: Message) -> None: ...

    def abort_test(self) -> None: ...

    def drain(self) -> None: ...

    def last_words(self) -> str:
        return ""

    def receive(self, deadline: float) -> Message:
        message = next(self._messages, None)
        if message is None:
            raise MachineDied("there is no more")
        return message


class FloodingPool:
    """All its machines send of the same messages."""

    def __init__(self, messages: Iterator[Message], begin: Sequence[Message]) -> None:
        self._messages, self._begin = messages, begin

    def fork(self, snapshot: object, on_output: object = None) -> Flooding:
        return Flooding(self._messages, self._begin)

    def keep_console(self, machine: object, title: str) -> None: ...

    def retire(self, machine: object) -> None: ...


class Host:
    """The host's side of a run, with all that it keeps."""

    def __init__(self, request: pytest.FixtureRequest, directory: Path) -> None:
        self.item: pytest.Item = request.node
        self.builder = ReportBuilder(request.config)
        self.screen = Screen(request.config, self.builder.clean)
        self.snapshot = Builder()(directory)
        self.kept: list[object] = []
        self.budget = RunBudget(RUN, "the run", "")
        #: What was begun: each may keep what no other has a part of.
        self.things = 0

    def context(
        self, said: Iterator[Message], kind: str, artifacts: ArtifactCollector | None
    ) -> GroupContext:
        begin: list[Message] = [{"type": "start", "index": 0}]
        begin += [_report()] if kind == "report" else []
        messages = RunMessages(self.builder, self.screen)
        pool: Any = FloodingPool(said, begin)
        return GroupContext(pool, self.builder, messages, artifacts=artifacts, budget=self.budget)

    def tests(self, said: Iterator[Message], kind: str, artifacts: ArtifactCollector) -> None:
        """Tests, one after another, as long as messages come."""
        context = self.context(said, kind, artifacts)
        group = GroupRun(context, self.snapshot, [(0, 0)])
        while (first := next(said, None)) is not None:
            self.things += 1
            rest = itertools.chain([first], said)
            cast(Any, context.pool)._messages = rest
            self.screen.limit.begin()
            self.kept += group.run(self.item, 60)
            group.stop = None
            group.add((0, 0))

    def machine_ends(self, said: Iterator[Message], kind: str, artifacts: ArtifactCollector) -> None:
        """Machines that are at their end."""
        context = self.context(said, kind, artifacts)
        while (first := next(said, None)) is not None:
            self.things += 1
            group: Any = GroupRun(context, self.snapshot, [(0, None)])
            group._machine = Flooding(itertools.chain([first], said))
            group._end_machine("a.py::test", 60)
            group.close()
            group.stop = None  # the run would end with it
            self.kept.append(group)

    def sessions(self, said: Iterator[Message], kind: str, artifacts: ArtifactCollector) -> None:
        """Collection, in a session for each kind of machine."""
        budget = collection_budget()
        unused: Any = None
        while (first := next(said, None)) is not None:
            session = GuestSession(unused, unused, unused, self.builder.clean, budget=budget)
            machine = cast(Machine, Flooding(itertools.chain([first], said)))
            deadline = CollectionDeadline(60)
            rules = session._rules(machine, self.screen, deadline)
            self.kept.append(session)
            self._flood(machine, lambda rules=rules, deadline=deadline: Phase("", rules, deadline))
            if session.collected.nodes._rows:
                self._build(session)

    def files(self, said: Iterator[Message], kind: str, artifacts: ArtifactCollector) -> None:
        """Collection of one file after another, each in a machine of its own."""
        collector = FileCollector(self.builder.clean, 60, None, self.screen, collection_budget())
        while (first := next(said, None)) is not None:
            machine = cast(Machine, Flooding(itertools.chain([first], said)))
            try:
                self.kept.append(collector.collect(machine, ["/a.py"]))
            except (SmolError, SessionEnded) as error:
                self.kept.append(str(error))

    def _build(self, session: GuestSession) -> None:
        try:
            self.kept.append(session.collected.nodes.build(self.item.session))
        except SmolError:
            self.kept.append(None)

    def end_of_run(self, said: Iterator[Message], kind: str, artifacts: ArtifactCollector) -> None:
        """The three hooks of the end."""
        context = self.context(said, kind, artifacts)
        end = GuestRunEnd(self.item.config, context, self.snapshot, self.screen, 60)
        self.kept.append(end)
        for _ in range(3):
            self.things += 1
            end._budget.begin()
            self._flood(cast(Machine, Flooding(said)), end._hook_phase)
        self._flood(cast(Machine, Flooding(said)), end._replay_phase)

    def _flood(self, machine: Machine, phase: Callable[[], Any]) -> None:
        try:
            self.kept += exchange(machine, phase())
        except (SmolError, SessionEnded, pytest.exit.Exception) as error:
            self.kept.append(str(error))


PHASES: dict[str, Callable[[Host, Iterator[Message], str, ArtifactCollector], None]] = {
    "a test": Host.tests,
    "the end of a machine": Host.machine_ends,
    "collection": Host.sessions,
    "collection of a file": Host.files,
    "the end of the run": Host.end_of_run,
}


def resident() -> int:
    """The memory of this process in bytes, without what it has freed."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def in_a_fork(measure: Callable[[], int]) -> int:
    """What ``measure`` gives in a fork of this process, whose output is lost."""
    end, begin = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(240)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.write(begin, str(measure()).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(begin)
    with open(end, "rb") as answer:
        said = answer.read()
    os.waitpid(child, 0)
    assert said, "the fork failed"
    return int(said)


def flood(host: Host, phase: str, kind: str, make: Make) -> int:
    """By how many bytes this process grows beyond budgets when the messages of ``make`` come."""
    reporter: Any = host.item.config.pluginmanager.get_plugin("terminalreporter")
    reporter._tw._file = open(os.devnull, "w")  # noqa: SIM115
    first = make(0)
    plugin = first.get("plugin")
    name = plugin if plugin in ("coverage", "benchmark", "syrupy") else "hypothesis"
    with checked_coverage(), in_place(**_stats()):
        artifacts = collector_of(name, "out/**")
        said = (make(number) for number in range(TIMES))
        before = resident()
        PHASES[phase](host, said, kind, artifacts)
        grown = resident() - before
    return grown - FREE * host.things


def _stats() -> dict[str, Any]:
    from fuzz.fuzz_benchmark import stand_in

    return {"pytest_benchmark__stats": stand_in()}


def test_every_type_has_a_row() -> None:
    assert ROWS.keys() == FROM_GUEST.keys()
    for kind, makers in ROWS.items():
        for make in makers:
            message = make(1)
            assert message["type"] == kind
            assert message.keys() - {"type"} == FROM_GUEST[kind].keys()


#: What a guest may say in each phase. All else is refused when it comes.
_COMMON = ("screen", "warning", "suite_property")
LEGAL: dict[str, set[str]] = {
    "a test": {
        *_COMMON,
        *("file", "unsent", "writes", "state", "start", "report", "finish", "pdb_shown", "stop", "done"),
    },
    "the end of a machine": {*_COMMON, "file", "unsent", "writes", "state", "stop", "done"},
    "collection": {
        *_COMMON,
        *("header", "nodes", "collecting", "collect_report", "usage_error", "stop", "collected", "exit"),
    },
    "collection of a file": {
        *_COMMON,
        *("files", "nodes", "collecting", "collect_report", "usage_error", "stop", "collected", "exit"),
    },
    "the end of the run": {*_COMMON, "stop", "exit", "closed", "replayed"},
}


def test_the_table_of_phases_is_that_of_the_dispatcher(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    project()
    host = Host(request, tmp_path)
    artifacts = collector_of("hypothesis", "out/**")
    context = host.context(iter(()), "start", artifacts)
    group = GroupRun(context, host.snapshot, [])
    end = GuestRunEnd(request.config, context, host.snapshot, host.screen, 60)
    unused: Any = None
    session = GuestSession(unused, unused, unused, str, budget=collection_budget())
    deadline = CollectionDeadline(60)
    collector = FileCollector(str, 60)
    assert {
        "a test": set(group._rules_of_a_test()),
        "the end of a machine": set(group._rules_of_the_end()),
        "collection": set(session._rules(unused, host.screen, deadline)),
        "collection of a file": set(collector._rules(unused, Said(str), deadline)),
        "the end of the run": {*end._hook_phase().rules, *end._replay_phase().rules},
    } == LEGAL
    artifacts.close()


def _numbers(phase: str, kind: str) -> range:
    """The makers of ``kind`` that are tried in ``phase``: all in a test or collection, else the first."""
    return range(len(ROWS[kind]) if phase in ("a test", "collection") else 1)


_CASES = [
    (phase, kind, number)
    for phase, kinds in LEGAL.items()
    for kind in sorted(kinds)
    for number in _numbers(phase, kind)
]


@pytest.mark.parametrize(("phase", "kind", "number"), _CASES)
def test_a_flood_leaves_no_more_than_budgets_say(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    phase: str,
    kind: str,
    number: int,
) -> None:
    monkeypatch.setattr(guest_session, "MAX_COLLECTED", RUN)
    monkeypatch.setattr(group_run, "MAX_KEPT", TEST)
    monkeypatch.setattr(group_run, "MAX_PLUGIN_STATE", RUN)
    monkeypatch.setattr(run_end, "MAX_KEPT", TEST)
    monkeypatch.setattr(coverage, "MAX_NAMES", BRIDGE)
    monkeypatch.setattr(benchmark, "MAX_KEPT", BRIDGE)
    monkeypatch.setattr(syrupy, "MAX_KEPT", BRIDGE)
    project()
    host = Host(request, tmp_path)
    grown = in_a_fork(lambda: flood(host, phase, kind, ROWS[kind][number]))
    print(f"FLOOD {phase} {kind} {number}: {grown >> 20} MiB")
    most = RUN + (BRIDGE if kind == "state" else 0)
    assert grown <= most + BESIDE, f"{grown >> 20} MiB"
