"""The server against a front-end played here: real sockets, eventfds and process_vm calls."""

from __future__ import annotations

import errno
import os
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_smol.errors import ProtocolError
from pytest_smol.virtiofs.filesystem.tree import Tree
from pytest_smol.virtiofs.fuse import Opcode
from pytest_smol.virtiofs.server import Server
from pytest_smol.virtiofs.vhost_user import session as vu
from pytest_smol.virtiofs.vhost_user.messages import MessageType as T
from pytest_smol.virtiofs.view import Content, View
from tests.unit.virtiofs.fake_guest import request
from tests.unit.virtiofs.front_end import FrontEnd, wait


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        yield made


@pytest.fixture
def attach(server: Server) -> Iterator[Callable[..., FrontEnd]]:
    made: list[FrontEnd] = []

    def attach(base: int = 0) -> FrontEnd:
        made.append(FrontEnd(server, Tree(View({"/f": Content(b"content")})), base))
        return made[-1]

    yield attach
    for front in made:
        front.close()


Attach = Callable[..., FrontEnd]


def running(front: FrontEnd) -> FrontEnd:
    front.negotiate()
    front.start()
    return front


def lookup(front: FrontEnd, name: bytes = b"f") -> int:
    error, payload = front.fuse(Opcode.LOOKUP, 1, name + b"\0")
    assert error == 0
    return int.from_bytes(payload[:8], "little")


def test_requests_are_answered_and_counted(attach: Attach) -> None:
    front = running(attach())
    node = lookup(front)
    assert front.fuse(Opcode.READ, node, struct.pack("<QQIIQII", 0, 0, 100, 0, 0, 0, 0)) == (0, b"content")
    assert front.fuse(Opcode.UNLINK, 1, b"f\0") == (errno.EROFS, b"")
    assert front.fuse(1234) == (errno.ENOSYS, b"")
    assert front.backend.requests == {"LOOKUP": 1, "READ": 1, "UNLINK": 1, "unknown": 1}
    assert front.backend.failure is None


def test_many_back_ends_are_served_at_once(attach: Attach) -> None:
    fronts = [running(attach()) for _ in range(5)]
    for _ in range(20):
        for front in fronts:
            lookup(front)
    assert [front.backend.requests["LOOKUP"] for front in fronts] == [20] * 5


def test_a_guest_that_asks_without_end_is_served_in_turns(attach: Attach) -> None:
    class Endless(Tree):
        """As fast as a request is answered there is another, and no further kick."""

        left = 100

        def dispatch(self, request_: bytes, room: int) -> bytes | None:
            self.left -= 1
            if self.left > 0:
                front.driver.request([request(Opcode.GETATTR)], [200])
            return super().dispatch(request_, room)

    front = running(attach())
    other = running(attach())
    front.backend._tree = Endless(View({}))
    front.driver.request([request(Opcode.GETATTR)], [200])
    os.eventfd_write(front.kick, 1)
    lookup(other)
    while front.driver.used_idx < 100:
        wait(front.call)
        os.eventfd_read(front.call)
    assert front.backend.requests == {"GETATTR": 100}


def test_what_was_available_before_the_kick_is_answered(attach: Attach) -> None:
    front = attach(base=0xFFFF)
    front.negotiate()
    front.driver.start_at(0xFFFF)
    front.driver.request([request(Opcode.GETATTR)], [200])
    front.start()
    wait(front.call)
    assert front.driver.used_idx == 0


def test_a_ring_can_be_stopped_and_started_again(attach: Attach) -> None:
    front = running(attach())
    for _ in range(3):
        lookup(front)
    front.send(T.SET_VRING_ENABLE, struct.pack("<II", 1, 0))
    assert front.ask(T.GET_VRING_BASE, struct.pack("<II", 1, 0)) == struct.pack("<II", 1, 3)
    front.driver.request([request(Opcode.GETATTR)], [200])
    os.eventfd_write(front.kick, 1)  # the server has closed its end
    assert front.ask(T.GET_VRING_BASE, struct.pack("<II", 1, 0)) == struct.pack("<II", 1, 3)
    kick = os.eventfd(0)
    front.send(T.SET_VRING_KICK, struct.pack("<Q", 1), kick)
    front.send(T.SET_VRING_ENABLE, struct.pack("<II", 1, 1))
    os.close(kick)
    wait(front.call)
    assert front.driver.used_idx == 4


def test_state_is_saved_and_restored(attach: Attach) -> None:
    front = running(attach())
    read, write = os.pipe()
    assert front.ask(T.SET_DEVICE_STATE_FD, struct.pack("<II", 0, 0), write) == struct.pack("<Q", 1 << 8)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == vu.STATE
    assert front.ask(T.CHECK_DEVICE_STATE) == bytes(8)


@pytest.mark.parametrize(
    ("blob", "good"),
    [
        (vu.STATE, True),
        (vu.STATE[:-1], False),
        (vu.STATE + b"x", False),
        (b"other", False),
        (b"x" * 60000, False),
    ],
)
def test_a_foreign_state_fails_its_check(attach: Attach, blob: bytes, good: bool) -> None:
    front = attach()
    front.negotiate()
    read, write = os.pipe()
    # The answer must come before there is anything to read.
    assert front.ask(T.SET_DEVICE_STATE_FD, struct.pack("<II", 1, 0), read) == struct.pack("<Q", 1 << 8)
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        pipe.write(blob)
    assert front.ask(T.CHECK_DEVICE_STATE) == struct.pack("<Q", 0 if good else 1)


def test_a_state_that_has_not_come_whole_fails_its_check(attach: Attach) -> None:
    front = attach()
    front.negotiate()
    read, write = os.pipe()
    front.ask(T.SET_DEVICE_STATE_FD, struct.pack("<II", 1, 0), read)
    os.write(write, vu.STATE)
    assert front.ask(T.CHECK_DEVICE_STATE) == struct.pack("<Q", 1)
    os.close(write)
    os.close(read)


def failed(front: FrontEnd) -> str:
    wait(front.backend.failed_fd)
    assert isinstance(front.backend.failure, ProtocolError)
    return front.backend.failure.message


def test_a_guest_that_breaks_the_rules_fails_its_own_back_end_only(attach: Attach) -> None:
    bad, good = running(attach()), running(attach())
    bad.driver.describe(0, 0xDEAD0000, 16, 0, 0)
    bad.driver.offer(0)
    os.eventfd_write(bad.kick, 1)
    assert "memory it does not have" in failed(bad)
    with pytest.raises((EOFError, ConnectionError)):
        bad.ask(T.GET_FEATURES)
    assert lookup(good) == 2
    assert good.backend.failure is None


@pytest.mark.parametrize("message", [struct.pack("<III", 77, 1, 0), struct.pack("<III", 1, 2, 0), b"x" * 12])
def test_a_front_end_that_breaks_the_rules_fails_its_back_end(attach: Attach, message: bytes) -> None:
    front = attach()
    front.sock.send(message)
    failed(front)


def test_rings_outside_of_guest_memory_are_refused(attach: Attach) -> None:
    front = attach()
    front.negotiate()
    front.driver.addresses = front.driver.addresses._replace(desc=front.origin + len(front.memory.bytes))
    front.start()
    assert "outside of guest memory" in failed(front)


def test_that_the_front_end_goes_is_no_failure(attach: Attach) -> None:
    front = running(attach())
    lookup(front)
    front.sock.close()
    other = running(attach())
    lookup(other)
    assert front.backend.failure is None


def test_a_process_that_is_gone_is_no_failure(server: Server) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    front = FrontEnd(server, Tree(View({})))
    front.backend._memory.pid = child  # type: ignore[attr-defined]
    front.negotiate()
    front.start()
    with pytest.raises((EOFError, ConnectionError)):
        front.ask(T.GET_FEATURES)
    assert front.backend.failure is None
    front.close()
    os.waitpid(child, 0)


def test_nothing_is_touched_after_close(attach: Attach) -> None:
    front = running(attach())
    lookup(front)
    front.backend.close()
    front.backend.close()
    before = bytes(front.memory.bytes)
    front.driver.request([request(Opcode.GETATTR)], [200])
    offered = bytes(front.memory.bytes)
    os.eventfd_write(front.kick, 1)
    other = running(attach())
    lookup(other)
    assert bytes(front.memory.bytes) == offered != before


def test_close_may_come_while_requests_are_under_way(attach: Attach) -> None:
    for _ in range(20):
        front = running(attach())
        stop = threading.Event()

        def storm(front: FrontEnd = front, stop: threading.Event = stop) -> None:
            while not stop.is_set():
                os.eventfd_write(front.kick, 1)

        thread = threading.Thread(target=storm)
        thread.start()
        lookup(front)
        front.backend.close()
        stop.set()
        thread.join()
        assert front.backend.failure is None


def test_all_descriptors_are_closed(tmp_path: Path) -> None:
    def descriptors() -> set[str]:
        return set(os.listdir("/proc/self/fd"))

    before = descriptors()
    with Server() as server:
        for end in ("close", "fail", "leave"):
            front = FrontEnd(server, Tree(View({"/f": Content(b"")})))
            running(front)
            lookup(front)
            read, write = os.pipe()
            front.ask(T.SET_DEVICE_STATE_FD, struct.pack("<II", 1, 0), read)
            front.send(T.SET_VRING_ERR, struct.pack("<Q", 1), write)
            os.close(read)
            os.close(write)
            if end == "fail":
                front.sock.send(b"x" * 12)
                failed(front)
            if end == "leave":
                front.sock.close()
                running(other := FrontEnd(server, Tree(View({}))))
                other.fuse(Opcode.GETATTR)  # by now the server has seen that the first one left
                other.close()
                front.sock.close()
                os.close(front.kick)
                os.close(front.call)
            else:
                front.close()
    assert descriptors() == before


def test_a_server_ends_its_back_ends(attach: Attach) -> None:
    with Server() as server:
        front = running(FrontEnd(server, Tree(View({}))))
    with pytest.raises((EOFError, ConnectionError)):
        front.ask(T.GET_FEATURES)
    assert not [thread for thread in threading.enumerate() if thread is server._thread]
    front.close()
