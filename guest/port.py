"""The runner's end of the control channel: blocking messages on a virtio-serial port."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, cast

from pytest_smol.guest.message_fitting import frame
from pytest_smol.protocol.wire import MAX_FRAME, Message, WireError, take_body

#: Decodes one JSON value; unlike json.loads it does not look for spaces around the value.
_decode = json.JSONDecoder().raw_decode


class Port:
    """Sends and receives messages over ``fd``, the file descriptor of a virtio-serial port."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = bytearray()
        #: The largest size of a report's frame, in bytes; a larger report is shortened.
        self.largest_report = MAX_FRAME
        #: Called before each message; the message that it returns, if any, is sent first.
        self.before_message: Callable[[], Message | None] = lambda: None
        #: Called first by :meth:`send`: a dialogue with the user ends before the message is sent.
        self.end_talk: Callable[[], None] = lambda: None

    def send(self, kind: str, /, **fields: Any) -> None:
        """Send one message; blocks while the host does not read."""
        self.end_talk()
        self._send_marked({"type": kind, **fields})

    def _send_marked(self, message: Message) -> None:
        first = self.before_message()
        self.tell(*([] if first is None else [first]), message)

    def tell(self, *messages: Message) -> None:
        """Send ``messages`` and nothing else, without ending a dialogue with the user."""
        self._write(b"".join(map(self._frame, messages)))

    def _frame(self, message: Message) -> bytes:
        return frame(message, self.largest_report if message["type"] == "report" else MAX_FRAME)

    def ask(self, kind: str, /, **fields: Any) -> Message:
        """Send one message without ending a dialogue with the user, and return the next one received."""
        self._send_marked({"type": kind, **fields})
        return self.receive()

    def _write(self, frames: bytes) -> None:
        data = memoryview(frames)
        while data:
            data = data[os.write(self._fd, data) :]

    def receive(self) -> Message:
        """Wait for the next message. Raises WireError when the host has closed the port.

        Its fields are not checked: the host is trusted, and each fork would pay for the checks.
        """
        while (body := take_body(self._buffer)) is None:
            data = os.read(self._fd, 65536)
            if not data:
                raise WireError("the host closed the control channel")
            self._buffer += data
        return cast(Message, _decode(body.decode("ascii"))[0])
