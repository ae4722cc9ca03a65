"""A guest without a machine: memory in a bytearray, a driver's half of a virtqueue, FUSE requests."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from pytest_smol.virtiofs import fuse
from pytest_smol.virtiofs.virtio.memory import Memory, Region, Segment
from pytest_smol.virtiofs.virtio.vring import Addresses, Vring

GUEST = 0x10_0000  # guest-physical address at which the memory starts
QEMU = 0x7F00_0000_0000  # and where it lies "in QEMU"


class BytesMemory(Memory):
    """Guest memory that is a bytearray; counts transfers, as each would be a system call."""

    def __init__(self, size: int = 1 << 20) -> None:
        super().__init__()
        self.bytes = bytearray(size)
        self.reads = self.writes = 0
        self.order: list[Segment] = []
        self.set_table([Region(GUEST, size, QEMU)])

    def read(self, segments: Sequence[Segment]) -> bytes:
        self.reads += 1
        return b"".join(bytes(self.bytes[self._at(a, n) : self._at(a, n) + n]) for a, n in segments)

    def write(self, segments: Sequence[Segment], data: bytes) -> None:
        self.writes += 1
        assert sum(n for _, n in segments) == len(data)
        self.order += segments
        for address, length in segments:
            start = self._at(address, length)
            self.bytes[start : start + length], data = data[:length], data[length:]

    def _at(self, address: int, length: int) -> int:
        assert QEMU <= address <= QEMU + len(self.bytes) - length, hex(address)
        return address - QEMU


class Driver:
    """The guest's half of one virtqueue; parts lie at the start of the memory, buffers after 64 KiB."""

    def __init__(self, memory: BytesMemory, num: int = 8, origin: int = QEMU) -> None:
        self.memory = memory
        self.num = num
        self.desc, self.avail, self.used = 0, 16 * num, 0x8000
        self.addresses = Addresses(origin, origin + self.used, origin + self.avail)
        self.avail_idx = 0
        self.next_buffer = 0x10000
        self.next_desc = 0

    def vring(self, base: int = 0) -> Vring:
        return Vring(self.memory, self.num, self.addresses, base)

    def start_at(self, index: int) -> None:
        self.avail_idx = index
        struct.pack_into("<H", self.memory.bytes, self.avail + 2, index)
        struct.pack_into("<H", self.memory.bytes, self.used + 2, index)

    def describe(self, index: int, address: int, length: int, flags: int, following: int) -> None:
        struct.pack_into("<QIHH", self.memory.bytes, 16 * index, address, length, flags, following)

    def buffer(self, data: bytes, length: int) -> int:
        offset = self.next_buffer
        self.next_buffer += max(length, len(data)) + 16
        self.memory.bytes[offset : offset + len(data)] = data
        return GUEST + offset

    def offer(self, head: int) -> None:
        slot = self.avail + 4 + 2 * (self.avail_idx % self.num)
        struct.pack_into("<H", self.memory.bytes, slot, head)
        self.avail_idx = (self.avail_idx + 1) & 0xFFFF
        struct.pack_into("<H", self.memory.bytes, self.avail + 2, self.avail_idx)

    def request(self, readable: Sequence[bytes], writable: Sequence[int]) -> list[int]:
        """Make one request available; the guest addresses of its writable buffers."""
        parts = [(self.buffer(data, 0), len(data), 0) for data in readable]
        parts += [(self.buffer(b"", room), room, 2) for room in writable]
        indices = [(self.next_desc + n) % self.num for n in range(len(parts))]
        for n, (address, length, flags) in enumerate(parts):
            last = n + 1 == len(parts)
            self.describe(
                indices[n], address, length, flags | (0 if last else 1), 0 if last else indices[n + 1]
            )
        self.next_desc = (self.next_desc + len(parts)) % self.num
        self.offer(indices[0])
        return [address for address, _, flags in parts if flags & 2]

    def bytes_at(self, address: int, length: int) -> bytes:
        return bytes(self.memory.bytes[address - GUEST : address - GUEST + length])

    @property
    def used_idx(self) -> int:
        return struct.unpack_from("<H", self.memory.bytes, self.used + 2)[0]

    def used_elem(self, index: int) -> tuple[int, int]:
        return struct.unpack_from("<II", self.memory.bytes, self.used + 4 + 8 * (index % self.num))


def request(opcode: int, nodeid: int = 1, body: bytes = b"", unique: int = 7) -> bytes:
    header = {"len": fuse.IN_HEADER.size + len(body), "opcode": opcode, "unique": unique, "nodeid": nodeid}
    return fuse.IN_HEADER.pack(header) + body
