"""What a guest writes, shown on the host's terminal: at once, or when it is its turn."""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Callable
from typing import Any, TextIO

import pytest

from pytest_smol.protocol.wire import Message
from pytest_smol.pytest_private import terminal_writer, write_without_columns
from pytest_smol.reports.text import OutputLimit

__all__ = ["Screen"]

#: The most text in characters that is held back.
MOST_HELD = 1 << 20

#: What each text that is held back counts for, beyond its length.
_HELD = 256

_COLOUR = re.compile(r"(\x1b\[[0-9;:]*m)")


class Screen:
    """Shows a guest's output and what its plugins write to the terminal; ``clean`` makes text safe.

    Of one test no more than ``output_limit`` characters are shown.
    """

    def __init__(
        self, config: pytest.Config, clean: Callable[[str], str], output_limit: int = 16 << 20
    ) -> None:
        self._config = config
        #: How much of what the running test writes is shown.
        self.limit = OutputLimit(output_limit)
        #: Makes text of a guest safe to show.
        self.clean = clean
        utf8 = codecs.getincrementaldecoder("utf-8")
        self._decoders = {name: utf8("replace") for name in ("stdout", "stderr")}
        self._held: list[tuple[Callable[..., None], tuple[Any, ...]]] | None = None
        self._held_size = 0
        #: Whether what tests write to standard error is shown as it comes, and not in their reports.
        self.uncaptured = config.getoption("capture", "fd") != "fd"

    def terminal_properties(self) -> dict[str, Any]:
        """What a guest has to know to write as the host would: colours, and the width in columns."""
        writer = terminal_writer(self._config)
        if writer is None:
            return {}
        return {
            "markup": bool(writer.hasmarkup),
            "code_highlight": bool(writer.code_highlight),
            "width": int(writer.fullwidth),
            "tty": bool(getattr(self._reporter, "isatty", False)),
        }

    @property
    def _reporter(self) -> Any:
        return self._config.pluginmanager.get_plugin("terminalreporter")

    # --- show -----------------------------------------------------------------------------

    def output(self, name: str, data: bytes) -> None:
        """Show what a guest wrote to its standard output or error.

        Standard error is for ``-s`` and its like alone: else it holds the last
        words of a crash, which its report quotes.
        """
        if (name == "stdout" or self.uncaptured) and not self.limit.reached:
            text = self.limit.within(self._decoders[name].decode(data))
            self._in_turn(len(text), _write, getattr(sys, name), self.clean(text))

    def report(self, message: Message) -> None:
        """Show what a plugin of the guest wrote to its terminal reporter: a ``screen`` message."""
        text = self.limit.within(message["text"])
        self._in_turn(len(text), self._write_to_reporter, self.clean(text), message["fresh_line"])

    def _write_to_reporter(self, text: str, fresh_line: bool) -> None:
        writer = terminal_writer(self._config)
        if writer is None:
            return
        if fresh_line:
            self._reporter.ensure_newline()
        # The writer keeps count of columns, in which colours take no place.
        for number, part in enumerate(_COLOUR.split(text)):
            if number % 2:
                write_without_columns(writer, part)
            else:
                writer.write(part)
        writer.flush()

    # --- hold back ------------------------------------------------------------------------

    def hold(self) -> None:
        """Hold back what comes from now on, until :meth:`release`."""
        if self._held is None:
            self._held, self._held_size = [], 0

    def release(self) -> None:
        """Show what was held back, and all that comes at once again; idempotent."""
        held, self._held = self._held or [], None
        for show, arguments in held:
            show(*arguments)

    def _in_turn(self, size: int, show: Callable[..., None], *arguments: Any) -> None:
        self._held_size += size + _HELD
        if self._held is not None and self._held_size > MOST_HELD:
            self.release()
        if self._held is None:
            show(*arguments)
        else:
            self._held.append((show, arguments))


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
    except UnicodeEncodeError:  # the host's terminal has fewer characters than the guest's port
        encoding = stream.encoding or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()
