"""A program on a pty, and input for it that is typed when it has written an expected text."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["Dialogue"]

#: The longest that a program may keep its user waiting, in seconds; generous, for a busy host.
PATIENCE = 90.0


class Dialogue:
    """Runs ``argv`` with a terminal of its own; a context manager that leaves nothing of it."""

    def __init__(self, argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> None:
        self._master, self._slave = os.openpty()
        self.resize(24, 80)
        self.process = subprocess.Popen(
            argv,
            cwd=cwd,
            env={**env, "TERM": "xterm"},
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - takes no lock
        )
        self._unread = ""
        #: All that the program has shown, with line ends as in a file.
        self.text = ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        """Type ``text``, which has ``\\r`` where the user presses Enter."""
        if text == "\x03":
            self._look()
        os.write(self._master, text.encode())

    def _look(self) -> None:
        """Take in what is shown until nothing more comes, as a user does before pressing Ctrl-C.

        CPython's readline notices a Ctrl-C only while it waits for a key: one
        that comes while the last key is still being handled is not acted on
        before the next (``readline_until_enter_or_signal`` of Modules/readline.c).
        """
        while select.select([self._master], [], [], 1)[0] and self._more(1):
            continue

    def expect(self, words: str) -> str:
        """Wait for ``words``; gives what was shown before, since the last that was waited for."""
        end = time.monotonic() + PATIENCE
        while words not in self._unread:
            assert self._more(end - time.monotonic()), f"{words!r} did not come after:\n{self.text}"
        before, _, self._unread = self._unread.partition(words)
        return before

    def _more(self, timeout: float) -> bool:
        """Take what comes next; False when nothing does, or will."""
        if timeout <= 0 or not select.select([self._master], [], [], min(timeout, 1))[0]:
            return timeout > 0 and self.process.poll() is None
        try:
            data = os.read(self._master, 65536).decode("utf-8", "replace").replace("\r\n", "\n")
        except OSError:
            return False
        self._unread += data
        self.text += data
        return True

    @property
    def is_raw(self) -> bool:
        """Whether the program has the terminal without its line editing."""
        return not termios.tcgetattr(self._slave)[3] & termios.ICANON

    def end(self) -> int:
        """Wait for the end; gives the exit status."""
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None and self._more(end - time.monotonic()):
            continue
        while select.select([self._master], [], [], 0)[0] and self._more(1):
            continue
        return self.process.wait(PATIENCE)

    def __enter__(self) -> Dialogue:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self._master)
        os.close(self._slave)
