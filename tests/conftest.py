"""What all tests share."""

from __future__ import annotations

import signal

import pytest

pytest_plugins = ["pytester"]


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts background commands with SIGINT ignored, which their children inherit: the runs of
    # pytest that tests interrupt could not be interrupted.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
