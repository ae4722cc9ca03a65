"""Marks in the guest's output where a message was sent, so that the host can put both in order."""

from __future__ import annotations

import fcntl
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from pytest_smol.protocol.wire import MARKER, Message

#: The least number for a descriptor of ours.
_HIGH = 200


class Streams:
    """The output ports of the test process.

    With ``always`` each message is marked, in both streams. Without, pytest captures what
    tests print, and a marker costs each message a turn of QEMU's: then only standard
    output is marked, where Python has written to it. Duplicates of the ports are
    kept, as pytest and tests put other files in their place. Their numbers are high, so
    that a test is given those that it is given at home.
    """

    def __init__(self, port: Any, always: bool) -> None:
        self._port = port
        self._always = always
        self._written = False
        numbers: Sequence[int] = (1, 2) if always else (1,)
        self._ports = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _HIGH) for number in numbers]

    def mark(self) -> Message | None:
        """Mark the streams behind all that was printed; gives what to say with the next message.

        Never raises: a test may close the streams.
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
        """Python is about to write to standard output: keep that behind the messages so far."""
        if not self._written:
            self._written = True
            self._port.tell(self._write_markers(), {"type": "printing"})


class Whole(io.FileIO):
    """A standard stream to which all is written, as to a file or a pipe.

    A port takes 32 KiB at a time (Linux, drivers/char/virtio_console.c), and Python without
    buffers would lose the rest.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        while left:
            left = left[os.write(self.fileno(), left) :]
        return size


class _Noticed(Whole):
    """Standard output; tells before it writes."""

    def __init__(self, begin: Callable[[], None]) -> None:
        super().__init__(1)
        self._begin = begin

    def write(self, data: Any) -> int:
        self._begin()
        return super().write(data)


def flush() -> None:
    """Write out what Python has buffered of standard output and error."""
    for stream in (sys.__stdout__, sys.__stderr__):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            continue


def mark_output(port: Any, uncaptured: bool) -> None:
    """Mark where ``port`` sends messages; ``uncaptured`` tells that what tests print is shown as it comes."""
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
    """Let standard streams that have no buffer (python -u) write all that they are given."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        old: Any = getattr(sys, name)
        if isinstance(old.buffer, io.FileIO):
            raw: Any = Whole(number)
            raw.name = old.name
            new: Any = io.TextIOWrapper(raw, old.encoding, old.errors, write_through=True)
            new.mode = old.mode
            setattr(sys, name, new)
            setattr(sys, f"__{name}__", new)
