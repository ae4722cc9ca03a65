from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_smol.errors import ProtocolError
from pytest_smol.virtiofs.virtio.vring import MAX_CHAIN_BYTES, Addresses, Vring
from tests.unit.virtiofs.fake_guest import GUEST, QEMU, BytesMemory, Driver


def upper(request: bytes, room: int) -> bytes:
    return request.upper()[:room]


def test_a_request_is_answered() -> None:
    driver = Driver(BytesMemory())
    vring = driver.vring()
    first, second = driver.request([b"he", b"llo"], [3, 100])
    assert vring.process(upper, 16) == (True, False)
    assert driver.bytes_at(first, 3) + driver.bytes_at(second, 3) == b"HELLO\0"
    assert driver.used_idx == 1
    assert driver.used_elem(0) == (0, 5)


def test_the_used_index_is_written_last() -> None:
    driver = Driver(BytesMemory())
    vring = driver.vring()
    (reply,) = driver.request([b"a"], [1])
    vring.process(upper, 16)
    used = QEMU + driver.used
    assert driver.memory.order == [(reply - GUEST + QEMU, 1), (used + 4, 8), (used + 2, 2)]


def test_an_empty_queue_costs_one_read_and_a_request_four_transfers() -> None:
    driver = Driver(BytesMemory())
    vring = driver.vring()
    memory = driver.memory
    memory.reads = memory.writes = 0
    assert vring.process(upper, 16) == (False, False)
    assert (memory.reads, memory.writes) == (1, 0)
    driver.request([b"a", b"b"], [5])
    memory.reads = memory.writes = 0
    vring.process(upper, 16)
    assert (memory.reads, memory.writes) == (3, 1)


def test_indices_wrap_around() -> None:
    driver = Driver(BytesMemory())
    driver.start_at(0xFFFE)
    vring = driver.vring(0xFFFE)
    for n in range(5):
        (reply,) = driver.request([b"abc%d" % n], [9])
        vring.process(upper, 16)
        assert driver.bytes_at(reply, 4) == b"ABC%d" % n
    assert driver.used_idx == 3
    assert vring.last_avail == 3


def test_a_reply_is_optional_and_so_are_both_directions() -> None:
    driver = Driver(BytesMemory())
    vring = driver.vring()
    seen: list[tuple[bytes, int]] = []
    driver.request([b"forget"], [])
    driver.request([], [4])
    vring.process(lambda request, room: seen.append((request, room)), 16)
    assert seen == [(b"forget", 0), (b"", 4)]
    assert [driver.used_elem(n) for n in range(2)] == [(0, 0), (1, 0)]


def test_the_driver_may_ask_not_to_be_notified() -> None:
    driver = Driver(BytesMemory())
    vring = driver.vring()
    struct.pack_into("<H", driver.memory.bytes, driver.avail, 1)
    driver.request([b"a"], [1])
    assert vring.process(upper, 16) == (False, False)


def test_a_wish_to_be_notified_that_comes_late_is_seen() -> None:
    driver = Driver(BytesMemory())
    vring = driver.vring()
    struct.pack_into("<H", driver.memory.bytes, driver.avail, 1)

    def answer(request: bytes, room: int) -> bytes:
        struct.pack_into("<H", driver.memory.bytes, driver.avail, 0)
        return b""

    driver.request([b"a"], [1])
    assert vring.process(answer, 16) == (True, False)


def test_a_limit_leaves_the_rest_for_later() -> None:
    driver = Driver(BytesMemory())
    vring = driver.vring()
    driver.request([b"a"], [1])

    def more(request: bytes, room: int) -> bytes:
        driver.request([b"a"], [1])
        return b"b"

    assert vring.process(more, 3) == (True, True)
    assert driver.used_idx == 3
    assert vring.process(upper, 3) == (True, False)
    assert driver.used_idx == 4


def test_a_limit_holds_for_what_was_made_available_at_once() -> None:
    driver = Driver(BytesMemory())
    vring = driver.vring()
    for _ in range(5):
        driver.request([b"a"], [])
    assert vring.process(upper, 2) == (True, True)
    assert driver.used_idx == 2
    assert vring.process(upper, 3) == (True, False)


def test_what_is_enough_ends_a_turn() -> None:
    driver = Driver(BytesMemory())
    vring = driver.vring()
    for _ in range(5):
        driver.request([b"a"], [])
    assert vring.process(upper, 16, lambda: True) == (True, True)
    assert driver.used_idx == 1
    assert vring.process(upper, 16) == (True, False)
    assert driver.used_idx == 5


def test_a_request_made_available_meanwhile_is_found() -> None:
    driver = Driver(BytesMemory())
    vring = driver.vring()
    extra = [b"second"]

    def answer(request: bytes, room: int) -> bytes:
        if extra:
            driver.request([extra.pop()], [9])
        return request

    driver.request([b"first"], [9])
    vring.process(answer, 16)
    assert driver.used_idx == 2


def chain(*descriptors: tuple[int, int, int, int]) -> Driver:
    """A ring with these descriptors, of which the first is the head of a request."""
    driver = Driver(BytesMemory())
    for index, (address, length, flags, following) in enumerate(descriptors):
        driver.describe(index, address, length, flags, following)
    driver.offer(0)
    return driver


NEXT, WRITE, INDIRECT = 1, 2, 4
HOSTILE = {
    "beyond its memory": [(GUEST + (1 << 20) - 1, 2, 0, 0)],
    "below its memory": [(GUEST - 1, 2, 0, 0)],
    "wraps around": [((1 << 64) - 1, 0xFFFFFFFF, WRITE, 0)],
    "indirect": [(GUEST, 16, INDIRECT, 0)],
    "indirect, after a good one": [(GUEST, 16, NEXT, 1), (GUEST, 16, INDIRECT, 0)],
    "loop of one": [(GUEST, 1, NEXT, 0)],
    "loop of two": [(GUEST, 1, NEXT, 1), (GUEST, 1, NEXT, 0)],
    "empty loop": [(GUEST, 0, NEXT, 0)],
    "next out of the table": [(GUEST, 1, NEXT, 8)],
    "readable after writable": [(GUEST, 1, WRITE | NEXT, 1), (GUEST, 1, 0, 0)],
    "readable after an empty writable": [(GUEST, 0, WRITE | NEXT, 1), (GUEST, 1, 0, 0)],
}


@pytest.mark.parametrize("descriptors", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_driver_that_breaks_the_rules_stops_the_ring(descriptors: list[tuple[int, int, int, int]]) -> None:
    driver = chain(*descriptors)
    with pytest.raises(ProtocolError):
        driver.vring().process(upper, 16)
    assert driver.used_idx == 0


def test_a_request_has_at_most_so_many_bytes() -> None:
    for more, allowed in ((0, True), (1, False)):
        driver = Driver(BytesMemory(MAX_CHAIN_BYTES))
        driver.describe(0, GUEST, MAX_CHAIN_BYTES // 2 + more, NEXT, 1)
        driver.describe(1, GUEST, MAX_CHAIN_BYTES // 2, WRITE, 0)
        driver.offer(0)
        vring = driver.vring()
        if allowed:
            assert vring.process(lambda request, room: None, 16) == (True, False)
        else:
            with pytest.raises(ProtocolError, match="cannot be"):
                vring.process(upper, 16)


def test_a_head_out_of_the_table_is_refused() -> None:
    driver = Driver(BytesMemory())
    driver.offer(8)
    with pytest.raises(ProtocolError, match="descriptor 8 in a ring of 8"):
        driver.vring().process(upper, 16)


def test_more_available_than_there_are_entries_is_refused() -> None:
    driver = Driver(BytesMemory())
    struct.pack_into("<H", driver.memory.bytes, driver.avail + 2, 9)
    with pytest.raises(ProtocolError, match="9 requests available in a ring of 8"):
        driver.vring().process(upper, 16)


@pytest.mark.parametrize("num", [0, 3, 2048, 1 << 31])
def test_a_size_must_be_a_power_of_two_within_bounds(num: int) -> None:
    with pytest.raises(ProtocolError, match="entries"):
        Vring(BytesMemory(), num, Driver(BytesMemory()).addresses, 0)


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("where", [QEMU - 16, QEMU + (1 << 20) - 16, 0, QEMU + 1, (1 << 64) - 16])
def test_all_of_a_ring_must_lie_in_guest_memory(part: int, where: int) -> None:
    addresses = list(Driver(BytesMemory()).addresses)
    addresses[part] = where
    with pytest.raises(ProtocolError):
        Vring(BytesMemory(), 8, Addresses(*addresses), 0)


def test_a_base_is_a_16_bit_index() -> None:
    with pytest.raises(ProtocolError, match="start at"):
        Driver(BytesMemory()).vring(1 << 16)


@settings(deadline=None)
@given(st.binary(min_size=16 * 8 + 4 + 16, max_size=16 * 8 + 4 + 16))
def test_whatever_a_guest_writes_into_its_ring_it_is_answered_or_refused(data: bytes) -> None:
    driver = Driver(BytesMemory())
    driver.memory.bytes[: len(data)] = data
    vring = driver.vring()
    with contextlib.suppress(ProtocolError):
        vring.process(upper, 16)
    assert vring.last_used <= 16 + driver.num
