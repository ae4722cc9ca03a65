"""The runner's end of the control channel: blocking messages on a virtio-serial port."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, cast

from pytest_smol.guest.message_fitting import frame
from pytest_smol.protocol.wire import MAX_FRAME, Message, WireError, take_body

#: Reads one JSON value, and does not look for spaces around it.
_decode = json.JSONDecoder().raw_decode


class Port:
    """Messages over the file descriptor of a port."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = bytearray()
        #: The most bytes that a test's report may have; what is larger is shortened.
        self.largest_report = MAX_FRAME
        #: Called before each message; gives one that is sent with it, if any.
        self.before_message: Callable[[], Message | None] = lambda: None
        #: Called by :meth:`send`, before all else: a talk with the user is over then.
        self.end_talk: Callable[[], None] = lambda: None

    def send(self, kind: str, /, **fields: Any) -> None:
        """Send one message; waits for as long as the host does not read."""
        self.end_talk()
        self._send_marked({"type": kind, **fields})

    def _send_marked(self, message: Message) -> None:
        first = self.before_message()
        self.tell(*([] if first is None else [first]), message)

    def tell(self, *messages: Message) -> None:
        """Send ``messages`` as they are, also in a talk with the user."""
        self._write(b"".join(map(self._frame, messages)))

    def _frame(self, message: Message) -> bytes:
        return frame(message, self.largest_report if message["type"] == "report" else MAX_FRAME)

    def ask(self, kind: str, /, **fields: Any) -> Message:
        """Send one message and give the answer to it."""
        self._send_marked({"type": kind, **fields})
        return self.receive()

    def _write(self, frames: bytes) -> None:
        data = memoryview(frames)
        while data:
            data = data[os.write(self._fd, data) :]

    def receive(self) -> Message:
        """Wait for the next message. Raises WireError when the host has gone.

        The host is trusted: to check what it says would cost each fork more than to read it.
        """
        while (body := take_body(self._buffer)) is None:
            data = os.read(self._fd, 65536)
            if not data:
                raise WireError("the host closed the control channel")
            self._buffer += data
        return cast(Message, _decode(body.decode("ascii"))[0])
