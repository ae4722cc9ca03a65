from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_smol.errors import ProtocolError
from pytest_smol.virtiofs.vhost_user import session as vu
from pytest_smol.virtiofs.vhost_user.messages import Decoder, Message, MessageType, encode
from pytest_smol.virtiofs.virtio.memory import Region
from pytest_smol.virtiofs.virtio.vring import Addresses

T = MessageType


def raw(type: int, payload: bytes = b"", flags: int = 1) -> bytes:
    return struct.pack("<III", type, flags, len(payload)) + payload


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def receive(
    backend: vu.Backend, type: MessageType, payload: bytes = b"", fds: tuple[int, ...] = (), flags: int = 1
):
    return backend.receive(Message(type, flags, payload, fds))


STREAM = (
    raw(T.GET_FEATURES)
    + raw(T.SET_FEATURES, u64(1 << 32))
    + raw(T.SET_VRING_ENABLE, struct.pack("<II", 1, 1))
)
MESSAGES = [
    Message(T.GET_FEATURES, 1, b""),
    Message(T.SET_FEATURES, 1, u64(1 << 32)),
    Message(T.SET_VRING_ENABLE, 1, struct.pack("<II", 1, 1)),
]


def test_messages_are_decoded_whole_and_byte_by_byte() -> None:
    assert Decoder().feed(STREAM) == MESSAGES
    decoder = Decoder()
    assert [message for n in range(len(STREAM)) for message in decoder.feed(STREAM[n : n + 1])] == MESSAGES


def test_trailing_data_waits_for_its_rest() -> None:
    decoder = Decoder()
    assert decoder.feed(STREAM[:-3]) == MESSAGES[:2]
    assert decoder.missing == 3
    assert decoder.feed(STREAM[-3:]) == MESSAGES[2:]
    assert decoder.missing == 12


def test_reading_what_is_missing_never_takes_of_the_next_message() -> None:
    decoder, data, messages = Decoder(), STREAM, []
    while data:
        size = decoder.missing
        messages += decoder.feed(data[:size])
        data = data[size:]
    assert messages == MESSAGES


def test_file_descriptors_belong_to_the_message_they_came_with() -> None:
    decoder = Decoder()
    kick = raw(T.SET_VRING_KICK, u64(0))
    assert decoder.feed(kick[:12], [5]) == []
    assert decoder.feed(kick[12:] + raw(T.GET_FEATURES)) == [
        Message(T.SET_VRING_KICK, 1, u64(0), (5,)),
        Message(T.GET_FEATURES, 1, b""),
    ]
    decoder.feed(kick[:13], [6, 7])
    assert decoder.close() == (6, 7)
    assert decoder.close() == ()


@pytest.mark.parametrize(
    "data",
    [
        raw(99),
        raw(0),
        raw(T.GET_FEATURES, flags=2),
        raw(T.GET_FEATURES, flags=5),
        struct.pack("<III", 5, 1, 4097),
    ],
    ids=["unknown", "zero", "version", "reply", "size"],
)
def test_what_is_no_message_is_an_error_as_soon_as_its_header_is_there(data: bytes) -> None:
    decoder = Decoder()
    assert decoder.feed(data[:11]) == []
    with pytest.raises(ProtocolError):
        decoder.feed(data[11:12])


@given(st.binary(max_size=60))
def test_any_bytes_are_messages_or_an_error(data: bytes) -> None:
    backend = vu.Backend()
    try:
        for message in Decoder().feed(data):
            backend.receive(message)
    except ProtocolError:
        pass


def test_a_reply_is_packed_without_padding() -> None:
    assert encode(T.GET_FEATURES, u64(3)) == struct.pack("<IIIQ", 1, 5, 8, 3)
    assert len(encode(T.GET_FEATURES, u64(3))) == 20


def test_features_are_offered_and_chosen() -> None:
    backend = vu.Backend()
    assert receive(backend, T.GET_FEATURES) == (
        None,
        encode(T.GET_FEATURES, u64(1 << 26 | 1 << 30 | 1 << 32)),
    )
    assert receive(backend, T.GET_PROTOCOL_FEATURES)[1] == encode(T.GET_PROTOCOL_FEATURES, u64(0x8000B))
    assert receive(backend, T.GET_QUEUE_NUM)[1] == encode(T.GET_QUEUE_NUM, u64(2))
    assert receive(backend, T.SET_FEATURES, u64(1 << 30 | 1 << 32)) == (None, b"")
    assert not any(ring.enabled for ring in backend.rings)
    with pytest.raises(ProtocolError, match="not offered"):
        receive(backend, T.SET_FEATURES, u64(1 << 28))
    with pytest.raises(ProtocolError, match="not offered"):
        receive(backend, T.SET_PROTOCOL_FEATURES, u64(1 << 2))


def test_without_protocol_features_rings_start_enabled() -> None:
    backend = vu.Backend()
    receive(backend, T.SET_FEATURES, u64(1 << 32))
    assert all(ring.enabled for ring in backend.rings)


def test_an_acknowledgement_is_sent_where_asked_for() -> None:
    backend = vu.Backend()
    assert receive(backend, T.SET_OWNER) == (None, b"")
    assert receive(backend, T.SET_OWNER, flags=9) == (None, encode(T.SET_OWNER, u64(0)))
    assert receive(backend, T.GET_FEATURES, flags=9)[1] == encode(T.GET_FEATURES, u64(vu.FEATURES))
    assert receive(backend, T.GET_VRING_BASE, struct.pack("<II", 0, 0), flags=9) == (vu.RingStopped(0), b"")


def regions(*rows: tuple[int, int, int, int], count: int | None = None) -> bytes:
    head = struct.pack("<II", len(rows) if count is None else count, 0)
    return head + b"".join(struct.pack("<QQQQ", *row) for row in rows)


def test_a_memory_table_is_decoded() -> None:
    event, _ = receive(
        vu.Backend(), T.SET_MEM_TABLE, regions((0, 0x1000, 0x7000, 0), (0x4000, 0x100, 0x9000, 64))
    )
    assert event == vu.MemoryTable((Region(0, 0x1000, 0x7000), Region(0x4000, 0x100, 0x9000)))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\0" * 7,
        regions(count=1),
        regions((0, 1, 2, 3), count=2),
        regions((0, 1, 2, 3), count=0),
        regions((0, 1, 2, 3)) + b"x",
        regions(*[(0, 1, 2, 3)] * 9),
        regions(count=0xFFFFFFFF),
    ],
)
def test_a_memory_table_of_another_size_than_it_says_is_refused(payload: bytes) -> None:
    with pytest.raises(ProtocolError, match="SET_MEM_TABLE"):
        receive(vu.Backend(), T.SET_MEM_TABLE, payload)


def test_a_ring_is_set_up_stopped_and_asked_for_its_place() -> None:
    backend = vu.Backend()
    receive(backend, T.SET_VRING_NUM, struct.pack("<II", 1, 128))
    receive(backend, T.SET_VRING_ADDR, struct.pack("<IIQQQQ", 1, 0, 0x10, 0x20, 0x30, 0))
    receive(backend, T.SET_VRING_BASE, struct.pack("<II", 1, 77))
    assert receive(backend, T.SET_VRING_KICK, u64(1), (5,))[0] == vu.RingKick(1, 5)
    assert receive(backend, T.SET_VRING_CALL, u64(1), (6,))[0] == vu.RingCall(1, 6)
    assert receive(backend, T.SET_VRING_CALL, u64(1 | 1 << 8))[0] == vu.RingCall(1, None)
    assert receive(backend, T.SET_VRING_ENABLE, struct.pack("<II", 1, 1))[0] == vu.RingEnabled(1, True)
    assert backend.rings[1] == vu.Ring(128, 77, Addresses(desc=0x10, used=0x20, avail=0x30), True, True)
    assert receive(backend, T.GET_VRING_BASE, struct.pack("<II", 1, 0))[0] == vu.RingStopped(1)
    backend.rings[1].base = 80
    assert backend.vring_base(1) == encode(T.GET_VRING_BASE, struct.pack("<II", 1, 80))


RING_MESSAGES = {
    T.SET_VRING_NUM: struct.pack("<II", 2, 128),
    T.SET_VRING_ADDR: struct.pack("<IIQQQQ", 2, 0, 0, 0, 0, 0),
    T.SET_VRING_BASE: struct.pack("<II", 0xFFFFFFFF, 0),
    T.GET_VRING_BASE: struct.pack("<II", 2, 0),
    T.SET_VRING_ENABLE: struct.pack("<II", 2, 1),
}


@pytest.mark.parametrize(("type", "payload"), RING_MESSAGES.items())
def test_rings_that_are_not_there_and_payloads_cut_short_are_refused(
    type: MessageType, payload: bytes
) -> None:
    with pytest.raises(ProtocolError, match="the virtual machine named ring"):
        receive(vu.Backend(), type, payload)
    for wrong in (payload[:-1], payload + b"\0", b""):
        with pytest.raises(ProtocolError, match="bytes, not"):
            receive(vu.Backend(), type, wrong)


@pytest.mark.parametrize(
    ("type", "value", "fds"),
    [
        (T.SET_VRING_KICK, 0, ()),
        (T.SET_VRING_KICK, 0, (4, 5)),
        (T.SET_VRING_KICK, 1 << 8, ()),  # polling
        (T.SET_VRING_KICK, 1 << 8, (4,)),
        (T.SET_VRING_KICK, 2, (4,)),
        (T.SET_VRING_CALL, 2, (4,)),
        (T.SET_VRING_CALL, 0, ()),
    ],
)
def test_eventfds_that_do_not_fit_are_refused(type: MessageType, value: int, fds: tuple[int, ...]) -> None:
    with pytest.raises(ProtocolError):
        receive(vu.Backend(), type, u64(value), fds)


def test_a_dirty_log_is_answered_only_when_it_is_shared() -> None:
    backend = vu.Backend()
    assert receive(backend, T.SET_LOG_BASE, bytes(16), (4,)) == (None, b"")
    receive(backend, T.SET_PROTOCOL_FEATURES, u64(1 << 1))
    assert receive(backend, T.SET_LOG_BASE, bytes(16), (4,))[1] == encode(T.SET_LOG_BASE, u64(0))


def test_state_is_saved_loaded_and_checked() -> None:
    backend = vu.Backend()
    for direction, event in ((0, vu.SaveState(9)), (1, vu.LoadState(9))):
        got = receive(backend, T.SET_DEVICE_STATE_FD, struct.pack("<II", direction, 0), (9,))
        assert got == (event, encode(T.SET_DEVICE_STATE_FD, u64(1 << 8)))
    assert receive(backend, T.CHECK_DEVICE_STATE) == (vu.CheckState(), b"")
    assert backend.state_checked(True) == encode(T.CHECK_DEVICE_STATE, u64(0))
    assert backend.state_checked(False) == encode(T.CHECK_DEVICE_STATE, u64(1))
    for direction, phase, fds in ((2, 0, (9,)), (0, 1, (9,)), (0, 0, ())):
        with pytest.raises(ProtocolError, match="not supported"):
            receive(backend, T.SET_DEVICE_STATE_FD, struct.pack("<II", direction, phase), fds)
