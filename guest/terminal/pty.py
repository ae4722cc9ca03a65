"""The user's terminal, or the lines of the host's standard input, for debuggers and shells in the guest."""

from __future__ import annotations

import fcntl
import io
import os
import signal
import socket
import struct
import sys
import termios
from contextlib import suppress
from typing import Any

from pytest_smol.guest.port import Port
from pytest_smol.guest.terminal.pump import ask_for_pump

__all__ = ["HostInput", "Terminal", "standard_input"]

_STANDARD = (0, 1, 2)

#: asm-generic/termbits.h: erase whole characters of UTF-8 where the terminal edits lines itself.
_IUTF8 = 0o40000


def _is_test_process() -> bool:
    """Whether this is the runner, which leads its session, and no process that a test has forked."""
    return os.getsid(0) == os.getpid()


class HostInput(io.RawIOBase):
    """The host's standard input, a line at a time; or the terminal, while it is open.

    It stands for ``sys.stdin``, so that ``input()`` works with ``-s``. No
    line is asked for before it is read: the tests of other machines, and
    those that run on the host, read the same input.
    """

    name = "<stdin>"
    mode = "rb"

    def __init__(self, port: Port) -> None:
        self._port = port
        self._left = b""

    def readable(self) -> bool:
        """As :meth:`io.IOBase.readable`."""
        return True

    def fileno(self) -> int:
        """The descriptor of standard input."""
        return 0

    def isatty(self) -> bool:
        """Whether standard input is the terminal now."""
        return os.isatty(0)

    def readinto(self, buffer: Any) -> int:
        """Read from the terminal, or a line of the host's standard input."""
        from_host = _is_test_process() and not os.isatty(0)
        data = self._line(len(buffer)) if from_host else os.read(0, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _line(self, size: int) -> bytes:
        if not self._left:
            self._left = self._port.ask("input")["text"].encode("latin-1")
        data, self._left = self._left[:size], self._left[size:]
        return data


def standard_input(port: Port) -> io.TextIOWrapper:
    """What to take for ``sys.stdin``."""
    usual = sys.__stdin__
    encoding, errors = (usual.encoding, usual.errors) if usual is not None else ("utf-8", "surrogateescape")
    return io.TextIOWrapper(io.BufferedReader(HostInput(port)), encoding, errors)


class _Pty:
    """A terminal of the guest's: the controlling one of the test process, from its first use on.

    It is never hung up, as that would end the process.
    """

    def __init__(self) -> None:
        self._master, self._slave = os.openpty()
        with suppress(OSError):  # a test that has taken another does without job control
            fcntl.ioctl(self._slave, termios.TIOCSCTTY, 0)
        self._attributes = termios.tcgetattr(self._slave)
        self._attributes[0] |= _IUTF8
        self._device = os.fstat(self._slave).st_rdev
        self._saved: list[int] = []

    def enter(self, pumps: socket.socket, rows: int, columns: int) -> None:
        """Put the terminal in the place of the standard streams."""
        termios.tcsetattr(self._slave, termios.TCSANOW, self._attributes)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._pump = ask_for_pump(pumps, self._master)
        self._saved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in _STANDARD]
        for fd in _STANDARD:
            os.dup2(self._slave, fd)

    def leave(self) -> None:
        """Put back what the terminal took the place of, and wait until the host has all its output."""
        for fd, saved in zip(_STANDARD, self._saved, strict=True):
            if os.fstat(fd).st_rdev == self._device:  # pytest's capture may have taken its place already
                os.dup2(saved, fd)
            os.close(saved)
        with self._pump as pump:
            pump.shutdown(socket.SHUT_WR)
            pump.recv(1)

    def to_foreground(self) -> None:
        """Make this process the one that keys act on, which a shell has taken over for its jobs."""
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
        with suppress(OSError):
            os.tcsetpgrp(self._slave, os.getpgrp())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTTOU])


class Terminal:
    """Asks the host for its terminal, and gives it back. ``pumps`` leads to PID 1 (pump.py)."""

    def __init__(self, port: Port, pumps: socket.socket) -> None:
        self._port = port
        self._pumps = pumps
        self._pty: _Pty | None = None
        self._open = False
        self._output: _Output | None = None
        #: Whether the standard streams are a terminal now.
        self.is_tty = False
        port.end_talk = self.close

    def open(self) -> None:
        """From here on this process talks with the user, and no clock of the host's runs. Idempotent.

        Where the host has no terminal, its standard input is left to :class:`HostInput`.
        """
        if self._open or not _is_test_process():
            return
        _flush()
        answer = self._port.ask("terminal", open=True)
        self._open = True
        self._output = _Output() if sys.__stdout__ is not None else None
        if answer["tty"]:
            try:
                self._enter(answer["rows"], answer["columns"])
            except OSError:  # a test can have taken away what it needs: then there are lines
                self.close()

    def _enter(self, rows: int, columns: int) -> None:
        self._pty = self._pty or _Pty()
        self._pty.enter(self._pumps, rows, columns)
        self.is_tty = True

    def close(self) -> None:
        """Give the terminal back. Idempotent."""
        if not self._open or not _is_test_process():
            return
        self._open = False
        _flush()
        if self._output is not None:
            self._output.restore()
        if self._pty is not None and self.is_tty:
            self.is_tty = False
            self._pty.to_foreground()
            self._pty.leave()
        self._port.send("terminal", open=False)

    def follow(self, debugger: Any) -> None:
        """Open whenever ``debugger`` prompts: one that goes on and stops again is not announced."""
        loop = debugger.cmdloop

        def cmdloop(*args: Any, **kwargs: Any) -> Any:
            self.open()
            return loop(*args, **kwargs)

        debugger.cmdloop = cmdloop


class _Output:
    """Standard output as Python has it on a terminal: by lines, and nothing of ours in the way of Ctrl-C.

    What notices output (streams.py) is Python code: interrupted in it, a line would be written twice.
    """

    def __init__(self) -> None:
        usual: Any = sys.__stdout__
        self._usual = usual
        file = io.BufferedWriter(io.FileIO(1, "w", closefd=False))
        self._lines = io.TextIOWrapper(file, usual.encoding, usual.errors, line_buffering=True)
        self._replace(self._usual, self._lines)

    def restore(self) -> None:
        self._lines.flush()
        self._replace(self._lines, self._usual)

    @staticmethod
    def _replace(old: Any, new: Any) -> None:
        """Pytest's capture may have put something of its own in one of the places."""
        if sys.stdout is old:
            sys.stdout = new
        sys.__stdout__ = new  # type: ignore[misc]


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()
