"""The device's side of one split virtqueue.

Source: Virtual I/O Device (VIRTIO) 1.2, section 2.7. The driver is in a guest
that may write anything to its memory at any time, so each descriptor is copied
once, the copy is checked, and only the copy is used. The features
VIRTIO_F_INDIRECT_DESC and VIRTIO_F_EVENT_IDX are not offered.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from pytest_smol.errors import ProtocolError
from pytest_smol.virtiofs.virtio.memory import Memory, Segment

__all__ = ["MAX_CHAIN_BYTES", "MAX_QUEUE_SIZE", "Addresses", "Chain", "Vring"]

VRING_DESC_F_NEXT = 1
VRING_DESC_F_WRITE = 2
VRING_DESC_F_INDIRECT = 4
VRING_AVAIL_F_NO_INTERRUPT = 1

MAX_QUEUE_SIZE = 1024
MAX_CHAIN_BYTES = 2 << 20
"""Bytes one request may have, both directions together; FUSE at 256 pages needs half of it."""

_DESC = struct.Struct("<QIHH")  # struct vring_desc: addr, len, flags, next
_AVAIL = struct.Struct("<HH")  # struct vring_avail: flags, idx; then ring[]
_USED_ELEM = struct.Struct("<II")  # struct vring_used_elem: id, len
_IDX = struct.Struct("<H")

Handler = Callable[[bytes, int], "bytes | None"]


class Addresses(NamedTuple):
    """Addresses of the three parts of a ring, in the address space of the engine's process."""

    desc: int
    used: int
    avail: int


class Chain(NamedTuple):
    """The buffers of one request.

    ``head`` is the index of its first descriptor, ``room`` the size of ``writable`` in bytes.
    """

    head: int
    readable: list[Segment]
    writable: list[Segment]
    room: int


class Vring:
    """A started ring of ``num`` entries whose next available entry is ``base``.

    Raises ProtocolError for a size, an address or a base that is not valid. Its methods
    raise it where the driver breaks a rule of the specification.
    """

    def __init__(self, memory: Memory, num: int, addresses: Addresses, base: int) -> None:
        if not 0 < num <= MAX_QUEUE_SIZE or num & (num - 1):
            raise ProtocolError(f"a virtqueue cannot have {num} entries")
        if not 0 <= base < 1 << 16:
            raise ProtocolError(f"a virtqueue cannot start at {base}")
        if addresses.desc % 16 or addresses.used % 4 or addresses.avail % 2:
            raise ProtocolError(f"a virtqueue is not aligned: {addresses}")
        self._memory = memory
        self._num = num
        self._extents = (
            (addresses.desc, 16 * num),
            (addresses.avail, 6 + 2 * num),
            (addresses.used, 6 + 8 * num),
        )
        self.check()
        desc, avail, self._used = addresses.desc, addresses.avail, addresses.used
        # The kernel reads segments in this order: entries that the available index counts
        # have to be read after the index.
        self._parts = [(avail, 4), (avail + 4, 2 * num), (desc, 16 * num)]
        self._descs = 4 + 2 * num
        self.last_avail = base
        self.last_used: int = _IDX.unpack(memory.read([(self._used + 2, 2)]))[0]

    def check(self) -> None:
        """Raise ProtocolError unless the ring's three parts are in the guest's memory as it is now."""
        for address, length in self._extents:
            self._memory.check(address, length)

    def process(
        self, handle: Handler, limit: int, enough: Callable[[], bool] = lambda: False
    ) -> tuple[bool, bool]:
        """Answer up to ``limit`` available requests with ``handle``; stop when ``enough()`` is true.

        Returns whether the driver wants a notification of what was used, and whether more requests wait.
        """
        done = 0
        while True:
            rings = self._memory.read(self._parts)
            flags, idx = _AVAIL.unpack_from(rings)
            waiting = (idx - self.last_avail) & 0xFFFF
            if waiting > self._num:
                raise ProtocolError(f"the guest made {waiting} requests available in a ring of {self._num}")
            if not waiting or done >= limit:
                # These flags were read after the last used index was written, so a driver
                # that has turned notifications on since then sees that index.
                return bool(done) and not flags & VRING_AVAIL_F_NO_INTERRUPT, bool(waiting)
            for _ in range(min(waiting, limit - done)):
                self._serve(self._chain(rings), handle)
                done += 1
                if enough():
                    limit = done
                    break

    def _serve(self, chain: Chain, handle: Handler) -> None:
        request = self._memory.read(chain.readable) if chain.readable else b""
        self._complete(chain, handle(request, chain.room) or b"")
        self.last_avail = (self.last_avail + 1) & 0xFFFF

    def _chain(self, rings: bytes) -> Chain:
        """The request at ``last_avail``, from a copy of the available ring and descriptor table."""
        (head,) = _IDX.unpack_from(rings, 4 + 2 * (self.last_avail % self._num))
        readable: list[Segment] = []
        writable: list[Segment] = []
        side, index = readable, head
        total = room = 0
        for _ in range(self._num):
            if index >= self._num:
                raise ProtocolError(f"the guest named descriptor {index} in a ring of {self._num}")
            address, length, flags, following = _DESC.unpack_from(rings, self._descs + 16 * index)
            total += length
            if flags & VRING_DESC_F_INDIRECT or total > MAX_CHAIN_BYTES:
                raise ProtocolError(f"the guest made a request that cannot be: flags {flags}, {total} bytes")
            if flags & VRING_DESC_F_WRITE:
                side, room = writable, room + length
            elif side is writable:
                raise ProtocolError("the guest put a readable descriptor after a writable one")
            if length:
                side.append((self._memory.translate(address, length), length))
            if not flags & VRING_DESC_F_NEXT:
                return Chain(head, readable, writable, room)
            index = following
        raise ProtocolError(f"the guest made a chain longer than its ring of {self._num}")

    def _complete(self, chain: Chain, reply: bytes) -> None:
        """Write the reply, the used element and the index: one system call, which writes in this order."""
        if len(reply) > chain.room:
            raise AssertionError("a reply was made larger than the room for it")
        segments = _head(chain.writable, len(reply))
        element = self._used + 4 + 8 * (self.last_used % self._num)
        self.last_used = (self.last_used + 1) & 0xFFFF
        segments += [(element, 8), (self._used + 2, 2)]
        tail = _USED_ELEM.pack(chain.head, len(reply)) + _IDX.pack(self.last_used)
        self._memory.write(segments, reply + tail)


def _head(segments: list[Segment], size: int) -> list[Segment]:
    """The first ``size`` bytes of ``segments``."""
    taken: list[Segment] = []
    for address, length in segments:
        if size <= 0:
            break
        taken.append((address, min(length, size)))
        size -= length
    return taken
