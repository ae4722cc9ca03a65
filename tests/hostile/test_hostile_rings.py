"""Guests that break the rules of a virtqueue: each loses its own file system, no other guest does."""

from __future__ import annotations

import errno
import os
import struct
import threading
import tracemalloc

import pytest

from pytest_smol.virtiofs import backend as backend_module
from pytest_smol.virtiofs.fuse import Opcode
from pytest_smol.virtiofs.vhost_user.messages import MessageType as T
from pytest_smol.virtiofs.virtio.memory import Region
from tests.hostile.arena import GETATTR, RAM_END, SIZE, Arena, Guest
from tests.unit.virtiofs.fake_guest import GUEST, request
from tests.unit.virtiofs.front_end import PATIENCE, wait

NEXT, WRITE, INDIRECT = 1, 2, 4
NUM = 16


def test_a_chain_that_loops(arena: Arena) -> None:
    for rows in ([(GUEST, 16, NEXT, 0)], [(GUEST, 16, NEXT, 1), (GUEST, 0, NEXT, 0)]):
        guest = arena.guest()
        guest.offer(*rows)
        assert "longer than its ring" in guest.failure()


def test_a_chain_as_long_as_the_ring_is_the_longest(arena: Arena) -> None:
    """All descriptors in one chain are served; to have one more it has to come back to one of them."""
    guest = arena.guest()
    data = guest.driver.buffer(GETATTR, 0)
    first = [(data + n, 1, NEXT, n + 1) for n in range(NUM - 2)]
    rest = (data + NUM - 2, len(GETATTR) - (NUM - 2), NEXT, NUM - 1)
    guest.offer(*first, rest, (data + 0x1000, 4096, WRITE, 0))
    guest.answers(1)
    assert guest.driver.used_elem(0) == (0, 16 + 16 + 88)
    guest.offer(*first, rest, (data + 0x1000, 4096, WRITE | NEXT, 1))
    assert "longer than its ring" in guest.failure() or "readable descriptor after" in guest.failure()


@pytest.mark.parametrize("flags", [0, WRITE])
def test_a_length_of_four_gigabytes(arena: Arena, flags: int) -> None:
    guest = arena.guest()
    tracemalloc.start()
    guest.offer((GUEST, 0xFFFFFFFF, flags, 0))
    assert "cannot be" in guest.failure()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < SIZE


@pytest.mark.parametrize("flags", [0, WRITE])
@pytest.mark.parametrize("address", [(1 << 64) - 8, (1 << 64) - 16, (1 << 63), 0])
def test_an_address_that_wraps_around_or_is_none_of_the_guests(
    arena: Arena, flags: int, address: int
) -> None:
    guest = arena.guest()
    guest.offer((address, 16, flags, 0))
    assert "memory it does not have" in guest.failure()


@pytest.mark.parametrize("flags", [0, WRITE])
@pytest.mark.parametrize(("address", "length"), [(RAM_END - 200, 201), (RAM_END, 1), (GUEST - 1, 200)])
def test_one_byte_past_the_memory(arena: Arena, flags: int, address: int, length: int) -> None:
    guest = arena.guest()
    data = guest.driver.buffer(GETATTR, 0)
    guest.offer((data, len(GETATTR), NEXT, 1), (address, length, flags, 0))
    assert "memory it does not have" in guest.failure()


def test_the_last_byte_of_the_memory_is_the_guests(arena: Arena) -> None:
    guest = arena.guest()
    data = guest.driver.buffer(GETATTR, 0)
    guest.offer((data, len(GETATTR), NEXT, 1), (RAM_END - 120, 120, WRITE, 0))
    guest.answers(1)
    assert guest.driver.used_elem(0) == (0, 120)
    assert struct.unpack("<Ii", guest.driver.bytes_at(RAM_END - 120, 8)) == (120, 0)


def test_a_buffer_that_spans_two_regions(arena: Arena) -> None:
    """They follow each other in the guest, but not in QEMU: what lies between is not the guest's."""
    guest = arena.guest(start=False)
    half = SIZE // 2
    rows = (GUEST, half, guest.origin, 0, GUEST + half, half - 4096, guest.origin + half + 4096, 0)
    fds = [os.memfd_create("ram") for _ in range(2)]
    guest.send(T.SET_MEM_TABLE, struct.pack("<II8Q", 2, 0, *rows), *fds, flags=9)
    assert guest.receive(T.SET_MEM_TABLE) == bytes(8)
    for fd in fds:
        os.close(fd)
    guest.start()
    assert guest.is_served()
    data = guest.driver.buffer(GETATTR, 0)
    before = bytes(guest.memory.bytes[half : half + 4096])
    guest.driver.describe(0, data, len(GETATTR), NEXT, 1)
    guest.driver.describe(1, GUEST + half - 60, 120, WRITE, 0)
    guest.driver.offer(0)
    guest.kick_ring()
    assert "memory it does not have" in guest.failure()
    assert bytes(guest.memory.bytes[half : half + 4096]) == before


def test_buffers_over_the_ring_itself(arena: Arena) -> None:
    """A reply may overwrite descriptors, available and used ring: only the guest is confused by that."""
    for offset in (0, 16, 256, 0x8000 - 60, 0x8000, 0x8004):
        guest = arena.guest()
        data = guest.driver.buffer(GETATTR, 0)
        guest.offer((data, len(GETATTR), NEXT, 1), (GUEST + offset, 120, WRITE, 0))
        # It is answered, or what it made of its ring is refused; it never waits for nothing.
        guest.answers(1)
        assert guest.backend.requests["GETATTR"] >= 1


def test_the_same_buffer_for_all(arena: Arena) -> None:
    guest = arena.guest()
    data = guest.driver.buffer(GETATTR, 4096)
    guest.offer((data, len(GETATTR), NEXT, 1), (data, 60, WRITE | NEXT, 2), (data + 20, 60, WRITE, 0))
    guest.answers(1)
    assert guest.backend.failure is None
    assert guest.is_served()


def test_an_indirect_descriptor_was_never_agreed_on(arena: Arena) -> None:
    guest = arena.guest()
    table = guest.driver.buffer(struct.pack("<QIHH", GUEST, 16, 0, 0), 0)
    guest.offer((table, 16, INDIRECT, 0))
    assert "cannot be" in guest.failure()


@pytest.mark.parametrize("jump", [NUM + 1, 0x7FFF, 0xFFFF])
def test_an_available_index_that_jumps(arena: Arena, jump: int) -> None:
    guest = arena.guest()
    struct.pack_into("<H", guest.memory.bytes, guest.driver.avail + 2, jump)
    guest.kick_ring()
    assert "requests available in a ring of 16" in guest.failure()


def test_a_used_index_that_the_guest_writes(arena: Arena) -> None:
    """The device counts by itself, from what it found when the ring was started."""
    guest = arena.guest()
    assert guest.is_served()
    struct.pack_into("<H", guest.memory.bytes, guest.driver.used + 2, 0x1234)
    guest.driver.request([GETATTR], [120])
    guest.kick_ring()
    guest.answers(2)
    assert guest.driver.used_idx in (2, 0x1234)
    while guest.driver.used_idx != 2:
        wait(guest.call)
        os.eventfd_read(guest.call)
    assert guest.is_served()


def flip(guest: Guest, stop: threading.Event, places: list[tuple[int, bytes, bytes]]) -> None:
    while not stop.is_set():
        for offset, one, other in places:
            guest.memory.bytes[offset : offset + len(one)] = other
            guest.memory.bytes[offset : offset + len(one)] = one


def test_a_header_that_another_thread_flips(arena: Arena) -> None:
    """What is checked is what is used: each reply belongs to one of the two requests, whole."""
    guest = arena.guest()
    good, bad = request(Opcode.GETATTR, 1, bytes(16)), request(Opcode.READ, 0xDEAD, bytes(16))
    data = guest.driver.buffer(good, 0)
    stop = threading.Event()
    thread = threading.Thread(target=flip, args=(guest, stop, [(data - GUEST, good, bad)]))
    thread.start()
    try:
        for n in range(300):
            guest.offer((data, len(good), NEXT, 1), (data + 0x1000, 4096, WRITE, 0))
            guest.answers(n + 1)
            length, error, unique = struct.unpack("<IiQ", guest.driver.bytes_at(data + 0x1000, 16))
            assert (length, error) in (
                *((120, 0), (16, -errno.EINVAL)),
                *((16, -number) for number in (errno.ESTALE, errno.ENOSYS, errno.EIO)),
            )
            assert unique == 7
    finally:
        stop.set()
        thread.join()
    assert guest.backend.failure is None


def test_a_descriptor_that_another_thread_flips(arena: Arena) -> None:
    guest = arena.guest()
    good = guest.driver.buffer(GETATTR, 4096)
    outside = RAM_END - 8
    stop = threading.Event()
    places = [(16, struct.pack("<Q", good + 0x1000), struct.pack("<Q", outside))]
    thread = threading.Thread(target=flip, args=(guest, stop, places))
    guest.driver.describe(0, good, len(GETATTR), NEXT, 1)
    guest.driver.describe(1, good + 0x1000, 120, WRITE, 0)
    thread.start()
    try:
        for n in range(300):
            guest.driver.offer(0)
            guest.kick_ring()
            guest.answers(n + 1)
            if guest.backend.failure is not None:
                assert "memory it does not have" in guest.failure()
                break
    finally:
        stop.set()
        thread.join()
    assert guest.victim.canaries_sing()


@pytest.mark.parametrize(
    ("type", "payload"),
    [
        (T.SET_VRING_ADDR, struct.pack("<IIQQQQ", 1, 0, 0, 0, 0, 0)),
        (T.SET_VRING_NUM, struct.pack("<II", 1, 1024)),
        (T.SET_VRING_BASE, struct.pack("<II", 1, 7)),
    ],
)
def test_a_ring_that_is_changed_after_its_start(arena: Arena, type: T, payload: bytes) -> None:
    guest = arena.guest()
    assert guest.is_served()
    guest.send(type, payload)
    assert "for a ring that is started" in guest.failure()


def test_what_a_ring_already_is_may_be_said_again(arena: Arena) -> None:
    guest = arena.guest()
    desc, used, avail = guest.driver.addresses
    guest.send(T.SET_VRING_ADDR, struct.pack("<IIQQQQ", 1, 1, desc, used, avail, 0))
    guest.send(T.SET_VRING_NUM, struct.pack("<II", 1, NUM))
    assert guest.is_served()


def test_memory_that_is_taken_away_from_under_a_ring(arena: Arena) -> None:
    guest = arena.guest()
    fd = os.memfd_create("ram")
    table = struct.pack("<IIQQQQ", 1, 0, GUEST, 4096, guest.origin + 0x20000, 0)
    guest.send(T.SET_MEM_TABLE, table, fd)
    os.close(fd)
    assert "outside of guest memory" in guest.failure()


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_ring_that_lies_partly_outside(arena: Arena, part: int) -> None:
    guest = arena.guest(start=False)
    addresses = list(guest.driver.addresses)
    addresses[part] = guest.origin + SIZE - 16
    guest.driver.addresses = type(guest.driver.addresses)(*addresses)
    guest.start()
    assert "outside of guest memory" in guest.failure()


def test_a_region_that_wraps_around(arena: Arena) -> None:
    guest = arena.guest()
    fd = os.memfd_create("ram")
    region = Region(GUEST, SIZE, (1 << 64) - 4096)
    guest.send(T.SET_MEM_TABLE, struct.pack("<IIQQQQ", 1, 0, *region, 0), fd)
    os.close(fd)
    assert "impossible memory region" in guest.failure()


def test_qemu_is_killed_in_the_middle_of_a_request(arena: Arena) -> None:
    victims = []

    def die(request_: bytes, room: int) -> bytes:
        victims[0].kill()
        return bytes(16)

    guest = arena.guest(arena.replaced(die))
    victims.append(guest.victim)
    guest.driver.request([GETATTR], [120])
    guest.kick_ring()
    with pytest.raises((EOFError, ConnectionError)):
        guest.ask(T.GET_FEATURES)
    assert guest.backend.failure is None  # that QEMU is gone its owner says, and better


def test_requests_that_take_long_let_others_have_their_turn(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_module, "SLICE", 0.0)  # each request takes longer than that
    served: list[str] = []
    begun, both_ask = threading.Event(), threading.Event()

    def slow(request_: bytes, room: int) -> bytes:
        served.append("slow")
        begun.set()
        assert both_ask.wait(PATIENCE)
        return bytes(16)

    def quick(request_: bytes, room: int) -> bytes:
        served.append("quick")
        return bytes(16)

    guest, other = arena.guest(arena.replaced(slow)), arena.guest(arena.replaced(quick))
    other.driver.request([GETATTR], [120])
    other.kick_ring()
    other.answers(1)  # so it has started
    served.clear()
    for _ in range(NUM // 2):
        guest.driver.request([GETATTR], [120])
    guest.kick_ring()
    assert begun.wait(PATIENCE)
    other.driver.request([GETATTR], [120])
    other.kick_ring()
    both_ask.set()
    other.answers(2)
    guest.answers(NUM // 2)
    assert served.index("quick") < NUM // 2


def test_opcodes_that_are_none_are_not_counted_one_by_one(arena: Arena) -> None:
    guest = arena.guest()
    for opcode in range(1000, 1500):
        assert guest.fuse(opcode)[0] == errno.ENOSYS
    assert guest.backend.requests == {"unknown": 500}
    assert len(guest.backend._counts) == 1


def test_more_file_descriptors_than_a_message_has(arena: Arena) -> None:
    guest = arena.guest()
    for _ in range(2):
        fds = [os.memfd_create("flood") for _ in range(8)]
        guest.sock.settimeout(None)
        try:
            guest.send_part(b"\x01", fds)
        except OSError:
            break
        finally:
            for fd in fds:
                os.close(fd)
    assert "16 file descriptors" in guest.failure()


@pytest.mark.parametrize("type", [T.SET_VRING_KICK, T.SET_DEVICE_STATE_FD])
def test_a_file_descriptor_that_cannot_be_waited_for(arena: Arena, type: T) -> None:
    guest = arena.guest(start=False)
    fd = os.memfd_create("file")
    guest.send(type, struct.pack("<II", 1, 0), fd)
    os.close(fd)
    assert "cannot be used" in guest.failure()


def test_a_state_that_is_loaded_twice(arena: Arena) -> None:
    guest = arena.guest(start=False)
    for _ in range(3):
        read, write = os.pipe()
        assert guest.ask(T.SET_DEVICE_STATE_FD, struct.pack("<II", 1, 0), read) == struct.pack("<Q", 1 << 8)
        os.close(read)
        os.close(write)
    assert guest.ask(T.CHECK_DEVICE_STATE) == bytes(8)


def test_a_state_that_nobody_takes(arena: Arena) -> None:
    guest = arena.guest(start=False)
    read, write = os.pipe()
    os.set_blocking(write, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(write, bytes(65536))
    os.set_blocking(write, True)
    guest.send(T.SET_DEVICE_STATE_FD, struct.pack("<II", 0, 0), write)
    assert "cannot be used" in guest.failure()
    os.close(read)
    os.close(write)
