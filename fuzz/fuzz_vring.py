"""The walker of virtqueues: any rings, changed by their driver between two looks at them.

The invariant: requests served or a ProtocolError, no transfer outside of guest
memory, no request larger than MAX_CHAIN_BYTES, and no more requests than asked for.
"""

from __future__ import annotations

import struct

from fuzz.support.supply import Supply
from pytest_smol.errors import ProtocolError
from pytest_smol.virtiofs.virtio.vring import MAX_CHAIN_BYTES, Addresses, Vring
from tests.unit.virtiofs.fake_guest import GUEST, QEMU, BytesMemory

__all__ = ["run"]

SIZE = 1 << 16
LIMIT = 16
DESC, AVAIL, USED = 0, 0x1000, 0x2000

_WHERE = (GUEST, GUEST + SIZE, 0, QEMU, 1 << 63, (1 << 64) - 1)
_LENGTHS = (0, 1, 16, 40, 4096, SIZE, SIZE + 1, 1 << 20, (1 << 32) - 1)
_FLAGS = (0, 1, 2, 3, 4, 5, 7, 0xFFFF)


def run(data: bytes) -> None:
    """One ring, looked at until ``data`` is used up."""
    supply = Supply(data)
    memory = BytesMemory(SIZE)
    num = 1 << supply.number() % 5 if supply.number() % 8 else supply.number(4)
    try:
        vring = Vring(memory, num, _places(supply), supply.number(2))
    except ProtocolError:
        return
    served = 0
    while supply:
        _write(memory, supply, min(num, 16))
        memory.order.clear()
        try:
            count = _look(vring, supply)
        except ProtocolError:
            return
        served += count
        assert (vring.last_used - served) % (1 << 16) == 0, "an answer is missing, or was made up"


def _places(supply: Supply) -> Addresses:
    if supply.number() % 8:
        return Addresses(QEMU + DESC, QEMU + USED, QEMU + AVAIL)
    return Addresses(*(QEMU + supply.number(3) - SIZE for _ in range(3)))


def _write(memory: BytesMemory, supply: Supply, num: int) -> None:
    """What a driver writes: some descriptors, entries of the available ring, its flags and idx."""
    for _ in range(supply.number() % 8):
        address = supply.choice(_WHERE) + supply.number(2) - 0x8000 * (supply.number() % 2)
        length = supply.choice(_LENGTHS) or supply.number(2)
        row = address % (1 << 64), length, supply.choice(_FLAGS), supply.number()
        struct.pack_into("<QIHH", memory.bytes, DESC + 16 * (supply.number() % num), *row)
    for slot in range(supply.number() % 8 % (num + 1)):
        struct.pack_into("<H", memory.bytes, AVAIL + 4 + 2 * slot, supply.number())
    struct.pack_into("<H", memory.bytes, AVAIL, supply.number(2))
    (idx,) = struct.unpack_from("<H", memory.bytes, AVAIL + 2)
    step = supply.number()
    struct.pack_into("<H", memory.bytes, AVAIL + 2, (idx + step if step < 128 else supply.number(2)) % 65536)


def _look(vring: Vring, supply: Supply) -> int:
    """One look at the ring; how many requests were served."""
    rooms: list[int] = []

    def answer(request: bytes, room: int) -> bytes | None:
        assert len(request) + room <= MAX_CHAIN_BYTES
        rooms.append(room)
        return bytes(min(room, supply.number(2))) if supply.number() % 4 else None

    vring.process(answer, LIMIT, lambda: supply.number() == 255)
    assert len(rooms) <= LIMIT
    return len(rooms)
