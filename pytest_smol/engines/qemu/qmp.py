"""QMP, QEMU's control protocol: a decoder without I/O and a small blocking client.

The protocol is QEMU's docs/interop/qmp-spec: one JSON object a line; a
greeting first, then for each command one ``return`` or ``error``, with
``event`` objects in between.
"""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Iterator
from typing import Any

from pytest_smol.errors import MachineDied, MachineTimeout, ProtocolError, QmpError

__all__ = ["LineDecoder", "QmpClient"]

#: QMP lines are short; a longer one is no QMP.
_MAX_LINE = 1 << 20

#: A guest can cause any number of these: of each no more are kept.
_REPEATED = ("BLOCK_IO_ERROR",)
_MOST_REPEATED = 16


class LineDecoder:
    """Bytes in, one JSON object a line out. Raises :class:`ProtocolError`."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Take ``data``; yield the objects whose lines it completes."""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            if len(line) > _MAX_LINE:
                raise ProtocolError("QEMU sent a QMP line that is too long")
            if line.strip():
                yield self._parsed(line)
        if len(self._buffer) > _MAX_LINE:
            raise ProtocolError("QEMU sent a QMP line that is too long")

    def _parsed(self, line: bytes) -> dict[str, Any]:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ProtocolError("QEMU sent a QMP line that is not JSON", evidence=repr(line[:200])) from error
        if not isinstance(message, dict):
            raise ProtocolError("QEMU sent a QMP line that is not an object", evidence=repr(line[:200]))
        return message


class QmpClient:
    """One QMP connection. Times are in seconds, deadlines on :func:`time.monotonic`'s clock."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.commands = 0
        #: Events received so far, oldest first.
        self.events: list[dict[str, Any]] = []
        self._decoder = LineDecoder()
        self._replies: list[dict[str, Any]] = []

    def fileno(self) -> int:
        """The descriptor of the connection, for poll(2)."""
        return self.sock.fileno()

    def negotiate(self, deadline: float) -> None:
        """Wait for the greeting and leave capabilities negotiation."""
        self._wait(lambda: any("QMP" in reply for reply in self._replies), deadline, "its greeting")
        self._replies.clear()
        self.execute("qmp_capabilities", deadline)

    def execute(self, command: str, deadline: float, **arguments: Any) -> Any:
        """Run ``command``; give what it returns.

        Raises :class:`QmpError` when QEMU refuses it, :class:`MachineDied` when
        the connection ends and :class:`MachineTimeout` at the deadline.
        """
        request = json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n"
        try:
            self.sock.sendall(request)
        except OSError as error:
            raise MachineDied(f"QEMU ended before it could be asked to {command}") from error
        self.commands += 1
        self._wait(lambda: bool(self._replies), deadline, f"the answer to {command}")
        reply = self._replies.pop(0)
        if "error" in reply:
            raise QmpError(f"QEMU refused {command}: {reply['error'].get('desc', reply['error'])}")
        return reply.get("return")

    def wait_migrated(self, deadline: float) -> None:
        """Wait for the MIGRATION event that says the migration is over (capability ``events``).

        Raises :class:`QmpError` if it failed.
        """
        self._wait(lambda: self._migration() in ("completed", "failed"), deadline, "the end of a migration")
        if self._migration() == "failed":
            reason = self.execute("query-migrate", deadline).get("error-desc", "no reason given")
            raise QmpError(f"QEMU could not transfer its state: {reason}")

    def _migration(self) -> str | None:
        changes = [event["data"]["status"] for event in self.events if event.get("event") == "MIGRATION"]
        return changes[-1] if changes else None

    def receive(self) -> bool:
        """Take what has arrived, without waiting; False at the end of the connection."""
        while True:
            try:
                data = self.sock.recv(65536)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            for message in self._decoder.feed(data):
                self._keep(message)

    def _keep(self, message: dict[str, Any]) -> None:
        kind = message.get("event")
        if kind is None:
            self._replies.append(message)
        elif (
            kind not in _REPEATED or sum(event.get("event") == kind for event in self.events) < _MOST_REPEATED
        ):
            self.events.append(message)

    def _wait(self, ready: Any, deadline: float, what: str) -> None:
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        while not ready():
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise MachineTimeout(f"QEMU did not send {what} in time")
            if not self.receive() and not ready():
                raise MachineDied(f"QEMU ended before it sent {what}")

    def close(self) -> None:
        """Close the connection; idempotent."""
        self.sock.close()
