"""QEMU's half of a vhost-user connection and the guest's of its rings, with real sockets and eventfds."""

from __future__ import annotations

import array
import ctypes
import os
import select
import socket
import struct
from collections.abc import Sequence

from pytest_smol.virtiofs.backend import FsBackend
from pytest_smol.virtiofs.filesystem.tree import Tree
from pytest_smol.virtiofs.server import Server
from pytest_smol.virtiofs.vhost_user import session as vu
from pytest_smol.virtiofs.vhost_user.messages import MessageType as T
from pytest_smol.virtiofs.vhost_user.transport import VhostUserTransport
from tests.unit.virtiofs.fake_guest import GUEST, BytesMemory, Driver, request

PATIENCE = 60.0  # seconds until a test gives up; none waits that long when all is well


class FrontEnd:
    """QEMU's side of the connection, and the guest's of the request queue."""

    def __init__(
        self, server: Server, tree: Tree, base: int = 0, victim: tuple[int, BytesMemory, int] | None = None
    ) -> None:
        """``victim`` is a process, its memory and where that lies in it; this process where none is given."""
        ours, self.sock = socket.socketpair()
        self.sock.settimeout(PATIENCE)
        if victim is None:
            memory = BytesMemory()
            victim = os.getpid(), memory, ctypes.addressof(ctypes.c_char.from_buffer(memory.bytes))
        pid, self.memory, self.origin = victim
        self.backend: FsBackend = server.attach(VhostUserTransport(ours, pid), tree)
        self.driver = Driver(self.memory, num=16, origin=self.origin)
        self.base = base
        self.kick = self.call = -1

    def send(self, type: int, payload: bytes = b"", *fds: int, flags: int = 1) -> None:
        self.send_part(struct.pack("<III", type, flags, len(payload)) + payload, fds)

    def send_part(self, data: bytes, fds: Sequence[int]) -> None:
        """Some bytes of a message, with file descriptors."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.sock.sendmsg([data], rights)

    def receive(self, type: int) -> bytes:
        got, flags, size = struct.unpack("<III", self._exactly(12))
        assert (got, flags) == (type, 5)
        return self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.sock.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def ask(self, type: int, payload: bytes = b"", *fds: int) -> bytes:
        self.send(type, payload, *fds)
        return self.receive(type)

    def negotiate(self) -> None:
        assert self.ask(T.GET_FEATURES) == struct.pack("<Q", vu.FEATURES)
        self.send(T.SET_FEATURES, struct.pack("<Q", vu.FEATURES))
        self.send(T.SET_PROTOCOL_FEATURES, struct.pack("<Q", vu.PROTOCOL_FEATURES))
        fd = os.memfd_create("ram")
        table = struct.pack("<IIQQQQ", 1, 0, GUEST, len(self.memory.bytes), self.origin, 0)
        self.send(T.SET_MEM_TABLE, table, fd, flags=9)
        os.close(fd)
        assert self.receive(T.SET_MEM_TABLE) == bytes(8)

    def start(self, ring: int = 1) -> None:
        desc, used, avail = self.driver.addresses
        self.kick, self.call = os.eventfd(0), os.eventfd(0)
        self.send(T.SET_VRING_NUM, struct.pack("<II", ring, self.driver.num))
        self.send(T.SET_VRING_BASE, struct.pack("<II", ring, self.base))
        self.send(T.SET_VRING_ADDR, struct.pack("<IIQQQQ", ring, 0, desc, used, avail, 0))
        self.send(T.SET_VRING_CALL, struct.pack("<Q", ring), self.call)
        self.send(T.SET_VRING_KICK, struct.pack("<Q", ring), self.kick)
        self.send(T.SET_VRING_ENABLE, struct.pack("<II", ring, 1))

    def fuse(self, opcode: int, nodeid: int = 1, body: bytes = b"", room: int = 4096) -> tuple[int, bytes]:
        """Send one request the way a driver does; the reply's error and payload."""
        self.driver.next_buffer = 0x10000  # nothing else is under way
        reply = self.driver.request([request(opcode, nodeid, body)], [16, room])
        before = self.driver.used_idx
        os.eventfd_write(self.kick, 1)
        wait(self.call)
        os.eventfd_read(self.call)
        while self.driver.used_idx == before:  # that call was the last answer's, which was seen without it
            wait(self.call)
            os.eventfd_read(self.call)
        _, size = self.driver.used_elem(self.driver.used_idx - 1)
        length, error, _ = struct.unpack("<IiQ", self.driver.bytes_at(reply[0], 16))
        assert length == size
        return -error, self.driver.bytes_at(reply[1], size - 16)

    def close(self) -> None:
        self.backend.close()
        self.sock.close()
        for fd in (self.kick, self.call):
            if fd >= 0:
                os.close(fd)


def wait(fd: int) -> None:
    assert select.select([fd], [], [], PATIENCE)[0], "nothing came"
