"""vhost-user: any bytes in any pieces to the decoder, and any messages to a back end with real descriptors.

The invariant: messages or a ProtocolError, the same ones in whatever pieces
they come, never more kept than one message, and no descriptor left open.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Sequence

from fuzz.support.supply import Supply
from pytest_smol.errors import ProtocolError
from pytest_smol.virtiofs.backend import FsBackend
from pytest_smol.virtiofs.filesystem.tree import Tree
from pytest_smol.virtiofs.vhost_user.messages import HEADER, MAX_PAYLOAD, Decoder, Message, MessageType
from pytest_smol.virtiofs.vhost_user.messages import MessageType as T
from pytest_smol.virtiofs.vhost_user.transport import VhostUserFsBackend
from pytest_smol.virtiofs.view import Content, View
from tests.unit.virtiofs.fake_guest import GUEST, QEMU, BytesMemory, request

__all__ = ["run"]

SIZE = 1 << 16
_TYPES = tuple(int(kind) for kind in MessageType)
_FLAGS = (1, 9, 1, 9, 5, 0, 2, 3)
_RINGS = (0, 1, 1, 1, 2, 255)
_NUMS = (0, 1, 2, 4, 8, 3, 1024, 1 << 16, (1 << 32) - 1)
_PLACES = (QEMU, QEMU + 0x100, QEMU + 0x200, QEMU + SIZE - 16, QEMU + SIZE, 0, GUEST, (1 << 64) - 16)
_STATES = (T.SET_VRING_NUM, T.SET_VRING_BASE, T.GET_VRING_BASE, T.SET_VRING_ENABLE)
_EVENTFDS = (T.SET_VRING_KICK, T.SET_VRING_CALL, T.SET_VRING_ERR)
_MOST_MESSAGES = 40


class _Memory(BytesMemory):
    """Memory of which a table may announce more than there is, as a process's."""

    def _at(self, address: int, length: int) -> int:
        if not QEMU <= address <= QEMU + len(self.bytes) - length:
            raise ProtocolError("guest memory cannot be reached")
        return address - QEMU


class _Loop:
    """A server without a thread: what is watched is looked at when :meth:`turn` is called."""

    def __init__(self) -> None:
        self._watched: dict[int, FsBackend] = {}

    def watch(self, fd: int, backend: FsBackend) -> None:
        self._watched[fd] = backend

    def unwatch(self, fd: int) -> None:
        self._watched.pop(fd, None)

    def closed(self, backend: FsBackend) -> None:
        assert not self._watched, "a closed back end is watched"

    def turn(self) -> None:
        for fd, backend in list(self._watched.items()):
            backend.ready(fd)


def run(data: bytes) -> None:
    """``data`` as a stream where its first byte is odd, else as messages to a back end."""
    supply = Supply(data)
    if supply.number() % 2:
        _decode(supply)
    else:
        _serve(supply)


# The decoder


def _decode(supply: Supply) -> None:
    sizes = [supply.number() % 32 for _ in range(supply.number() % 8)]
    stream = supply.rest()
    assert _decoded(stream, sizes) == _decoded(stream, [])


def _decoded(stream: bytes, sizes: Sequence[int]) -> list[Message] | None:
    decoder, found = Decoder(), []
    try:
        for size in (*sizes, len(stream)):
            found += decoder.feed(stream[:size])
            stream = stream[size:]
            assert 0 < decoder.missing <= HEADER.size + MAX_PAYLOAD
    except ProtocolError:
        return None
    return found


# The backend


def _serve(supply: Supply) -> None:
    before = len(os.listdir("/proc/self/fd"))
    ours, theirs = socket.socketpair()
    theirs.settimeout(0)
    loop = _Loop()
    memory = _Memory(SIZE)
    struct.pack_into("<QIHH", memory.bytes, 0, GUEST + 0x1000, 56, 1, 1)
    struct.pack_into("<QIHH", memory.bytes, 16, GUEST + 0x2000, 256, 2, 0)
    memory.bytes[0x1000:0x1038] = request(3, 1, bytes(16))
    backend = VhostUserFsBackend(loop, ours, memory, Tree(View({"/f": Content(b"x")})))
    try:
        for _ in range(_MOST_MESSAGES):
            if not supply or backend.failure is not None:
                break
            _send(theirs, supply)
            struct.pack_into("<H", memory.bytes, 0x102, supply.number() % 4)
            loop.turn()
            loop.turn()
    except (BrokenPipeError, ConnectionResetError):
        pass  # the back end has given up
    backend.close()
    theirs.close()
    assert backend.failure is None or isinstance(backend.failure, ProtocolError), backend.failure
    assert len(os.listdir("/proc/self/fd")) == before, "a descriptor was left open"


def _send(sock: socket.socket, supply: Supply) -> None:
    kind = supply.choice(_TYPES)
    payload = _payload(kind, supply)
    head = HEADER.pack(kind, supply.choice(_FLAGS), len(payload))
    fds = [os.eventfd(supply.number() % 2, os.EFD_NONBLOCK) for _ in range(_descriptors(kind, supply))]
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        sock.sendmsg([head + payload], rights)
        sock.recv(1 << 16)
    except BlockingIOError:
        pass  # there was no answer
    finally:
        for fd in fds:
            os.close(fd)


def _descriptors(kind: int, supply: Supply) -> int:
    wanted = 1 if kind in (*_EVENTFDS, T.SET_MEM_TABLE, T.SET_DEVICE_STATE_FD) else 0
    return wanted if supply.number() % 8 else supply.number() % 10


def _payload(kind: int, supply: Supply) -> bytes:
    if supply.number() % 16 == 0:
        return supply.take(supply.number())
    if kind in _STATES:
        return struct.pack("<II", supply.choice(_RINGS), supply.choice(_NUMS))
    if kind in _EVENTFDS:
        return struct.pack("<Q", supply.choice(_RINGS) | (supply.number() % 4 == 3) << 8)
    if kind == T.SET_VRING_ADDR:
        usual = QEMU, QEMU + 0x200, QEMU + 0x100
        places = usual if supply.number() % 4 else [supply.choice(_PLACES) for _ in range(3)]
        return struct.pack("<IIQQQQ", supply.choice(_RINGS), 0, *places, 0)
    if kind == T.SET_MEM_TABLE:
        count = supply.number() % 10
        rows = (
            (GUEST, supply.choice((SIZE, SIZE, 0, 16, (1 << 64) - 1)), supply.choice(_PLACES), 0),
        ) * count
        return struct.pack("<II", count, 0) + b"".join(struct.pack("<QQQQ", *row) for row in rows)
    if kind in (T.SET_FEATURES, T.SET_PROTOCOL_FEATURES):
        return struct.pack("<Q", 1 << supply.number() % 64)
    if kind == T.SET_DEVICE_STATE_FD:
        return struct.pack("<II", supply.number() % 3, supply.number() % 2)
    return bytes(16) if kind == T.SET_LOG_BASE else b""
