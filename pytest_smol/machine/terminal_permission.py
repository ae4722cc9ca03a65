"""Whether a guest may have the user's terminal or standard input: only where the user asked for that.

The user asks on the command line, or in PYTEST_ADDOPTS: with ``--pdb``, ``--trace`` or ``--smol-shell`` for
the terminal, with ``-s`` for ``input()``. What the project's own settings say does not count. Anything else,
such as ``breakpoint()``, is a question to the user.
"""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager

from pytest_smol.errors import TerminalRefused
from pytest_smol.trust.settings_origin import UserArguments

__all__ = ["TerminalPermission"]

#: How long the user has for an answer, in seconds.
ANSWER_TIME = 60.0

#: What says yes: Enter, as a terminal in cbreak mode sends it.
_YES = (b"\r", b"\n")


class TerminalPermission:
    """What the user of this run allows. In a worker of pytest-xdist there is no terminal to allow."""

    def __init__(self, user: UserArguments) -> None:
        #: The user asked for debuggers or shells.
        self.terminal = any(user.gave(name) for name in ("usepdb", "trace", "smol_shell"))
        #: The user lets tests read standard input.
        self.lines = self.terminal or user.value("capture") == "no"
        #: What a guest sends to the terminal is not filtered.
        self.unfiltered = user.gave("smol_trust_terminal")
        self._granted: set[str] = set()

    def require(self, who: str, stdin: int) -> None:
        """Ask the user at the terminal ``stdin`` whether ``who`` may have it, once for each.

        Raises :class:`TerminalRefused` where the answer is no, or does not come within ANSWER_TIME.
        """
        if self.terminal or who in self._granted:
            return
        if not _answer(who, stdin):
            raise TerminalRefused(
                f"{who} asked for the terminal, and did not get it",
                remedy="--pdb, --trace and --smol-shell give the terminal without a question",
            )
        self._granted.add(who)


def _answer(who: str, stdin: int) -> bool:
    with _single_keys(stdin):
        sys.stdout.write(
            f"smol: {who} asks for this terminal: Enter lends it, any other key does not"
            f" ({ANSWER_TIME:g} s); Ctrl-] twice takes it back\n"
        )
        sys.stdout.flush()
        poll = select.poll()
        poll.register(stdin, select.POLLIN)
        return bool(poll.poll(ANSWER_TIME * 1000)) and _key(stdin) in _YES


def _key(stdin: int) -> bytes:
    try:
        return os.read(stdin, 1)
    except OSError:  # the terminal is gone
        return b""


@contextmanager
def _single_keys(fd: int) -> Iterator[None]:
    """The terminal ``fd`` without line editing and echo; what was typed before is no answer."""
    attributes = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd, termios.TCSAFLUSH)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, attributes)
