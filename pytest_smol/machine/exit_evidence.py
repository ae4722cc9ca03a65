"""From what a dead machine left behind to one sentence that names the cause. Pure."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["ExitEvidence", "Tail", "cause", "remedy", "signal_name"]


class Tail:
    """The last ``limit`` bytes of a stream."""

    def __init__(self, limit: int = 64 << 10) -> None:
        self._limit = limit
        self._data = bytearray()
        self.total = 0

    def add(self, data: bytes) -> None:
        self.total += len(data)
        self._data += data
        if len(self._data) > 2 * self._limit:
            del self._data[: -self._limit]

    def lines(self, count: int) -> list[str]:
        """The last ``count`` lines, decoded, without line ends."""
        text = bytes(self._data[-self._limit :]).decode("utf-8", "replace")
        return text.replace("\r", "").removesuffix("\n").split("\n")[-count:] if text else []

    def text(self, count: int = 40) -> str:
        return "\n".join(self.lines(count)).strip("\n")


@dataclass(frozen=True)
class ExitEvidence:
    """What was left: console text, QMP events, the ``died`` message, QEMU's wait status and stderr."""

    console: str = ""
    events: Sequence[dict[str, Any]] = ()
    died: dict[str, Any] | None = None
    returncode: int | None = None
    stderr: str = ""


_PANIC = re.compile(r"Kernel panic - not syncing: (.+)")
_OUT_OF_MEMORY = re.compile(r"Out of memory: Killed process \d+ \(([^)]*)\)")


def cause(remains: ExitEvidence) -> str:
    """One clause that names why the machine, or the test process in it, is no more."""
    panic = _PANIC.search(remains.console)
    if panic:
        return f"the guest kernel panicked: {panic.group(1).strip()}"
    if remains.died is not None:
        return _process_death(remains.died, remains.console)
    return _shutdown(remains.events) or _emulator_death(remains)


def remedy(remains: ExitEvidence) -> str:
    """What the user can do about the death; empty where that is for the test's author to say."""
    if _OUT_OF_MEMORY.search(remains.console):
        return "if the tests need more memory, raise --smol-memory or the memory of their smol marker"
    if remains.returncode == -signal.SIGBUS:
        return "where the guest's memory is kept no space may be left: free some in TMPDIR and XDG_CACHE_HOME"
    return ""


def _process_death(died: dict[str, Any], console: str) -> str:
    if died["signal"] is None:
        return f"the test process exited with status {died['status']} before the test was over"
    because = " because the guest ran out of memory" if _OUT_OF_MEMORY.search(console) else ""
    return f"the test process was killed by {signal_name(died['signal'])}{because}"


def _shutdown(events: Sequence[dict[str, Any]]) -> str | None:
    reasons = [event.get("data", {}).get("reason") for event in events if event.get("event") == "SHUTDOWN"]
    for reason in reasons:
        if reason in _SHUTDOWN_REASONS:
            return _SHUTDOWN_REASONS[reason]
    return None


#: QEMU's ShutdownCause (qapi/run-state.json) as a sentence's end.
_SHUTDOWN_REASONS = {
    "guest-shutdown": "the guest powered itself off",
    "guest-reset": "the guest rebooted itself",
    "guest-panic": "the guest kernel panicked",
    "host-signal": "QEMU was asked to end by a signal on the host",
}


def _emulator_death(remains: ExitEvidence) -> str:
    if remains.returncode is None:
        return "QEMU closed its connections"
    if remains.returncode < 0:
        return f"QEMU was killed by {signal_name(-remains.returncode)} on the host"
    last = remains.stderr.strip().splitlines()[-1:]
    return f"QEMU ended with status {remains.returncode}" + (f": {last[0]}" if last else "")


def signal_name(number: int) -> str:
    """``SIGKILL`` for 9; real-time and unknown signals by number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
