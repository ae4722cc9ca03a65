"""Why a machine died, in one clause: from its console, its PID 1's report and its engine's reason. Pure."""

from __future__ import annotations

import re
from typing import Any

from pytest_smol.host.signal_names import signal_name

__all__ = ["Tail", "cause", "remedy"]


class Tail:
    """The last ``limit`` bytes of a stream."""

    def __init__(self, limit: int = 64 << 10) -> None:
        self._limit = limit
        self._data = bytearray()
        self.total = 0

    def add(self, data: bytes) -> None:
        """Take more of the stream."""
        self.total += len(data)
        self._data += data
        if len(self._data) > 2 * self._limit:
            del self._data[: -self._limit]

    def lines(self, count: int) -> list[str]:
        """The last ``count`` lines, decoded, without line ends."""
        text = bytes(self._data[-self._limit :]).decode("utf-8", "replace")
        return text.replace("\r", "").removesuffix("\n").split("\n")[-count:] if text else []

    def text(self, count: int = 40) -> str:
        """The last ``count`` lines as one text, without empty lines around it."""
        return "\n".join(self.lines(count)).strip("\n")


_PANIC = re.compile(r"Kernel panic - not syncing: (.+)")
_OUT_OF_MEMORY = re.compile(r"Out of memory: Killed process \d+ \(([^)]*)\)")


def cause(console: str, died: dict[str, Any] | None, engine_reason: str) -> str:
    """One clause that names why the machine, or the test process in it, is no more.

    ``console`` is the end of the console's text, ``died`` the message of PID 1 that the
    test process ended, and ``engine_reason`` why the engine says that the machine ended.
    """
    panic = _PANIC.search(console)
    if panic:
        return f"the guest kernel panicked: {panic.group(1).strip()}"
    return _process_death(died, console) if died is not None else engine_reason


def remedy(console: str) -> str:
    """What the user can do about a death with this ``console``; empty where that is for the test's author."""
    if _OUT_OF_MEMORY.search(console):
        return "if the tests need more memory, raise --smol-memory or the memory of their smol marker"
    return ""


def _process_death(died: dict[str, Any], console: str) -> str:
    if died["signal"] is None:
        return f"the test process exited with status {died['status']} before the test was over"
    because = " because the guest ran out of memory" if _OUT_OF_MEMORY.search(console) else ""
    return f"the test process was killed by {signal_name(died['signal'])}{because}"
