"""The user's terminal, lent to a guest for a debugger or a shell; without one, lines of standard input.

While it is lent, keys go to the guest unseen (Ctrl-C among them), but for Ctrl-] twice, which takes it back.
What the guest writes goes to the terminal through a filter: a debugger's line editing needs cursor movements,
and nothing needs control strings. It is given back in whatever way the guest, or this process, goes on.
"""

from __future__ import annotations

import math
import os
import pdb  # noqa: T100 - handed to hooks, never run
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from pytest_smol.errors import ProtocolError, TerminalTakenBack
from pytest_smol.machine.machine import Machine
from pytest_smol.machine.terminal_filter import EscapeKey, TerminalFilter
from pytest_smol.machine.terminal_permission import TerminalPermission
from pytest_smol.protocol.wire import Message, encode

__all__ = ["TALK", "Terminal"]

#: The types of messages that :meth:`Terminal.serve` is for.
TALK = ("terminal", "input")

#: How much is read at once, in bytes, and the longest line that is given to a guest in one piece.
_CHUNK = 1 << 14

#: What a terminal sends for Ctrl-D, the end of input.
_END_OF_INPUT = b"\x04"

#: Soft reset (DECSTR), which shows the cursor and resets colours and character sets; no mouse reports, no
#: bracketed paste, no alternate screen. See xterm's ctlseqs.
_IN_ORDER = b"\x1b[!p\x1b[?1000;1002;1003;1006l\x1b[?2004l\x1b[?1049l\x1b[0m\r\n"

#: The size of a terminal that does not say it, in rows and columns.
_USUAL_SIZE = (24, 80)


class Terminal:
    """What standard input and output of this process are, for the guests of one run of pytest."""

    def __init__(self, config: pytest.Config, permission: TerminalPermission) -> None:
        self._config = config
        self._permission = permission
        self._lines = _Lines()

    def serve(self, machine: Machine, message: Message, who: str, deadline: float) -> float:
        """Do what a message of :data:`TALK` asks for, until the guest says that it is over.

        ``who`` is the node id of the test that asks, or what else the guest does. Gives the seconds by which
        ``deadline``, on time.monotonic()'s clock, is to be extended: while the user talks with the guest on
        a terminal no time passes, while lines of anything else are waited for it does.

        Raises :class:`TerminalRefused` and :class:`TerminalTakenBack` by the user's decision,
        :class:`MachineTimeout` at the deadline, and :class:`MachineError` when the machine dies meanwhile
        or says anything else.
        """
        begin = time.monotonic()
        capture: Any = self._config.pluginmanager.get_plugin("capturemanager")
        if capture is not None:  # the next capture takes standard input again
            capture.suspend_global_capture(in_=True)
        is_tty = _is_tty()
        until = math.inf if is_tty else deadline
        if message["type"] == "input":
            self._send_line(machine, until)
        elif message["open"]:
            self._talk(machine, who, until, is_tty)
        else:
            raise ProtocolError("the guest gave back a terminal that it did not have")
        return time.monotonic() - begin if is_tty else 0.0

    def _talk(self, machine: Machine, who: str, until: float, is_tty: bool) -> None:
        rows, columns = _size()
        stdin = _descriptor("stdin")
        if is_tty and stdin is not None:
            self._permission.require(who, stdin)
        with self._plugins_know(), ExitStack() as stack:
            if is_tty:
                stack.enter_context(_lent(machine, self._permission.unfiltered))
            machine.send({"type": "terminal", "tty": is_tty, "rows": rows, "columns": columns})
            while (message := machine.receive(until)) != {"type": "terminal", "open": False}:
                if is_tty or message["type"] != "input":
                    raise ProtocolError(f"the guest sent a {message['type']!r} message during a talk")
                self._send_line(machine, until)

    @contextmanager
    def _plugins_know(self) -> Iterator[None]:
        """Tell plugins on this side, such as those that limit a test's time, as pytest's debugger does."""
        debugger = pdb.Pdb(readrc=False)
        self._config.hook.pytest_enter_pdb(config=self._config, pdb=debugger)
        try:
            yield
        finally:
            self._config.hook.pytest_leave_pdb(config=self._config, pdb=debugger)

    def _send_line(self, machine: Machine, until: float) -> None:
        """Send the next line; where the user does not let tests read standard input, its end."""
        line = self._lines.read(machine, until) if self._permission.lines else b""
        machine.send({"type": "line", "text": line.decode("latin-1")})


def _descriptor(name: str) -> int | None:
    """The file descriptor of a standard stream, None where it has none."""
    try:
        return int(getattr(sys, name).fileno())
    except (AttributeError, OSError, ValueError):
        return None


def _is_tty() -> bool:
    """Whether there is a terminal to type on and to look at; with less, Python edits no lines either."""
    ends = (_descriptor("stdin"), _descriptor("stdout"))
    return all(fd is not None and os.isatty(fd) for fd in ends)


def _size() -> tuple[int, int]:
    """The rows and columns of the terminal that standard output is."""
    try:
        size = os.get_terminal_size(_descriptor("stdout") or 1)
    except OSError:
        return _USUAL_SIZE
    return size.lines or _USUAL_SIZE[0], size.columns or _USUAL_SIZE[1]


class _Lines:
    """Standard input by lines. What was read beyond one is kept for the next that asks."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._ended = False

    def read(self, machine: Machine, until: float) -> bytes:
        """The next line with its end, or what there is of it; empty at the end of input.

        Raises :class:`MachineDied` if ``machine`` dies before the line is there, and
        :class:`MachineTimeout` if it is not there at ``until``, on time.monotonic()'s clock.
        """
        fd = _descriptor("stdin")
        self._ended = fd is None
        if fd is not None:
            machine.watch(fd, select.POLLIN, lambda: self._fill(fd))
            try:
                while not (self._ended or b"\n" in self._buffer or len(self._buffer) >= _CHUNK):
                    machine.attend(until)
            finally:
                machine.unwatch(fd)
        end = self._buffer.find(b"\n", 0, _CHUNK)
        line = bytes(self._buffer[: end + 1 if end >= 0 else _CHUNK])
        del self._buffer[: len(line)]
        return line

    def _fill(self, fd: int) -> None:
        data = _read(fd)
        self._buffer += data
        self._ended = not data


def _read(fd: int) -> bytes:
    """What can be read of ``fd``; nothing at its end, or when its terminal is gone."""
    try:
        return os.read(fd, _CHUNK)
    except OSError:
        return b""


@contextmanager
def _lent(machine: Machine, unfiltered: bool) -> Iterator[None]:
    """Standard input and output connected to the port ``terminal`` of ``machine``."""
    stdin, stdout = _descriptor("stdin"), _descriptor("stdout")
    assert stdin is not None
    assert stdout is not None
    sys.stdout.flush()
    with ExitStack() as stack:
        keys = stack.enter_context(_Keys(machine, stdin))
        passed = (lambda data: data) if unfiltered else TerminalFilter().feed
        stack.enter_context(
            machine.lend_terminal(lambda data: _write(stdout, passed(data)), lambda: _ends_of_lines(stdin))
        )
        stack.enter_context(_raw(stdin, stdout))
        stack.enter_context(_resizes(machine, keys))
        yield


def _write(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


@contextmanager
def _raw(fd: int, output: int) -> Iterator[None]:
    """The terminal ``fd`` without any processing of its own; what was typed before is not lost.

    Where it ends with an error the guest has put nothing in order, so that is done here.
    """
    attributes = termios.tcgetattr(fd)
    try:
        tty.setraw(fd, termios.TCSADRAIN)
        yield
    except BaseException:
        _write(output, _IN_ORDER)
        termios.tcflush(fd, termios.TCIFLUSH)  # answers to what the guest asked the terminal
        raise
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, attributes)


@contextmanager
def _ends_of_lines(fd: int) -> Iterator[None]:
    """Let lines that this process writes meanwhile begin at the left, as they do on no raw terminal."""
    raw = termios.tcgetattr(fd)
    processing = [*raw[:1], raw[1] | termios.OPOST, *raw[2:]]
    termios.tcsetattr(fd, termios.TCSADRAIN, processing)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, raw)


@contextmanager
def _resizes(machine: Machine, keys: _Keys) -> Iterator[None]:
    """Tell the guest when the window changes its size."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def note(number: int, frame: object) -> None:
        with suppress(BlockingIOError):
            os.write(writer, b"!")

    def tell() -> None:
        os.read(reader, _CHUNK)
        rows, columns = _size()
        keys.send({"type": "resize", "rows": rows, "columns": columns})

    machine.watch(reader, select.POLLIN, tell)
    previous = signal.signal(signal.SIGWINCH, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, previous or signal.SIG_DFL)
        machine.unwatch(reader)
        os.close(reader)
        os.close(writer)


class _Keys:
    """Passes on what is typed on the terminal ``stdin``. A context manager: leaving it ends that.

    While the guest takes nothing, no more is read.
    """

    def __init__(self, machine: Machine, stdin: int) -> None:
        self._machine = machine
        self._stdin = stdin
        self._frames: deque[bytes] = deque()
        self._ended = False
        self._escape = EscapeKey()

    def __enter__(self) -> _Keys:
        # One of its own, as the machine watches the port itself for what comes.
        self._writer = os.dup(self._machine.terminal.fileno())
        self._machine.watch(self._stdin, select.POLLIN, self._typed)
        return self

    def __exit__(self, *_: object) -> None:
        self._machine.unwatch(self._stdin)
        self._machine.unwatch(self._writer)
        os.close(self._writer)

    def send(self, message: Message) -> None:
        """Send a message of ``TO_TERMINAL``, now or as soon as the guest takes it."""
        self._frames.append(encode(message))
        if len(self._frames) == 1:
            self._machine.watch(self._writer, select.POLLOUT, self._flush)

    def _typed(self) -> None:
        typed = _read(self._stdin)
        self._ended = not typed
        data, escaped = self._escape.feed(typed or _END_OF_INPUT)
        if escaped:
            raise TerminalTakenBack("the user took the terminal back (Ctrl-] twice), which ends the test")
        if data:
            self._machine.unwatch(self._stdin)  # until that has gone
            self.send({"type": "typed", "text": data.decode("latin-1")})

    def _flush(self) -> None:
        try:
            while self._frames:
                sent = self._machine.terminal.send(self._frames[0])
                self._frames[0] = self._frames[0][sent:]
                if not self._frames[0]:
                    self._frames.popleft()
        except BlockingIOError:
            return
        except OSError:  # the machine is dead: the next receive() raises its error
            self._frames.clear()
        self._machine.unwatch(self._writer)
        if not self._ended:
            self._machine.watch(self._stdin, select.POLLIN, self._typed)
