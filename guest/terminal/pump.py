"""Between a pty and the machine's port ``terminal``: a child of PID 1, out of the reach of tests.

The test process makes the pty and asks PID 1 to serve it, so that nothing is
forked from a process that may have threads, and what is typed arrives also
while a debugger keeps that process busy.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import struct
import termios

from pytest_smol.protocol.wire import TO_TERMINAL, Decoder, Message

__all__ = ["Pump", "ask_for_pump", "start_pump"]

_CHUNK = 1 << 15


def ask_for_pump(requests: socket.socket, master: int) -> socket.socket:
    """Have the pty ``master`` served. Shut the returned socket down to end that.

    It reads as ended once the host has all that was written to the pty.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        socket.send_fds(requests, [b"!"], [master, theirs.fileno()])
    return ours


def start_pump(requests: socket.socket, port: int) -> None:
    """Take one request from the socket ``requests``, and fork a process that serves it."""
    _, fds, _, _ = socket.recv_fds(requests, 1, 2)
    if len(fds) == 2 and os.fork() == 0:
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            Pump(fds[0], port, fds[1]).run()
        finally:
            os._exit(0)
    for fd in fds:
        os.close(fd)


class Pump:
    """Copies between ``master`` and ``port`` until ``done`` is at its end; all are file descriptors."""

    def __init__(self, master: int, port: int, done: int) -> None:
        self._master, self._port, self._done = master, port, done
        self._decoder = Decoder(TO_TERMINAL)
        self._typed = bytearray()
        self._handlers = {"typed": self._take_typed, "resize": self._resize}
        os.set_blocking(master, False)

    def run(self) -> None:
        """Serve to the end."""
        lives = True
        while lives:
            ready = self._wait()
            lives = self._done not in ready
            if ready.get(self._port, 0) & select.POLLIN:
                self._receive()
            if self._master in ready:
                lives = self._copy() and lives
        while self._show():  # a read of a pty takes in all that was written to its other side before
            continue

    def _wait(self) -> dict[int, int]:
        """What is ready. While the pty takes no more input, none is read: it waits on the host."""
        poll = select.poll()
        poll.register(self._done, select.POLLIN)
        poll.register(self._master, select.POLLIN | (select.POLLOUT if self._typed else 0))
        if not self._typed:
            poll.register(self._port, select.POLLIN)
        return dict(poll.poll())

    def _receive(self) -> None:
        for message in self._decoder.feed(os.read(self._port, _CHUNK)):
            self._handlers[message["type"]](message)

    def _take_typed(self, message: Message) -> None:
        self._typed += message["text"].encode("latin-1")

    def _resize(self, message: Message) -> None:
        """The kernel tells the processes in the foreground by SIGWINCH."""
        size = struct.pack("HHHH", message["rows"], message["columns"], 0, 0)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def _copy(self) -> bool:
        """Both ways, as far as it goes; False when the pty's other side is closed."""
        try:
            if self._typed:
                del self._typed[: os.write(self._master, self._typed)]
        except BlockingIOError:
            pass
        return self._show() is not None

    def _show(self) -> int | None:
        """Show what there is of output; gives its length in bytes, None when there will be no more."""
        try:
            data = os.read(self._master, _CHUNK)
        except BlockingIOError:
            return 0
        except OSError:  # EIO: no process has it open any more
            return None
        left = memoryview(data)
        while left:
            left = left[os.write(self._port, left) :]
        return len(data)
