"""What the host does for each test does not depend on how many there are. Counted, not timed."""

from __future__ import annotations

import gc
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_smol.protocol.wire import Message
from pytest_smol.reports.nodes import GuestItem
from pytest_smol.session import run as run_module
from pytest_smol.session.guests import guest_sessions
from pytest_smol.session.run import SmolSession
from pytest_smol.settings import Settings
from pytest_smol.snapshots.snapshot import Snapshot
from tests.unit.report_samples import passed
from tests.unit.snapshot_samples import Builder

#: How many tests are counted, after the first, which also makes what all share.
COUNTED = 40


class CountedItem(GuestItem):
    """A test whose comparisons are calls of Python, and so are counted: list.index and the like compare."""

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return super().__hash__()


class PassingMachine:
    """Reports each test that it is told to run as passed."""

    def __init__(self) -> None:
        self._said: deque[Message] = deque()

    def send(self, message: Message) -> None:
        for number, _ in message["steps"]:
            self._said.append({"type": "start", "index": number})
            for when in ("setup", "call", "teardown"):
                self._said.append({"type": "report", "index": number, "data": passed(when=when)})
            self._said.append({"type": "finish", "index": number})
        self._said.append({"type": "done"})

    def receive(self, deadline: float) -> Message:
        return self._said.popleft()


class FakePool:
    """Gives passing machines, and notes how many are planned."""

    def __init__(self, *_: object) -> None:
        self.planned: list[int] = []

    def plan(self, snapshot: Snapshot, groups: int) -> None:
        self.planned.append(groups)

    def fork(self, snapshot: Snapshot, on_output: Any) -> PassingMachine:
        return PassingMachine()

    def keep_console(self, machine: PassingMachine, title: str) -> None:
        return

    def retire(self, machine: PassingMachine) -> None:
        return

    def close(self) -> None:
        return


class FakeFactory:
    def __init__(self, *_: object) -> None:
        self.hidden: set[str] = set()

    def close(self) -> None:
        return


def guest_session_of(snapshot: Snapshot) -> Callable[..., Any]:
    """What stands for GuestSession: it has collected all tests."""
    return lambda *_: SimpleNamespace(
        snapshot=snapshot,
        start=lambda timeout, screen, modules: None,
        match=lambda items: list(range(len(items))),
    )


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(run_module, "MachineFactory", FakeFactory)
    monkeypatch.setattr(run_module, "Pool", FakePool)
    monkeypatch.setattr(guest_sessions, "GuestSession", guest_session_of(Builder()(tmp_path)))
    monkeypatch.setattr(guest_sessions, "require_part", lambda memory, part: None)


def items_of(session: pytest.Session, number: int) -> list[pytest.Item]:
    items: list[pytest.Item] = []
    for each in range(number):
        name = f"test_{each:06}"
        item: Any = CountedItem.from_parent(session, name=name, nodeid=f"test_a.py::{name}")
        item.marks, item.location = (), ("test_a.py", each, name)
        items.append(item)
    return items


def calls_of(work: Callable[[], None]) -> int:
    """How many functions, of Python and of C, ``work`` calls."""
    count = 0

    def note(frame: object, event: str, arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    gc.disable()  # what looks on at collections would be counted
    previous = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(previous)
        gc.enable()
    return count


def calls_per_run(request: pytest.FixtureRequest, number: int, scope: str, every: int) -> int:
    """The calls for COUNTED tests of a run of ``number``, of which one in ``every`` runs on the host."""
    items = items_of(request.session, number)
    settings = Settings(everything=every > number, scope=scope)
    smol = SmolSession(request.config, settings, (), lambda text: None)
    try:
        smol.make_plan(items, lambda item: cast(GuestItem, item).location[1] % every != every - 1)  # type: ignore[operator]

        def run(begin: int, end: int) -> None:
            for each in range(begin, end):
                if smol.owns(items[each]):
                    reports = list(smol.run(items[each], items[each + 1]))
                    assert [report.outcome for report in reports] == ["passed"] * 3
                else:
                    smol.next_on_host(items[each + 1])

        run(0, 10)
        return calls_of(lambda: run(10, 10 + COUNTED))
    finally:
        smol.close()


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize("scope", ["test", "session"])
@pytest.mark.parametrize("every", [10, 10**9], ids=["mixed", "all in VMs"])
def test_a_test_costs_the_same_however_many_there_are(
    request: pytest.FixtureRequest, scope: str, every: int
) -> None:
    assert calls_per_run(request, 20_000, scope, every) == calls_per_run(request, 200, scope, every)


@pytest.mark.usefixtures("fakes")
def test_a_walk_over_all_tests_would_be_counted(request: pytest.FixtureRequest) -> None:
    items = items_of(request.session, 2000)

    def walk() -> None:
        assert items.index(items[-1]) == 1999

    assert calls_of(lambda: None) < 10
    assert calls_of(walk) > 1000
