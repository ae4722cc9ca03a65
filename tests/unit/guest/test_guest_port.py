"""The guest's end of the control channel."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from pytest_smol.guest.port import Port
from pytest_smol.protocol.wire import FROM_GUEST, Decoder, Message, WireError, encode

RUN: Message = {"type": "run", "steps": [[0, None]], "failed": 0}


#: The host's end of a channel and the guest's.
Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def port(ends: Ends) -> Port:
    return Port(ends[1].fileno())


def test_a_message_is_sent_as_one_frame(ends: Ends, port: Port) -> None:
    port.send("start", index=3)
    assert ends[0].recv(1000) == encode({"type": "start", "index": 3})


def test_messages_are_received_one_by_one(ends: Ends, port: Port) -> None:
    ends[0].sendall(encode(RUN) + encode({**RUN, "failed": 1}))
    assert [port.receive()["failed"], port.receive()["failed"]] == [0, 1]


def test_a_message_may_come_in_pieces(ends: Ends, port: Port) -> None:
    def trickle() -> None:
        for byte in encode(RUN):
            ends[0].sendall(bytes([byte]))

    sender = threading.Thread(target=trickle)
    sender.start()
    assert port.receive() == RUN
    sender.join()


def test_sending_waits_until_all_is_read(ends: Ends, port: Port) -> None:
    rows = ["x" * 1000] * 2000
    sender = threading.Thread(target=lambda: port.send("nodes", rows=rows))
    sender.start()
    decoder = Decoder(FROM_GUEST)
    received: list[Message] = []
    while not received:
        received += decoder.feed(ends[0].recv(1000))
    sender.join()
    assert received == [{"type": "nodes", "rows": rows}]


def test_the_end_of_the_host_is_an_error(ends: Ends, port: Port) -> None:
    ends[0].close()
    with pytest.raises(WireError, match="closed the control channel"):
        port.receive()


def test_a_frame_that_is_too_long_is_an_error(ends: Ends, port: Port) -> None:
    os.write(ends[0].fileno(), struct.pack("<I", 1 << 31))
    with pytest.raises(WireError):
        port.receive()
