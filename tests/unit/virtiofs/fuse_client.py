"""The guest kernel's half of FUSE: sends requests to a tree and takes its replies apart."""

from __future__ import annotations

import os
import struct

import pytest

from pytest_smol.virtiofs import fuse
from pytest_smol.virtiofs.filesystem.tree import Tree
from pytest_smol.virtiofs.fuse import Opcode
from tests.unit.virtiofs.fake_guest import request

ROOM = 1 << 17
ALL = 0xFFFF_FFFF


def fails(*numbers: int):
    known = "|".join(map(str, numbers))
    return pytest.raises(OSError, match=rf"^\[Errno ({known})\]")


class Client:
    """The guest kernel's side: sends requests and takes replies apart."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree

    def call(self, opcode: int, nodeid: int = 1, body: bytes = b"", room: int = ROOM) -> bytes:
        reply = self.tree.dispatch(request(opcode, nodeid, body, unique=opcode + 5), room)
        assert reply is not None
        assert len(reply) <= room
        length, error, unique = struct.unpack_from("<IiQ", reply)
        assert (length, unique) == (len(reply), opcode + 5)
        if error:
            assert len(reply) == 16
            raise OSError(-error, os.strerror(-error))
        return reply[16:]

    def init(self, minor: int = 38, flags: int = ALL, major: int = 7) -> dict[str, int]:
        reply = self.call(Opcode.INIT, 0, struct.pack("<IIII48x", major, minor, 1 << 20, flags))
        return fuse.INIT_OUT.unpack(reply)

    def lookup(self, parent: int, name: bytes) -> dict[str, int]:
        reply = self.call(Opcode.LOOKUP, parent, name + b"\0")
        assert len(reply) == 128
        return {**fuse.ENTRY_OUT.unpack(reply), **fuse.ATTR.unpack(reply[40:])}

    def walk(self, path: str) -> int:
        nodeid = 1
        for name in os.fsencode(path).strip(b"/").split(b"/"):
            nodeid = self.lookup(nodeid, name)["nodeid"]
        return nodeid

    def getattr(self, nodeid: int) -> dict[str, int]:
        reply = self.call(Opcode.GETATTR, nodeid, bytes(16))
        assert len(reply) == 104
        return {**fuse.ATTR_OUT.unpack(reply), **fuse.ATTR.unpack(reply[16:])}

    def read(self, nodeid: int, offset: int = 0, size: int = 1 << 16, room: int = ROOM) -> bytes:
        return self.call(Opcode.READ, nodeid, fuse.READ_IN.pack({"offset": offset, "size": size}), room)

    def page(
        self, nodeid: int, offset: int = 0, size: int = 4096, plus: bool = False
    ) -> list[tuple[int, dict[str, int], bytes]]:
        opcode = Opcode.READDIRPLUS if plus else Opcode.READDIR
        data = self.call(opcode, nodeid, fuse.READ_IN.pack({"offset": offset, "size": size}))
        assert len(data) <= size
        rows = []
        while data:
            entry = fuse.ENTRY_OUT.unpack(data)["nodeid"] if plus else 0
            data = data[128:] if plus else data
            dirent = fuse.DIRENT.unpack(data)
            rows.append((entry, dirent, data[24 : 24 + dirent["namelen"]]))
            data = data[fuse.dirent_size(dirent["namelen"]) :]
        return rows

    def list(
        self, nodeid: int, size: int = 4096, plus: bool = False
    ) -> list[tuple[int, dict[str, int], bytes]]:
        rows: list[tuple[int, dict[str, int], bytes]] = []
        while page := self.page(nodeid, rows[-1][1]["off"] if rows else 0, size, plus):
            rows += page
        return rows

    def forget(self, nodeid: int, nlookup: int = 1) -> None:
        assert self.tree.dispatch(request(Opcode.FORGET, nodeid, struct.pack("<Q", nlookup)), 0) is None
