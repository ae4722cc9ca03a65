"""Signals that end a run."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from _pytest.outcomes import Exit

from pytest_smol.host.signals import graceful_end, uninterrupted


def raise_signal(number: signal.Signals) -> None:
    """Send a signal to this process, as a user would; Python handles it before this returns."""
    os.kill(os.getpid(), number)


def test_sigterm_stops_pytest() -> None:
    with graceful_end():
        with pytest.raises(Exit) as caught:
            raise_signal(signal.SIGTERM)
        assert caught.value.returncode == 143
        assert "SIGTERM" in caught.value.msg
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_another_handler_stays() -> None:
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with graceful_end():
            raise_signal(signal.SIGTERM)
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_other_threads_change_nothing() -> None:
    """Only the main thread may set handlers."""
    seen = []

    def enter() -> None:
        with graceful_end(), uninterrupted():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]


def test_cleaning_is_not_interrupted() -> None:
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with uninterrupted():
        raise_signal(signal.SIGINT)
        raise_signal(signal.SIGTERM)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
