"""The guest's side of a terminal: what serves a pty, standard input by lines, and the standard streams."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_smol.guest.port import Port
from pytest_smol.guest.terminal import pump as pump_module
from pytest_smol.guest.terminal.pty import HostInput, standard_input
from pytest_smol.guest.terminal.pump import Pump, ask_for_pump, start_pump
from pytest_smol.protocol.wire import FROM_GUEST, Decoder, Message, encode


class Serving:
    """A pump at work, in a thread: ``host`` is the other end of its port, ``slave`` the pty's."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        attributes = termios.tcgetattr(self.slave)
        attributes[1] &= ~termios.OPOST
        attributes[3] &= ~(termios.ICANON | termios.ECHO)
        termios.tcsetattr(self.slave, termios.TCSANOW, attributes)
        self.host, self._port = socket.socketpair()
        self.done, self._done = socket.socketpair()
        self.pump = Pump(self.master, self._port.fileno(), self._done.fileno())
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        self.pump.run()
        self._port.shutdown(socket.SHUT_WR)

    def send(self, kind: str, **fields: object) -> None:
        self.host.sendall(encode({"type": kind, **fields}))

    def shown(self) -> bytes:
        """All that is shown until the pump has ended."""
        data = b""
        while more := self.host.recv(1 << 16):
            data += more
        return data

    def close(self) -> None:
        self.done.close()
        self.thread.join(60)
        assert not self.thread.is_alive()
        for sock in (self.host, self._port, self._done):
            sock.close()
        for fd in (self.master, self.slave):
            os.close(fd)


@pytest.fixture
def serving() -> Iterator[Serving]:
    serving = Serving()
    yield serving
    serving.close()


def read(fd: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        assert select.select([fd], [], [], 60)[0]
        data += os.read(fd, count - len(data))
    return data


def test_what_is_typed_comes_out_of_the_pty(serving: Serving) -> None:
    serving.send("typed", text="p x\r\x04\xc3\xa9")
    assert read(serving.slave, 7) == b"p x\n\x04\xc3\xa9"


def test_more_than_the_pty_takes_waits(serving: Serving) -> None:
    def type_much() -> None:
        for _ in range(20):
            serving.send("typed", text="x" * 10_000)

    typist = threading.Thread(target=type_much)
    typist.start()
    os.write(serving.slave, b"alive")
    assert read(serving.host.fileno(), 5) == b"alive"
    assert read(serving.slave, 200_000) == b"x" * 200_000
    typist.join()


def test_a_new_size_reaches_the_pty(serving: Serving) -> None:
    serving.send("resize", rows=10, columns=200)
    serving.send("typed", text="x")
    read(serving.slave, 1)
    assert os.get_terminal_size(serving.slave) == (200, 10)


def test_all_that_was_written_is_shown_before_the_end(serving: Serving) -> None:
    text = b"0123456789" * 300
    os.write(serving.slave, text)
    serving.done.shutdown(socket.SHUT_WR)
    assert serving.shown() == text


def test_it_ends_with_the_last_who_has_the_pty_open(serving: Serving) -> None:
    os.write(serving.slave, b"last words")
    os.close(serving.slave)
    assert serving.shown() == b"last words"
    serving.slave = os.open("/dev/null", os.O_RDONLY)


def test_a_request_is_served_by_a_process_that_ends_when_told() -> None:
    master, slave = os.openpty()
    asked, asking = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    host, port = socket.socketpair()
    with asked, asking, host, port, ask_for_pump(asking, master) as talk:
        start_pump(asked, port.fileno())
        os.write(slave, b"hello")
        assert read(host.fileno(), 5) == b"hello"
        talk.shutdown(socket.SHUT_WR)
        assert talk.recv(1) == b""
        assert os.WIFEXITED(os.wait()[1])
    os.close(master)
    os.close(slave)


@pytest.mark.parametrize("count", [0, 1])
def test_a_request_that_is_none_is_passed_over(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """PID 1 must live, whatever a test sends it."""
    monkeypatch.setattr(pump_module.os, "fork", lambda: pytest.fail("it forked"))
    before = len(os.listdir("/proc/self/fd"))
    asked, asking = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with asked, asking:
        socket.send_fds(asking, [b"nonsense"], [0] * count)
        start_pump(asked, 0)
    assert len(os.listdir("/proc/self/fd")) == before


# --- standard input


class FakePort(Port):
    """Answers with lines; counts how often it was asked."""

    def __init__(self, *lines: str) -> None:
        super().__init__(-1)
        self.lines = list(lines)
        self.asked = 0

    def ask(self, kind: str, /, **fields: object) -> Message:
        assert kind == "input"
        self.asked += 1
        return {"type": "line", "text": self.lines.pop(0) if self.lines else ""}


@pytest.fixture
def leader(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this be the test process of a guest, and its standard input no terminal."""
    monkeypatch.setattr(os, "getsid", lambda pid: os.getpid())
    monkeypatch.setattr(os, "isatty", lambda fd: False)


@pytest.mark.usefixtures("leader")
def test_no_line_is_asked_for_before_it_is_read() -> None:
    port = FakePort("one\n", "two\n", "\xc3\xa9\n")
    stdin = standard_input(port)
    assert port.asked == 0
    assert stdin.readline() == "one\n"
    assert port.asked == 1
    assert stdin.readline() == "two\n"
    assert stdin.readline() == "é\n"
    assert stdin.readline() == ""
    assert port.asked == 4


@pytest.mark.usefixtures("leader")
def test_a_long_line_comes_in_pieces() -> None:
    port = FakePort("0123456789\n")
    raw = HostInput(port)
    assert [raw.read(4) for _ in range(4)] == [b"0123", b"4567", b"89\n", b""]
    assert port.asked == 2


def test_a_process_that_a_test_forked_asks_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getsid", lambda pid: os.getpid() + 1)
    null = os.open("/dev/null", os.O_RDONLY)
    real_read = os.read
    monkeypatch.setattr(os, "read", lambda fd, size: real_read(null if fd == 0 else fd, size))
    port = FakePort("a line\n")
    assert HostInput(port).read(10) == b""
    assert port.asked == 0
    os.close(null)


# --- the standard streams

#: A test process that opens the terminal, says what it sees there, and closes it again.
TALKER = """
import fcntl, os, signal, socket, sys, termios, time
from pytest_smol.guest.port import Port
from pytest_smol.guest.terminal.pty import Terminal, standard_input

def state():
    return [os.isatty(fd) for fd in range(3)]

port = Port(int(sys.argv[1]))
terminal = Terminal(port, socket.socket(fileno=int(sys.argv[2])))
sys.stdin = standard_input(port)
for turn in range(2):
    print("before", state())
    terminal.open()
    terminal.open()
    print("open", terminal.is_tty, state(), tuple(os.get_terminal_size(1)), os.ttyname(0) == os.ttyname(2))
    os.close(os.open("/dev/tty", os.O_RDWR))
    print("read", input("? "))
    try:
        os.write(1, b"wait\\n")
        signal.pause()
    except KeyboardInterrupt:
        print("interrupted")
    if turn:
        port.send("done")  # closes on its own
    else:
        terminal.close()
        terminal.close()
    print("after", state(), flush=True)
os.read(int(sys.argv[1]), 1)
"""


def test_the_standard_streams_are_the_terminal_while_it_is_open(tmp_path: Path) -> None:
    asked, asking = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control, its_control = socket.socketpair()
    host, port = socket.socketpair()
    with asked, asking, control, its_control, host, port, (tmp_path / "out").open("wb+") as out:
        fds = [its_control.fileno(), asking.fileno()]
        process = subprocess.Popen(
            [sys.executable, "-c", TALKER, *map(str, fds)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            pass_fds=fds,
            start_new_session=True,
            cwd=Path(__file__).parents[3],
        )
        decoder = Decoder(FROM_GUEST)
        heard: list[Message] = []

        def hear() -> Message:
            while not heard:
                heard.extend(decoder.feed(control.recv(1 << 16)))
            return heard.pop(0)

        shown = b""
        for _ in range(2):
            assert hear() == {"type": "terminal", "open": True}
            control.sendall(encode({"type": "terminal", "tty": True, "rows": 30, "columns": 100}))
            start_pump(asked, port.fileno())
            host.sendall(encode({"type": "typed", "text": "typed\r"}))
            while not shown.endswith(b"wait\r\n"):
                shown += host.recv(1 << 16)
            host.sendall(encode({"type": "typed", "text": "\x03"}))
            assert hear() == {"type": "terminal", "open": False}
            shown += host.recv(1 << 16)
            assert shown.endswith(b"interrupted\r\n")
            os.wait()
        assert hear() == {"type": "done"}
        control.shutdown(socket.SHUT_WR)
        assert process.wait(60) == 0
        out.seek(0)
        apart = "[False, False, False]"
        assert out.read().decode().splitlines() == [f"before {apart}", f"after {apart}"] * 2
    lines = shown.decode().split("\r\n")
    assert lines.count("open True [True, True, True] (100, 30) True") == 2
    assert lines.count("read typed") == 2
