"""The runner's end of the control channel: blocking messages on a virtio-serial port."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from pytest_smol.wire import TO_GUEST, Decoder, Message, WireError, encode


class Port:
    """Messages over the file descriptor of a port."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._decoder = Decoder(TO_GUEST)
        self._received: list[Message] = []
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
        self._write(b"".join(map(encode, messages)))

    def ask(self, kind: str, /, **fields: Any) -> Message:
        """Send one message and give the answer to it."""
        self._send_marked({"type": kind, **fields})
        return self.receive()

    def _write(self, frames: bytes) -> None:
        data = memoryview(frames)
        while data:
            data = data[os.write(self._fd, data) :]

    def receive(self) -> Message:
        """Wait for the next message. Raises WireError when the host has gone."""
        while not self._received:
            data = os.read(self._fd, 65536)
            if not data:
                raise WireError("the host closed the control channel")
            self._received += self._decoder.feed(data)
        return self._received.pop(0)
