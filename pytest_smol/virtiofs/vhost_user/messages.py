"""vhost-user messages: their bytes, their numbers and what is negotiated with them.

Source: QEMU's "Vhost-user Protocol" specification (docs/interop/vhost-user.rst).
Only the messages that a vhost-user-fs front end sends are known; any other message is an
error. Nothing here does input or output.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from pytest_smol.errors import ProtocolError

__all__ = ["Decoder", "Message", "MessageType", "encode"]

VERSION, VERSION_MASK, REPLY, NEED_REPLY = 1, 3, 1 << 2, 1 << 3  # of the header's flags
VRING_IDX_MASK, VRING_NOFD_MASK = 0xFF, 1 << 8  # of the u64 that comes with a file descriptor
MAX_REGIONS = 8  # VHOST_MEMORY_BASELINE_NREGIONS: also the most file descriptors a message brings
MAX_PAYLOAD = 4096

# Packed, little-endian, and with no padding anywhere.
HEADER = struct.Struct("<III")  # request, flags, size of the payload
U64 = struct.Struct("<Q")
VRING_STATE = struct.Struct("<II")  # index, num
VRING_ADDR = struct.Struct("<IIQQQQ")  # index, flags, descriptor, used, available, logging
MEMORY_HEAD = struct.Struct("<II")  # number of regions, padding
MEMORY_REGION = struct.Struct("<QQQQ")  # guest address, size, user address, mmap offset
STATE_FD = struct.Struct("<II")  # direction, phase
LOG = struct.Struct("<QQ")  # size, offset


class MessageType(IntEnum):
    """VHOST_USER_*: the front-end's messages that are understood."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_LOG_BASE = 6
    SET_LOG_FD = 7
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    SET_DEVICE_STATE_FD = 42
    CHECK_DEVICE_STATE = 43


@dataclass(frozen=True)
class Message:
    """One message. ``fds`` are open and are closed by the receiver of the message."""

    type: MessageType
    flags: int
    payload: bytes
    fds: tuple[int, ...] = ()


def encode(type: MessageType, payload: bytes) -> bytes:
    """The reply to a message of that type."""
    return HEADER.pack(type, VERSION | REPLY, len(payload)) + payload


_KNOWN = frozenset(map(int, MessageType))


class Decoder:
    """Messages out of a byte stream, whatever pieces it comes in."""

    def __init__(self) -> None:
        self._buffer = b""
        self._fds: list[int] = []

    @property
    def missing(self) -> int:
        """Bytes until the message (or its header) is complete: reading no more keeps its fds apart."""
        return self._size() - len(self._buffer)

    def _size(self) -> int:
        if len(self._buffer) < HEADER.size:
            return HEADER.size
        _, _, size = HEADER.unpack_from(self._buffer)
        return HEADER.size + int(size)

    def feed(self, data: bytes, fds: Sequence[int] = ()) -> list[Message]:
        """Messages that ``data`` completes; ``fds`` came with these bytes.

        Raises ProtocolError for a header that is not valid and for more file descriptors than a message has.
        """
        self._buffer += data
        self._fds += fds
        if len(self._fds) > MAX_REGIONS:
            raise ProtocolError(
                f"the virtual machine sent {len(self._fds)} file descriptors with one message"
            )
        messages: list[Message] = []
        while len(self._buffer) >= HEADER.size:
            message = self._take()
            if message is None:
                break
            messages.append(message)
        return messages

    def _take(self) -> Message | None:
        request, flags, size = HEADER.unpack_from(self._buffer)
        if size > MAX_PAYLOAD or flags & VERSION_MASK != VERSION or flags & REPLY:
            raise ProtocolError(f"no vhost-user message: request {request}, flags {flags:#x}, {size} bytes")
        if request not in _KNOWN:
            raise ProtocolError(
                f"the virtual machine sent a vhost-user message that is not supported: request {request}"
            )
        end = HEADER.size + size
        if len(self._buffer) < end:
            return None
        message = Message(MessageType(request), flags, self._buffer[HEADER.size : end], tuple(self._fds))
        self._buffer, self._fds = self._buffer[end:], []
        return message

    def close(self) -> tuple[int, ...]:
        """File descriptors of a message that never was complete; the caller closes them."""
        fds, self._fds = tuple(self._fds), []
        return fds
