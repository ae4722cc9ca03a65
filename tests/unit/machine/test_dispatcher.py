"""The loop that takes a guest's messages, against a machine that follows a script."""

from __future__ import annotations

import time
from collections import deque
from typing import Any, cast

import pytest

from pytest_smol.errors import MachineDied, MachineTimeout, ProtocolError, SmolError
from pytest_smol.machine.dispatcher import (
    Deadline,
    GuestStop,
    Phase,
    Rule,
    exchange,
    finish,
    last_words_as_evidence,
    stop_rule,
)
from pytest_smol.machine.machine import Machine
from pytest_smol.machine.user_terminal import Terminal
from pytest_smol.protocol.wire import Message
from pytest_smol.reports.budget import MessageBudget

TIMEOUT = MachineTimeout("no answer came from the guest in time")
OPEN: Message = {"type": "terminal", "open": True}
DONE: Message = {"type": "done"}


class FakeMachine:
    """Sends the messages of a script, or raises its errors."""

    def __init__(self, *script: Message | SmolError) -> None:
        self.script = deque(script)
        self.deadlines: list[float] = []
        self.drained = False

    def receive(self, deadline: float) -> Message:
        self.deadlines.append(deadline)
        step = self.script.popleft()
        if isinstance(step, SmolError):
            raise step
        return step

    def drain(self) -> None:
        self.drained = True

    def last_words(self) -> str:
        return "last words"


class FakeTerminal:
    """Is used for ``seconds`` each time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.served: list[Message] = []

    def serve(self, machine: Machine, message: Message, who: str, deadline: float) -> float:
        self.served.append(message)
        return self.seconds


def machine_of(*script: Message | SmolError) -> tuple[Machine, FakeMachine]:
    fake = FakeMachine(*script)
    return cast(Machine, fake), fake


def phase_of(rules: dict[str, Rule], seconds: float = 60, terminal: FakeTerminal | None = None) -> Phase:
    return Phase("in this test", rules, Deadline(seconds), cast(Terminal, terminal))


def test_handlers_get_messages_until_one_ends_the_phase() -> None:
    machine, fake = machine_of({"type": "start"}, {"type": "report"}, DONE, {"type": "start"})
    taken: list[Message] = []
    rules = {"start": Rule(taken.append), "report": Rule(lambda message: "a report"), "done": Rule(ends=True)}
    assert list(exchange(machine, phase_of(rules))) == ["a report"]
    assert taken == [{"type": "start"}]
    assert len(fake.script) == 1


def test_a_result_is_there_before_the_next_message_is_waited_for() -> None:
    machine, fake = machine_of({"type": "report"}, DONE)
    results = exchange(machine, phase_of({"report": Rule(lambda message: 1), "done": Rule(ends=True)}))
    assert next(results) == 1
    assert len(fake.script) == 1


@pytest.mark.parametrize("kind", ["ready", "exit", "stop", "terminal", "input"])
def test_what_is_not_in_the_table_breaks_the_protocol(kind: str) -> None:
    machine, _ = machine_of({"type": kind, "open": True})
    with pytest.raises(ProtocolError, match=f"the guest sent a '{kind}' message in this test"):
        finish(machine, phase_of({"done": Rule(ends=True)}))


def test_messages_count_towards_the_budget_of_their_rule_before_they_are_handled() -> None:
    budget, other = MessageBudget("the test", 1000), MessageBudget("a plugin", 10_000)
    handled: list[Message] = []
    rules = {"warning": Rule(handled.append, budget), "state": Rule(handled.append, other), "screen": Rule()}
    text = "x" * 600
    script: list[Message] = [
        {"type": kind, "text": text} for kind in ("screen", "state", "warning", "screen")
    ]
    machine, _ = machine_of(*script, {"type": "warning", "text": text})
    with pytest.raises(ProtocolError, match="the test reported more than"):
        finish(machine, phase_of(rules))
    assert [message["type"] for message in handled] == ["state", "warning"]


def test_what_is_not_kept_is_not_counted() -> None:
    machine, _ = machine_of({"type": "screen", "text": "x" * 5000, "fresh_line": False}, DONE)
    finish(machine, phase_of({"screen": Rule(), "done": Rule(ends=True, budget=MessageBudget("x", 1000))}))


# --- the terminal and the time


@pytest.mark.parametrize("request_", [OPEN, {"type": "input"}])
def test_while_the_user_talks_with_the_guest_no_time_passes(request_: Message) -> None:
    machine, fake = machine_of(request_, DONE)
    terminal = FakeTerminal(1000)
    finish(machine, phase_of({"done": Rule(ends=True)}, terminal=terminal))
    assert terminal.served == [request_]
    assert fake.deadlines[1] - fake.deadlines[0] == pytest.approx(1000)


def test_a_deadline_that_is_missed_is_an_error() -> None:
    machine, _ = machine_of(TIMEOUT)
    with pytest.raises(MachineTimeout):
        finish(machine, phase_of({}))


def test_a_deadline_may_go_on() -> None:
    class Patient(Deadline):
        missed_times = 0

        def missed(self, machine: Machine, error: MachineTimeout) -> None:
            self.missed_times += 1

    deadline = Patient(60)
    machine, _ = machine_of(TIMEOUT, TIMEOUT, DONE)
    finish(machine, Phase("in this test", {"done": Rule(ends=True)}, deadline))
    assert deadline.missed_times == 2


def test_a_deadline_is_restarted_and_extended() -> None:
    deadline = Deadline(60)
    deadline.at = 0
    deadline.restart()
    assert deadline.next() > time.monotonic()
    before = deadline.next()
    deadline.extend(5)
    assert deadline.next() == before + 5


# --- ends


def test_a_stop_is_checked_and_made_safe_to_show() -> None:
    stops: list[GuestStop] = []
    message: Message = {"type": "stop", "kind": "exit", "reason": "x", "returncode": 3, "place": ["a.py", 1]}
    rule = stop_rule(stops.append, str.upper, MessageBudget("x", 1000), ends=True)
    machine, _ = machine_of(message)
    finish(machine, phase_of({"stop": rule}))
    assert stops == [GuestStop("exit", "X", 3, ("A.PY", 1))]


@pytest.mark.parametrize("place", [[], ["a.py"], [1, "a.py"], ["a.py", True], ["a.py", 1, 2]])
def test_a_stop_at_no_place_breaks_the_protocol(place: list[Any]) -> None:
    message: Message = {"type": "stop", "kind": "exit", "reason": "x", "returncode": 3, "place": place}
    stops: list[GuestStop] = []
    machine, _ = machine_of(message)
    rule = stop_rule(stops.append, str, MessageBudget("x", 1000), ends=True)
    with pytest.raises(ProtocolError, match="a 'stop' message that is none: place"):
        finish(machine, phase_of({"stop": rule}))
    assert not stops


def test_the_last_words_are_evidence() -> None:
    machine, fake = machine_of(MachineDied("it died", evidence="why"))
    with pytest.raises(MachineDied) as caught, last_words_as_evidence(machine):
        finish(machine, phase_of({}))
    assert caught.value.evidence == "why\nlast words"
    assert fake.drained
