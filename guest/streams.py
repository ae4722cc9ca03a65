"""Marks in the guest's output where a message was sent, so that the host can put both in order."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Sequence
from typing import Any

from pytest_smol.wire import MARKER

#: The least number for a descriptor of ours.
_HIGH = 200


class Streams:
    """The output ports of the test process, by their descriptors ``numbers``.

    Duplicates are kept, as pytest and tests put other files in their place. Their
    numbers are high, so that a test is given those that it is given at home.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        self._ports = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _HIGH) for number in numbers]

    def mark(self) -> None:
        """Write the marker to each port, behind all that was printed. Never raises: a test may close them."""
        flush()
        for port in self._ports:
            try:
                os.write(port, MARKER)
            except OSError:
                continue


def flush() -> None:
    """Write out what Python has buffered of standard output and error."""
    for stream in (sys.__stdout__, sys.__stderr__):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            continue


def mark_output(port: Any, uncaptured: bool) -> None:
    """Mark where ``port`` sends messages, if what tests print is shown as it comes (``uncaptured``).

    Where it is captured there is next to nothing to put in order, and a marker
    costs each message another turn of QEMU's.
    """
    port.before_message = Streams((1, 2) if uncaptured else ()).mark
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if uncaptured and reconfigure is not None:
        reconfigure(line_buffering=True)  # as Python does on a terminal
