"""Signals that end a run: SIGTERM cleans up as Ctrl-C does, and nothing interrupts the cleaning."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

__all__ = ["graceful_end", "uninterrupted"]


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextmanager
def graceful_end() -> Iterator[None]:
    """SIGTERM stops pytest, with the exit status 143 that a shell shows for it, instead of killing it.

    A second one kills. Changes nothing where somebody else handles SIGTERM.
    """
    ours = _in_main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_DFL)
    pytest.exit(f"ended by {signal.Signals(number).name}", returncode=128 + number)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore SIGINT and SIGTERM for a moment: an impatient user presses Ctrl-C more than once."""
    previous = {}
    if _in_main_thread():
        # A signal mask would not do: another thread would take the signal, and Python hand it to this one.
        previous = {
            number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)
        }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler or signal.SIG_DFL)
