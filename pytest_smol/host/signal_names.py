"""Names of signals by number."""

from __future__ import annotations

import signal

__all__ = ["signal_name"]


def signal_name(number: int) -> str:
    """``SIGKILL`` for 9; ``signal <number>`` for real-time and unknown signals."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
