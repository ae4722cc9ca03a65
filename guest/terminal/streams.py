"""Writes markers into the guest's output where messages were sent, so that the host can order both."""

from __future__ import annotations

import fcntl
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from pytest_smol.protocol.wire import MARKER, Message

#: The lowest number of a file descriptor that is opened here.
_HIGH = 200


class Streams:
    """The output ports of the test process.

    With ``always`` a marker is written to both streams for each message. Without, pytest
    captures what tests print, and as every marker costs an exit of the virtual machine, one is written to
    standard output only, and only after Python has written there. Duplicates of the
    ports are kept, as pytest and tests replace fds 1 and 2. Their numbers are high, so that
    files which a test opens get the same numbers as on the host.
    """

    def __init__(self, port: Any, always: bool) -> None:
        self._port = port
        self._always = always
        self._written = False
        numbers: Sequence[int] = (1, 2) if always else (1,)
        self._ports = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _HIGH) for number in numbers]

    def mark(self) -> Message | None:
        """Write markers after all that was printed; returns the message that announces them, if any.

        Never raises: a test may have closed the streams.
        """
        flush()
        if not (self._always or self._written):
            return None
        self._written = False
        return self._write_markers()

    def _write_markers(self) -> Message:
        for port in self._ports:
            try:
                os.write(port, MARKER)
            except OSError:
                continue
        return {"type": "mark", "stderr": self._always}

    def begin(self) -> None:
        """Before Python writes to standard output: mark the place as after all messages so far."""
        if not self._written:
            self._written = True
            self._port.tell(self._write_markers(), {"type": "printing"})


class Whole(io.FileIO):
    """The raw file of fd ``number`` whose write() writes everything, as that of a file or a pipe does.

    One write(2) to a port takes 32 KiB at most (Linux, drivers/char/virtio_console.c), and an
    unbuffered text stream of Python's ignores a short write.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)

    def write(self, data: Any) -> int:
        """Write all of ``data``, in as many writes as the port takes; gives its length in bytes."""
        left = memoryview(data).cast("B")
        size = len(left)
        while left:
            left = left[os.write(self.fileno(), left) :]
        return size


class _Noticed(Whole):
    """Standard output that calls ``begin`` before each write."""

    def __init__(self, begin: Callable[[], None]) -> None:
        super().__init__(1)
        self._begin = begin

    def write(self, data: Any) -> int:
        self._begin()
        return super().write(data)


def flush() -> None:
    """Flush Python's standard output and error; those that are closed or missing are skipped."""
    for stream in (sys.__stdout__, sys.__stderr__):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            continue


def mark_output(port: Any, uncaptured: bool) -> None:
    """Write markers where ``port`` sends messages; ``uncaptured``: output is shown at once (``-s``)."""
    streams = Streams(port, uncaptured)
    port.before_message = streams.mark
    _write_whole()
    old: Any = sys.stdout
    if uncaptured:
        old.reconfigure(line_buffering=True)  # as Python does on a terminal
    else:
        file = io.BufferedWriter(_Noticed(streams.begin))
        sys.stdout = sys.__stdout__ = io.TextIOWrapper(  # type: ignore[misc]
            file, old.encoding, old.errors, write_through=old.write_through, line_buffering=old.line_buffering
        )


def _write_whole() -> None:
    """Replace standard streams without a buffer (``python -u``) by such that write everything."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        old: Any = getattr(sys, name)
        if isinstance(old.buffer, io.FileIO):
            raw: Any = Whole(number)
            raw.name = old.name
            new: Any = io.TextIOWrapper(raw, old.encoding, old.errors, write_through=True)
            new.mode = old.mode
            setattr(sys, name, new)
            setattr(sys, f"__{name}__", new)
