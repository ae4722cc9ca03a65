"""Whatever bytes come: an answer or a protocol error, and nothing outside of what was given."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_smol.errors import ProtocolError
from pytest_smol.virtiofs.filesystem.tree import Tree
from pytest_smol.virtiofs.fuse import Opcode
from pytest_smol.virtiofs.server import Server
from pytest_smol.virtiofs.vhost_user import session as vu
from pytest_smol.virtiofs.vhost_user.messages import HEADER, Decoder, Message, MessageType
from pytest_smol.virtiofs.vhost_user.messages import MessageType as T
from pytest_smol.virtiofs.view import Content, HostPath, Link, View
from pytest_smol.virtiofs.virtio.vring import MAX_CHAIN_BYTES, Addresses, Vring
from tests.unit.virtiofs.fake_guest import GUEST, QEMU, BytesMemory, request
from tests.unit.virtiofs.front_end import PATIENCE, FrontEnd

SIZE = 1 << 16
NUM = 8
LIMIT = 16

U16, U32, U64 = (st.integers(0, (1 << bits) - 1) for bits in (16, 32, 64))
EDGES = st.sampled_from(
    [0, 1, GUEST, GUEST + SIZE, GUEST + SIZE - 1, GUEST - 1, (1 << 64) - 1, 1 << 63, QEMU]
)
NEAR = st.builds(lambda edge, step: (edge + step) % (1 << 64), EDGES, st.integers(-4096, 4096))
ROWS = st.tuples(
    NEAR | U64,
    st.integers(0, 300) | U32,
    st.sampled_from([0, 1, 2, 3, 4, 5, 0xFFFF]) | U16,
    st.integers(0, NUM) | U16,
)
HEADS = st.lists(st.integers(0, NUM) | U16, min_size=NUM, max_size=NUM)


@settings(deadline=None, max_examples=300)
@given(st.lists(ROWS, min_size=NUM, max_size=NUM), HEADS, st.integers(0, 10) | U16, U16, st.data())
def test_any_ring(
    rows: list[tuple[int, int, int, int]], heads: list[int], idx: int, flags: int, data: st.DataObject
) -> None:
    """The memory refuses by itself whatever is not in it, so a wrong address that passes is found."""
    memory = BytesMemory(SIZE)
    for index, row in enumerate(rows):
        struct.pack_into("<QIHH", memory.bytes, 16 * index, *row)
    struct.pack_into(f"<HH{NUM}H", memory.bytes, 0x100, flags, idx, *heads)
    served = []

    def answer(request_: bytes, room: int) -> bytes | None:
        assert len(request_) + room <= MAX_CHAIN_BYTES
        served.append(room)
        return bytes(data.draw(st.sampled_from([0, room, room // 2]))) if room < 4096 else None

    vring = Vring(memory, NUM, Addresses(QEMU, QEMU + 0x200, QEMU + 0x100), 0)
    with contextlib.suppress(ProtocolError):
        vring.process(answer, LIMIT)
    assert len(served) <= LIMIT
    assert vring.last_used == len(served)


@settings(deadline=None, max_examples=300)
@given(U32, U16, st.tuples(NEAR | U64, NEAR | U64, NEAR | U64))
def test_any_place_of_a_ring(num: int, base: int, places: tuple[int, int, int]) -> None:
    memory = BytesMemory(SIZE)
    with contextlib.suppress(ProtocolError):
        Vring(memory, num, Addresses(*places), base).process(lambda request_, room: None, LIMIT)


# FUSE


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    top = tmp_path_factory.mktemp("fuzzed")
    (top / "d").mkdir()
    for name in ("a", "b", ".env", "d/c"):
        (top / name).write_text(name)
    (top / "l").symlink_to("a")
    os.mkfifo(top / "fifo")
    made = Tree(View({"/p": HostPath(str(top)), "/f": Content(b"text"), "/k": Link("f")}))
    yield made
    made.close()
    assert sorted(path.name for path in top.rglob("*")) == [".env", "a", "b", "c", "d", "fifo", "l"]
    assert (top / "a").read_text() == "a"


NAMES = st.sampled_from([b"p", b"d", b"a", b"c", b"l", b"fifo", b".env", b"f", b"k", b"..", b"none"])
READ = st.builds(struct.Struct("<QQI20x").pack, U64, U64, U32)
BODIES = (
    st.builds(lambda name: name + b"\0", NAMES)
    | READ
    | st.binary(max_size=100)
    | st.builds(lambda offset, whence: struct.pack("<QQII", 0, offset, whence, 0), U64, st.integers(0, 5))
    | st.builds(lambda count, rows: struct.pack("<II", count, 0) + rows, U32, st.binary(max_size=64))
)
OPCODES = st.sampled_from([int(opcode) for opcode in Opcode]) | U32
CALLS = st.lists(
    st.tuples(OPCODES, st.integers(0, 20) | U64, BODIES, st.integers(0, 300) | st.just(1 << 17)), max_size=20
)


@settings(deadline=None, max_examples=300)
@given(calls=CALLS)
def test_any_requests(tree: Tree, calls: list[tuple[int, int, bytes, int]]) -> None:
    for opcode, node, body, room in calls:
        check_reply(tree.dispatch(request(opcode, node, body), room), room)
    assert len(tree._files._open) <= 64


@settings(deadline=None, max_examples=300)
@given(data=st.binary(max_size=200), room=st.integers(0, 300))
def test_any_bytes(tree: Tree, data: bytes, room: int) -> None:
    check_reply(tree.dispatch(data, room), room, data[8:16])


def check_reply(reply: bytes | None, room: int, unique: bytes = struct.pack("<Q", 7)) -> None:
    if reply is None:
        return
    assert 16 <= len(reply) <= room
    length, error = struct.unpack_from("<Ii", reply)
    assert length == len(reply)
    assert -512 < error <= 0
    assert reply[8:16] == unique
    assert error == 0 or length == 16


# vhost-user


RING = st.integers(0, 1) | st.integers(0, 3)
STATE = st.builds(struct.Struct("<II").pack, RING, st.sampled_from([0, 1, 8, 16, 1024, 1 << 16]) | U32)
NUMBER = st.builds(struct.Struct("<Q").pack, RING | st.integers(0x100, 0x103) | U64)
ADDRESS = st.builds(struct.Struct("<IIQQQQ").pack, RING, U32, NEAR, NEAR, NEAR, NEAR)
TABLE = st.builds(struct.Struct("<IIQQQQ").pack, st.just(1), U32, NEAR, NEAR, NEAR, U64)
EMPTY = st.just(b"")
PAYLOADS = {
    **dict.fromkeys(MessageType, EMPTY),
    **dict.fromkeys((T.SET_VRING_NUM, T.SET_VRING_BASE, T.GET_VRING_BASE, T.SET_VRING_ENABLE), STATE),
    **dict.fromkeys((T.SET_VRING_KICK, T.SET_VRING_CALL, T.SET_VRING_ERR), NUMBER),
    **dict.fromkeys((T.SET_FEATURES, T.SET_PROTOCOL_FEATURES), st.just(struct.pack("<Q", 0)) | NUMBER),
    T.SET_VRING_ADDR: ADDRESS,
    T.SET_MEM_TABLE: TABLE,
    T.SET_LOG_BASE: st.binary(min_size=16, max_size=16),
    T.SET_DEVICE_STATE_FD: st.builds(struct.Struct("<II").pack, st.integers(0, 2), st.integers(0, 1)),
}


def message(type: int, flags: int, payload: bytes) -> bytes:
    return HEADER.pack(type, flags, len(payload)) + payload


PROPER = st.sampled_from(MessageType).flatmap(
    lambda type: st.builds(message, st.just(type), st.sampled_from([1, 9]), PAYLOADS[type])
)
MESSAGES = PROPER | PROPER | st.builds(message, st.integers(0, 60), st.just(1) | U32, st.binary(max_size=80))


def messages(data: bytes, sizes: list[int]) -> list[Message] | None:
    """What a decoder makes of ``data`` in pieces; None where it refuses."""
    decoder, found = Decoder(), []
    try:
        for size in [*sizes, len(data)]:
            found += decoder.feed(data[:size])
            data = data[size:]
    except ProtocolError:
        return None
    return found


@settings(deadline=None, max_examples=200)
@given(st.lists(MESSAGES, max_size=5).map(b"".join), st.lists(st.integers(0, 30), max_size=10))
def test_messages_in_any_pieces(data: bytes, sizes: list[int]) -> None:
    assert messages(data, sizes) == messages(data, [])


@settings(deadline=None, max_examples=200)
@given(st.lists(MESSAGES, max_size=12))
def test_any_messages(stream: list[bytes]) -> None:
    backend = vu.Backend()
    with contextlib.suppress(ProtocolError):
        for data in stream:
            for message in Decoder().feed(data):
                backend.receive(message)
    assert len(backend.rings) == vu.QUEUES


KINDS = (lambda: os.eventfd(1), lambda: os.memfd_create("x"), lambda: os.open("/", os.O_RDONLY))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as made:
        yield made


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(stream=st.lists(st.tuples(MESSAGES, st.integers(0, 3)), max_size=12), negotiated=st.booleans())
def test_any_messages_to_a_server(server: Server, stream: list[tuple[bytes, int]], negotiated: bool) -> None:
    """A mistake of the server's own would be another kind of failure, or a descriptor that is left open."""
    before = set(os.listdir("/proc/self/fd"))
    front = FrontEnd(server, Tree(View({"/f": Content(b"x")})))
    if negotiated:
        front.negotiate()
        front.start()
    for data, count in stream:
        fds = [KINDS[(count + n) % 3]() for n in range(count)]
        try:
            front.send_part(data, fds)
        except OSError:
            break
        finally:
            for fd in fds:
                os.close(fd)
    front.sock.shutdown(1)
    front.sock.settimeout(PATIENCE)
    with contextlib.suppress(ConnectionResetError):
        while front.sock.recv(1 << 16):  # until it has read all or given up, and has closed its end
            pass
    failure = front.backend.failure
    front.close()
    assert failure is None or isinstance(failure, ProtocolError), failure
    assert set(os.listdir("/proc/self/fd")) == before
