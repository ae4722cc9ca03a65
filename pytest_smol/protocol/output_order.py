"""Puts what a guest says on several ports into the order in which it said it; no I/O.

Messages and output leave a guest over ports of their own, which are served in
any order. Where there is output, the guest writes a marker to its output ports
and sends ``mark`` before the next message: output before the marker was written
before that message, output after the marker after it. ``printing`` is a message
without content, which only marks a place. A guest that leaves markers out, or
writes some of its own, only puts its own output in the wrong place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from pytest_smol.protocol.wire import MARKER, Message

__all__ = ["OutputOrder"]

#: Takes the name of a stream and bytes of it.
Show = Callable[[str, bytes], None]

#: What a guest may mark.
STREAMS = ("stdout", "stderr")

#: The most output in bytes that is held back for a message, per stream.
MOST_HELD = 1 << 20


class OutputOrder:
    """Output and messages in; both out in the guest's order.

    While a guest writes no markers to a stream, its output is due when it comes.
    """

    def __init__(self) -> None:
        #: Those that wait to be taken, each with the names of the streams that have a marker for it.
        self.messages: deque[tuple[Message, tuple[str, ...]]] = deque()
        self._streams = {name: _Stream() for name in STREAMS}
        self._marked: tuple[str, ...] = ()

    def message(self, message: Message) -> None:
        """Take a message."""
        if message["type"] == "mark":
            self._marked = STREAMS if message["stderr"] else STREAMS[:1]
        else:
            self.messages.append((message, self._marked))
            self._marked = ()

    def output(self, name: str, data: bytes) -> bytes:
        """Take output of one of :data:`STREAMS`; gives the part of it that is no marker."""
        return self._streams[name].add(data)

    def next(self, show: Show) -> Message | None:
        """The next message; ``show`` is given the output that comes before it.

        None if there is none, or if it still :attr:`waits` for its markers.
        """
        while True:
            for name, stream in self._streams.items():
                for data in stream.due():
                    show(name, data)
            if not self.messages or self.waits:
                return None
            message, marked = self.messages.popleft()
            for name in marked:
                self._streams[name].pass_marker()
            if message["type"] != "printing":
                return message

    @property
    def waits(self) -> bool:
        """Whether a message is there, but not yet all the markers before it."""
        return bool(self.messages) and any(self._streams[name].lacks_marker for name in self.messages[0][1])

    def give_up(self) -> None:
        """Wait no more for markers of the streams that lack one: the guest leaves them out."""
        for stream in self._streams.values():
            stream.is_trusted = stream.is_trusted and not stream.lacks_marker

    def flush(self, show: Show) -> None:
        """Give all output that is left to ``show``: no message will come any more."""
        for name, stream in self._streams.items():
            for data in stream.rest():
                show(name, data)


class _Stream:
    """The output of one port: parts, with None where a marker stood."""

    def __init__(self) -> None:
        self._parts: deque[bytes | None] = deque()
        self._unfinished = b""
        self._held = 0
        #: How many messages were taken before their markers came.
        self._ahead = 0
        #: Whether the guest has always written its markers.
        self.is_trusted = True

    @property
    def lacks_marker(self) -> bool:
        """Whether a marker is to come before all that is here."""
        return self.is_trusted and None not in self._parts

    def add(self, data: bytes) -> bytes:
        *whole, last = (self._unfinished + data).split(MARKER)
        kept = _start_of_marker(last)
        self._unfinished = last[len(last) - kept :]
        texts = [*whole, last[: len(last) - kept]]
        for number, text in enumerate(texts):
            if number:
                self._add_marker()
            self._append(text)
        return b"".join(texts)

    def _add_marker(self) -> None:
        if self._ahead:  # its message is gone
            self._ahead -= 1
        else:
            self._parts.append(None)
            self._held += len(MARKER)

    def _append(self, text: bytes) -> None:
        if text:
            self._parts.append(text)
            self._held += len(text)

    def due(self) -> Iterator[bytes]:
        """What may be shown now: all up to a marker, or all if too much is held."""
        while self._parts and (self._held > MOST_HELD or self._parts[0] is not None):
            part = self._parts.popleft()
            self._held -= len(MARKER) if part is None else len(part)
            if part is not None:
                yield part

    def pass_marker(self) -> None:
        """The message of the first marker is taken."""
        if self._parts and self._parts[0] is None:
            self._parts.popleft()
            self._held -= len(MARKER)
        else:
            self._ahead += 1

    def rest(self) -> Iterator[bytes]:
        yield from filter(None, self._parts)
        if self._unfinished:
            yield self._unfinished
        self._parts.clear()
        self._unfinished, self._held = b"", 0


def _start_of_marker(text: bytes) -> int:
    """How many bytes at the end of ``text`` may be the start of a marker."""
    at = text.rfind(MARKER[:1], max(0, len(text) - len(MARKER) + 1))
    return len(text) - at if at >= 0 and MARKER.startswith(text[at:]) else 0
