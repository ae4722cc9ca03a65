"""The user's terminal, lent to a guest: a pty stands for it, and sockets for the machine."""

from __future__ import annotations

import fcntl
import math
import os
import select
import signal
import struct
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar, TextIO, cast
from unittest import mock

import pytest

from pytest_smol.errors import (
    MachineDied,
    MachineTimeout,
    ProtocolError,
    TerminalRefused,
    TerminalTakenBack,
)
from pytest_smol.machine.machine import Machine
from pytest_smol.machine.terminal_permission import TerminalPermission
from pytest_smol.machine.user_terminal import _IN_ORDER, Terminal
from pytest_smol.protocol.wire import TO_GUEST, TO_TERMINAL, Decoder, Message, encode
from pytest_smol.virtiofs.filesystem.tree import Tree
from pytest_smol.virtiofs.server import Server
from pytest_smol.virtiofs.view import View
from tests.unit.fake_vm import FakeVm

OPEN: Message = {"type": "terminal", "open": True}
CLOSED: Message = {"type": "terminal", "open": False}


class TalkingMachine(Machine):
    """A machine without QEMU, whose guest is the test."""

    #: What stands for the host's standard streams, by name.
    streams: ClassVar[dict[str, object]] = {}

    def __init__(self, server: Server) -> None:
        vm = FakeVm()
        self.guest = vm.guest_ports
        super().__init__(vm, server, Tree(View({})))


class Guest:
    """The guest's side of a machine, with the test's own thread of control."""

    def __init__(self, machine: TalkingMachine) -> None:
        self.ports = machine.guest
        self._decoders = {"control": Decoder(TO_GUEST), "terminal": Decoder(TO_TERMINAL)}
        self._received: dict[str, list[Message]] = {"control": [], "terminal": []}

    def say(self, message: Message) -> None:
        self.ports["control"].sendall(encode(message))

    def hear(self, port: str = "control") -> Message:
        received = self._received[port]
        while not received:
            received += self._decoders[port].feed(self.ports[port].recv(1 << 16))
        return received.pop(0)

    def typed(self, count: int) -> str:
        text = ""
        while len(text) < count:
            text += self.hear("terminal")["text"]
        return text


class User:
    """The user at the other end of the pty of ``slave``."""

    def __init__(self, master: int, slave: int) -> None:
        self.master, self.slave = master, slave

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, data: bytes) -> None:
        os.write(self.master, data)

    def sees(self, count: int) -> bytes:
        data = b""
        while len(data) < count and select.select([self.master], [], [], 60)[0]:
            data += os.read(self.master, count - len(data))
        return data

    def mode(self) -> list[Any]:
        return termios.tcgetattr(self.slave)


@pytest.fixture
def machine() -> Iterator[TalkingMachine]:
    with Server() as server, TalkingMachine(server) as machine:
        yield machine


@pytest.fixture
def user(machine: TalkingMachine, monkeypatch: pytest.MonkeyPatch) -> Iterator[User]:
    master, slave = os.openpty()
    user = User(master, slave)
    user.resize(50, 132)
    with open(slave, encoding="utf-8") as stdin, open(os.dup(slave), "w", encoding="utf-8") as stdout:
        monkeypatch.setattr(machine, "streams", {"stdin": stdin, "stdout": stdout})
        yield user
    os.close(master)


class Allowed:
    """Stands for what the user allows: everything, unless it is changed."""

    terminal = lines = True
    unfiltered = False

    def require(self, who: str, stdin: int) -> None:
        return None


@pytest.fixture
def permission() -> Allowed:
    return Allowed()


@pytest.fixture
def terminal(permission: Allowed, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """One that leaves this run's own capture and plugins alone."""
    told: list[str] = []
    hook = SimpleNamespace(
        pytest_enter_pdb=lambda config, pdb: told.append("enter"),
        pytest_leave_pdb=lambda config, pdb: told.append("leave"),
    )
    plugins = SimpleNamespace(get_plugin=lambda name: None)
    config = SimpleNamespace(hook=hook, pluginmanager=plugins, told=told)
    return Terminal(cast(pytest.Config, config), cast(TerminalPermission, permission))


def told(terminal: Terminal) -> list[str]:
    return cast(Any, terminal)._config.told


def talk(
    terminal: Terminal,
    machine: TalkingMachine,
    guest: Callable[[Guest], None],
    message: Message = OPEN,
    deadline: float = math.inf,
) -> float:
    """Serve ``message`` while ``guest`` plays its part in a thread; what that raises is raised here."""
    errors: list[BaseException] = []

    def play() -> None:
        try:
            guest(Guest(machine))
        except BaseException as error:
            errors.append(error)
            machine.guest["control"].close()

    thread = threading.Thread(target=play)
    thread.start()
    try:
        with mock.patch.multiple(sys, **machine.streams):
            return terminal.serve(machine, message, "test_a.py::test_it", deadline)
    finally:
        thread.join(60)
        assert not errors, errors


def test_keys_and_output_pass_as_they_are(terminal: Terminal, machine: TalkingMachine, user: User) -> None:
    before = user.mode()

    def guest(it: Guest) -> None:
        assert it.hear() == {"type": "terminal", "tty": True, "rows": 50, "columns": 132}
        user.type(b"p x\r\x03\x04\x1a\xc3\xa9")
        assert it.typed(9) == "p x\r\x03\x04\x1a\xc3\xa9"
        it.ports["terminal"].sendall(b"\x1b[Kred\n\xff")
        assert user.sees(8) == b"\x1b[Kred\n\xff"
        it.say(CLOSED)

    assert talk(terminal, machine, guest) > 0
    assert user.mode() == before
    assert told(terminal) == ["enter", "leave"]


def test_other_output_keeps_its_line_ends(terminal: Terminal, machine: TalkingMachine, user: User) -> None:
    machine.show_output(lambda name, data: (sys.stdout.write(data.decode()), sys.stdout.flush(), None)[-1])

    def guest(it: Guest) -> None:
        it.hear()
        it.ports["stdout"].sendall(b"a\nb\n")
        assert user.sees(6) == b"a\r\nb\r\n"
        it.ports["terminal"].sendall(b"a\nb\n")
        assert user.sees(4) == b"a\nb\n"
        it.say(CLOSED)

    talk(terminal, machine, guest)


def test_what_was_typed_before_is_not_lost(terminal: Terminal, machine: TalkingMachine, user: User) -> None:
    user.type(b"early\r")

    def guest(it: Guest) -> None:
        it.hear()
        assert it.typed(6) in ("early\r", "early\n")
        it.say(CLOSED)

    talk(terminal, machine, guest)


def test_a_new_size_is_told(terminal: Terminal, machine: TalkingMachine, user: User) -> None:
    def guest(it: Guest) -> None:
        it.hear()
        user.resize(10, 20)
        os.kill(os.getpid(), signal.SIGWINCH)
        assert it.hear("terminal") == {"type": "resize", "rows": 10, "columns": 20}
        it.say(CLOSED)

    before = signal.getsignal(signal.SIGWINCH)
    talk(terminal, machine, guest)
    assert signal.getsignal(signal.SIGWINCH) == before


def test_a_guest_that_takes_nothing_holds_up_nobody(
    terminal: Terminal, machine: TalkingMachine, user: User
) -> None:
    def guest(it: Guest) -> None:
        it.hear()
        os.set_blocking(user.master, False)
        typed = 0
        try:
            while typed < 4 << 20 and select.select([], [user.master], [], 1)[1]:
                typed += os.write(user.master, b"x" * 1000)
        except BlockingIOError:
            pass
        it.ports["terminal"].sendall(b"alive")
        assert user.sees(5) == b"alive"
        assert it.typed(typed) == "x" * typed
        it.say(CLOSED)

    talk(terminal, machine, guest)


def test_the_end_of_the_terminal_is_the_end_of_input(
    terminal: Terminal, machine: TalkingMachine, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_smol.machine.user_terminal._read", lambda fd: os.read(fd, 100) and b"")

    def guest(it: Guest) -> None:
        it.hear()
        user.type(b"gone")
        assert it.typed(1) == "\x04"
        it.say(CLOSED)

    talk(terminal, machine, guest)


@pytest.mark.parametrize(
    ("last", "error"),
    [
        ({"type": "died", "status": None, "signal": 9}, MachineDied),
        ({"type": "start", "index": 0}, ProtocolError),
        ({"type": "input"}, ProtocolError),
        ({"type": "terminal", "open": True}, ProtocolError),
    ],
    ids=lambda value: str(value.get("type")) if isinstance(value, dict) else "",
)
def test_the_terminal_is_back_whatever_the_guest_does(
    terminal: Terminal, machine: TalkingMachine, user: User, last: Message, error: type[Exception]
) -> None:
    before = user.mode()

    def guest(it: Guest) -> None:
        it.hear()
        it.ports["lifecycle" if last["type"] == "died" else "control"].sendall(encode(last))

    with pytest.raises(error):
        talk(terminal, machine, guest)
    assert user.mode() == before
    assert told(terminal) == ["enter", "leave"]


def test_the_terminal_is_back_when_this_process_is_told_to_end(
    terminal: Terminal, machine: TalkingMachine, user: User
) -> None:
    before = user.mode()

    def end(number: int, frame: object) -> None:
        raise SystemExit(number)

    def guest(it: Guest) -> None:
        it.hear()
        os.kill(os.getpid(), signal.SIGTERM)

    previous = signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(SystemExit):
            talk(terminal, machine, guest)
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert user.mode() == before


def test_what_was_never_lent_cannot_be_given_back(terminal: Terminal, machine: TalkingMachine) -> None:
    with pytest.raises(ProtocolError, match="gave back"):
        terminal.serve(machine, CLOSED, "test_a.py::test_it", math.inf)


# --- lines


@pytest.fixture
def pipe(machine: TalkingMachine, monkeypatch: pytest.MonkeyPatch) -> Iterator[TextIO]:
    """The other end of a standard input that is no terminal."""
    reader, writer = os.pipe()
    with open(reader, encoding="utf-8") as stdin, open(writer, "w", encoding="utf-8") as pipe:
        monkeypatch.setattr(machine, "streams", {"stdin": stdin})
        yield pipe


def line_of(it: Guest) -> str:
    it.say({"type": "input"})
    text: str = it.hear()["text"]
    return text


def test_without_a_terminal_there_are_lines(
    terminal: Terminal, machine: TalkingMachine, pipe: TextIO
) -> None:
    pipe.write("p 1\nc\nand é rest")
    pipe.close()

    def guest(it: Guest) -> None:
        assert it.hear() == {"type": "terminal", "tty": False, "rows": 24, "columns": 80}
        assert line_of(it) == "p 1\n"
        it.say(CLOSED)

    talk(terminal, machine, guest)

    def next_guest(it: Guest) -> None:
        it.hear()
        assert [line_of(it) for _ in range(4)] == ["c\n", "and \xc3\xa9 rest", "", ""]
        it.say(CLOSED)

    talk(terminal, machine, next_guest)


def test_a_line_can_be_asked_for_without_a_debugger(
    terminal: Terminal, machine: TalkingMachine, pipe: TextIO
) -> None:
    def guest(it: Guest) -> None:
        for part in ("jo", "e\n"):
            pipe.write(part)
            pipe.flush()
        assert it.hear() == {"type": "line", "text": "joe\n"}

    talk(terminal, machine, guest, {"type": "input"})
    assert told(terminal) == []


def test_a_machine_that_dies_waits_for_no_line(
    terminal: Terminal, machine: TalkingMachine, pipe: TextIO
) -> None:
    def guest(it: Guest) -> None:
        it.ports["lifecycle"].sendall(encode({"type": "died", "status": 3, "signal": None}))

    with pytest.raises(MachineDied, match="exited with status 3"):
        talk(terminal, machine, guest, {"type": "input"})


@pytest.mark.parametrize("stdin", [None, SimpleNamespace()], ids=["none", "no file"])
def test_without_standard_input_its_end_is_all_there_is(
    terminal: Terminal, machine: TalkingMachine, monkeypatch: pytest.MonkeyPatch, stdin: object
) -> None:
    monkeypatch.setattr(machine, "streams", {"stdin": stdin})
    talk(terminal, machine, lambda it: None, {"type": "input"})
    assert Guest(machine).hear() == {"type": "line", "text": ""}


def test_a_line_without_end_comes_in_pieces(
    terminal: Terminal, machine: TalkingMachine, pipe: TextIO
) -> None:
    def write() -> None:
        with pipe:
            pipe.write("x" * 50_000)

    writer = threading.Thread(target=write)
    writer.start()

    def guest(it: Guest) -> None:
        it.hear()
        text = "".join(iter(lambda: line_of(it), ""))
        assert text == "x" * 50_000
        it.say(CLOSED)

    talk(terminal, machine, guest)
    writer.join()


def test_lines_are_waited_for_until_the_deadline_and_no_longer(
    terminal: Terminal, machine: TalkingMachine, pipe: TextIO
) -> None:
    with pytest.raises(MachineTimeout):
        talk(terminal, machine, lambda it: None, {"type": "input"}, time.monotonic() + 0.01)


def test_a_debugger_that_waits_for_a_line_has_the_tests_time(
    terminal: Terminal, machine: TalkingMachine, pipe: TextIO
) -> None:
    def guest(it: Guest) -> None:
        assert not it.hear()["tty"]
        it.say({"type": "input"})

    with pytest.raises(MachineTimeout):
        talk(terminal, machine, guest, OPEN, time.monotonic() + 0.5)


def test_no_time_is_given_for_lines(terminal: Terminal, machine: TalkingMachine, pipe: TextIO) -> None:
    pipe.write("a line\n")
    pipe.flush()
    assert talk(terminal, machine, lambda it: None, {"type": "input"}) == 0


# --- what the user allows


class Asked(SimpleNamespace):
    """What the user gave on the command line."""

    def gave(self, name: str) -> bool:
        return bool(self.value(name))

    def value(self, name: str) -> Any:
        return getattr(self, name, None)


def allowed(**given: object) -> Any:
    return TerminalPermission(cast(Any, Asked(**given)))


@pytest.mark.parametrize("given", [{"usepdb": True}, {"trace": True}, {"smol_shell": True}])
def test_who_asks_for_debuggers_is_not_asked(given: dict[str, object]) -> None:
    assert allowed(**given).terminal
    assert allowed(**given).lines
    allowed(**given).require("test_it", -1)


def test_input_is_for_who_turns_capturing_off() -> None:
    assert not allowed(capture="fd").lines
    assert allowed(capture="no").lines
    assert not allowed(capture="no").terminal


@pytest.fixture
def permission_of_nothing(terminal: Terminal) -> None:
    cast(Any, terminal)._permission = allowed(capture="fd")


QUESTION = b"smol: test_a.py::test_it asks for this terminal: "


def sees_question(user: User) -> None:
    seen = b""
    while b"takes it back\r\n" not in seen:
        seen += user.sees(1)
    assert seen.startswith(QUESTION)


@pytest.mark.usefixtures("permission_of_nothing")
def test_the_user_is_asked_once_for_each_test(
    terminal: Terminal, machine: TalkingMachine, user: User
) -> None:
    before = user.mode()

    def guest(it: Guest) -> None:
        sees_question(user)
        user.type(b"\r")
        assert it.hear()["tty"]
        it.ports["terminal"].sendall(b"a")
        assert user.sees(1) == b"a"
        it.say(CLOSED)

    def again(it: Guest) -> None:
        assert it.hear()["tty"]
        it.ports["terminal"].sendall(b"b")
        assert user.sees(1) == b"b"
        it.say(CLOSED)

    talk(terminal, machine, guest)
    talk(terminal, machine, again)
    assert user.mode() == before


@pytest.mark.usefixtures("permission_of_nothing")
@pytest.mark.parametrize("key", [b"n", b" ", b"\x04", b"\x1d"])
def test_any_other_key_refuses(terminal: Terminal, machine: TalkingMachine, user: User, key: bytes) -> None:
    before = user.mode()

    def guest(it: Guest) -> None:
        sees_question(user)
        user.type(key)

    with pytest.raises(TerminalRefused, match=r"test_a\.py::test_it asked for the terminal"):
        talk(terminal, machine, guest)
    assert user.mode() == before
    assert told(terminal) == []


@pytest.mark.usefixtures("permission_of_nothing")
def test_no_answer_is_a_refusal(
    terminal: Terminal, machine: TalkingMachine, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_smol.machine.terminal_permission.ANSWER_TIME", 0.01)
    with pytest.raises(TerminalRefused):
        talk(terminal, machine, lambda it: None)


@pytest.mark.usefixtures("permission_of_nothing")
def test_what_was_typed_before_the_question_is_no_answer(
    terminal: Terminal, machine: TalkingMachine, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_smol.machine.terminal_permission.ANSWER_TIME", 0.5)
    user.type(b"\r\r\r")
    # The kernel hands over what is typed in a thread of its own, and echoes what has arrived.
    assert user.sees(6) == b"\r\n" * 3
    with pytest.raises(TerminalRefused):
        talk(terminal, machine, lambda it: None)


@pytest.mark.usefixtures("permission_of_nothing")
@pytest.mark.parametrize("message", [OPEN, {"type": "input"}], ids=["debugger", "input"])
def test_standard_input_has_ended_for_who_may_not_read_it(
    terminal: Terminal, machine: TalkingMachine, pipe: TextIO, message: Message
) -> None:
    pipe.write("a secret\n")
    pipe.flush()

    def guest(it: Guest) -> None:
        if message is OPEN:
            it.hear()
            it.say({"type": "input"})
        assert it.hear() == {"type": "line", "text": ""}
        if message is OPEN:
            it.say(CLOSED)

    talk(terminal, machine, guest, message)


@pytest.mark.parametrize("typed", [b"\x1d\x1d", b"p x\r\x1d\x1dmore"])
def test_the_escape_key_takes_the_terminal_back(
    terminal: Terminal, machine: TalkingMachine, user: User, typed: bytes
) -> None:
    before = user.mode()

    def guest(it: Guest) -> None:
        it.hear()
        it.ports["terminal"].sendall(b"\x1b[?1049h")  # an alternate screen
        user.sees(8)
        user.type(typed)
        assert user.sees(len(_IN_ORDER)) == _IN_ORDER

    with pytest.raises(TerminalTakenBack):
        talk(terminal, machine, guest)
    assert user.mode() == before
    assert told(terminal) == ["enter", "leave"]


@pytest.mark.parametrize("unfiltered", [False, True])
def test_control_strings_reach_only_terminals_that_trust(
    terminal: Terminal, machine: TalkingMachine, user: User, permission: Allowed, unfiltered: bool
) -> None:
    permission.unfiltered = unfiltered
    clipboard = b"\x1b]52;c;eA==\x07"

    def guest(it: Guest) -> None:
        it.hear()
        it.ports["terminal"].sendall(b"a" + clipboard + b"b")
        expected = b"a" + clipboard + b"b" if unfiltered else b"ab"
        assert user.sees(len(expected)) == expected
        it.say(CLOSED)

    talk(terminal, machine, guest)
