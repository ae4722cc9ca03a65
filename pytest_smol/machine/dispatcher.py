"""The one loop that takes messages of a guest: a table for each phase says which it takes, and how.

The phases are the boot of the base (``pool/factory.py``), the new identity of a fork
(``pool/pool.py``), collection (``session/guests/guest_session.py``), a test and the end of a
machine (``session/group_run.py``), and the end of the run (``session/run_end.py``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pytest_smol.errors import MachineError, MachineTimeout, ProtocolError
from pytest_smol.machine.machine import Machine
from pytest_smol.machine.user_terminal import TALK, Terminal
from pytest_smol.protocol.wire import Message
from pytest_smol.reports.budget import MessageBudget
from pytest_smol.reports.message_schema import require_valid

__all__ = ["Deadline", "GuestStop", "Phase", "Rule", "exchange", "last_words_as_evidence", "stop_rule"]


def _ignore(message: Message) -> None:
    """A message that says nothing but that the guest has come so far."""


@dataclass(frozen=True)
class Rule:
    """How a phase takes messages of one type.

    ``handle`` is given the message. ``budget`` counts it; None where the host
    keeps nothing of it, or where ``handle`` has a limit of its own. With ``ends``
    the phase is over when the message has been handled.
    """

    handle: Callable[[Message], Any] = _ignore
    budget: MessageBudget | None = None
    ends: bool = False


class Deadline:
    """The time by which a phase has to be over: ``seconds`` from now."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.restart()

    def restart(self) -> None:
        """Let the time begin now."""
        self.at = time.monotonic() + self._seconds

    def extend(self, seconds: float) -> None:
        """Allow ``seconds`` more."""
        self.at += seconds

    def next(self) -> float:
        """The time, on time.monotonic()'s clock, until which the next message is waited for."""
        return self.at

    def missed(self, machine: Machine, error: MachineTimeout) -> None:
        """No message came by :meth:`next`. Raises ``error`` or a clearer one, unless there is time left."""
        raise error


@dataclass(frozen=True)
class Phase:
    """What a guest may say at one time, by type; any other message breaks the protocol.

    ``place`` says in an error when that was: "the guest sent a 'ready' message <place>".
    The guest may ask for the user's ``terminal``, where there is one; ``speaker`` says who asks: a test's
    node id, or what else the guest does.
    """

    place: str
    rules: Mapping[str, Rule]
    deadline: Deadline
    terminal: Terminal | None = None
    speaker: str = "the guest"

    def refusal(self, message: Message) -> ProtocolError:
        """The error for a ``message`` that is not expected."""
        return ProtocolError(f"the guest sent a {message['type']!r} message {self.place}")


def exchange(machine: Machine, phase: Phase) -> Iterator[Any]:
    """Take messages of ``machine`` until one ends ``phase``; yields what handlers return, but for None.

    Raises :class:`MachineTimeout` at the deadline, :class:`MachineDied` when the
    machine is gone, :class:`ProtocolError` for a message that ``phase`` does not
    take, that is not valid or that is more than its budget allows, and what handlers raise.
    """
    ended = False
    while not ended:
        message = _receive(machine, phase)
        rule = phase.rules.get(message["type"])
        if rule is None:
            raise phase.refusal(message)
        if rule.budget is not None:
            rule.budget.take(message)
        require_valid(message)
        result = rule.handle(message)
        if result is not None:
            yield result
        ended = rule.ends


def finish(machine: Machine, phase: Phase) -> None:
    """As :func:`exchange`, for a ``phase`` whose handlers return nothing."""
    for result in exchange(machine, phase):
        raise AssertionError(f"nothing takes {result!r}")


def _receive(machine: Machine, phase: Phase) -> Message:
    """The next message that is no request for the terminal; these are served here."""
    while True:
        until = phase.deadline.next()
        try:
            message = machine.receive(until)
            if message["type"] not in TALK or phase.terminal is None:
                return message
            phase.deadline.extend(phase.terminal.serve(machine, message, phase.speaker, until))
        except MachineTimeout as error:
            phase.deadline.missed(machine, error)


@contextmanager
def last_words_as_evidence(machine: Machine) -> Iterator[None]:
    """Add the last lines of the console and the output to the evidence of a :class:`MachineError`."""
    try:
        yield
    except MachineError as error:
        machine.drain()
        error.evidence = "\n".join(filter(None, (error.evidence, machine.last_words())))
        raise


@dataclass(frozen=True)
class GuestStop:
    """What stopped the guest's pytest, and why.

    ``kind`` is ``exit`` or ``interrupt`` (raised), ``fail`` or ``stop`` (the
    session's shouldfail or shouldstop); ``returncode`` is for ``exit``, ``place``,
    file and line, for ``interrupt``.
    """

    kind: str
    reason: str
    returncode: int | None
    place: tuple[str, int] | None = None

    @classmethod
    def of(cls, message: Message, clean: Callable[[str], str]) -> GuestStop:
        """What a valid ``stop`` message says; ``clean`` makes its text safe to show."""
        place = message["place"]
        where = (clean(place[0]), place[1]) if place is not None else None
        return cls(message["kind"], clean(message["reason"]), message["returncode"], where)


def stop_rule(
    stopped: Callable[[GuestStop], None],
    clean: Callable[[str], str],
    budget: MessageBudget,
    *,
    ends: bool = False,
) -> Rule:
    """The rule for ``stop``: ``stopped`` is told what stopped the guest's pytest."""
    return Rule(lambda message: stopped(GuestStop.of(message, clean)), budget, ends)
