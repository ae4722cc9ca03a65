"""The FUSE decoder and the tree behind it: any requests of a guest.

The invariant: a well-formed answer within the room for it, or none where none
is due; no more open files than allowed, and no hidden name in any answer.
"""

from __future__ import annotations

import errno
import os
import struct
import tempfile
from functools import cache
from pathlib import Path

from fuzz.support.supply import Supply
from pytest_smol.virtiofs.filesystem.tree import Tree
from pytest_smol.virtiofs.fuse import SILENT, Opcode
from pytest_smol.virtiofs.view import Content, HostPath, Link, View
from tests.unit.virtiofs.fake_guest import request

__all__ = ["run"]

SECRET = b".netrc"
MAX_FILES = 64
_NAMES = (b"p", b"d", b"a", b"c", b"l", b"fifo", SECRET, b"f", b"k", b"..", b".", b"", b"none", b"x" * 256)
_NODES = (*range(1, 12), 0, 1 << 63, (1 << 64) - 1)
_NUMBERS = (0, 1, 2, 3, 16, 24, 40, 152, 4096, 1 << 31, (1 << 32) - 1, 1 << 62, 1 << 63, (1 << 64) - 1)
_ROOMS = (0, 8, 15, 16, 17, 40, 128, 144, 200, 4096, 1 << 17, (1 << 20) + 16)
_OPCODES = tuple(int(opcode) for opcode in Opcode)
_EVERYDAY = (Opcode.LOOKUP, Opcode.GETATTR, Opcode.READ, Opcode.READDIR, Opcode.READDIRPLUS, Opcode.LSEEK)


@cache
def _top() -> tempfile.TemporaryDirectory[str]:
    """A small directory of the host's, with everything in it that a guest may and may not see."""
    made = tempfile.TemporaryDirectory(prefix="smol-fuzz-")
    top = Path(made.name)
    (top / "d").mkdir()
    for name in ("a", "d/c", SECRET.decode()):
        (top / name).write_text(name)
    (top / "l").symlink_to("a")
    os.mkfifo(top / "fifo")
    return made


def run(data: bytes) -> None:
    """All requests that ``data`` makes, to one guest's tree."""
    supply = Supply(data)
    tree = Tree(View({"/p": HostPath(_top().name), "/f": Content(b"text"), "/k": Link("f")}))
    try:
        while supply:
            ask(tree, _request(supply), _room(supply))
        assert len(tree._files._open) <= MAX_FILES
    finally:
        tree.close()


def _room(supply: Supply) -> int:
    return supply.choice(_ROOMS)


def _request(supply: Supply) -> bytes:
    kind = supply.number() % 16
    if kind == 0:
        return supply.take(supply.number())
    opcode = supply.choice(_EVERYDAY) if kind < 10 else supply.choice(_OPCODES)
    if kind == 10:
        opcode = supply.number(4)
    return request(opcode, supply.choice(_NODES), _body(supply, opcode))


def _body(supply: Supply, opcode: int) -> bytes:
    kind = supply.number() % 8
    if kind == 0:
        return supply.take(supply.number())
    if opcode == Opcode.LOOKUP:
        return supply.choice(_NAMES) + (b"\0" if kind > 1 else b"")
    if opcode in (Opcode.READ, Opcode.READDIR, Opcode.READDIRPLUS):
        size = supply.choice(_NUMBERS) % (1 << 32)
        return struct.pack("<QQI20x", supply.number(), supply.choice(_NUMBERS), size)
    if opcode == Opcode.INIT:
        return struct.pack("<IIII", supply.choice((7, 7, 6, 8)), supply.number(), 0, supply.number(4))
    if opcode == Opcode.BATCH_FORGET:
        count = supply.number() % 4
        rows = (struct.pack("<QQ", supply.choice(_NODES), supply.choice(_NUMBERS)) for _ in range(count))
        return struct.pack("<II", supply.choice(_NUMBERS) % (1 << 32), 0) + b"".join(rows)
    return struct.pack("<QQII", *(supply.choice(_NUMBERS) % (1 << bits) for bits in (64, 64, 32, 32)))


def ask(tree: Tree, data: bytes, room: int) -> None:
    """Send one request, and check what comes."""
    reply = tree.dispatch(data, room)
    whole = len(data) >= 40 and int.from_bytes(data[:4], "little") == len(data)
    if reply is None:
        silent = whole and int.from_bytes(data[4:8], "little") in SILENT
        assert silent or room < 16 or len(data) < 16, "no answer to a request that wants one"
        return
    assert 16 <= len(reply) <= room
    length, error = struct.unpack_from("<Ii", reply)
    assert length == len(reply)
    assert error == 0 or (length == 16 and -error in errno.errorcode)
    assert reply[8:16] == data[8:16]
    assert SECRET not in reply
