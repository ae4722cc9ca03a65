"""QMP lines and the client, against a peer on a socket pair."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_smol.engines.qemu.qmp import LineDecoder, QmpClient
from pytest_smol.errors import MachineDied, MachineTimeout, ProtocolError, QmpError

GREETING = {"QMP": {"version": {"qemu": {"major": 10}}, "capabilities": []}}
DONE: dict[str, Any] = {"return": {}}


def migration(status: str) -> dict[str, Any]:
    return {"event": "MIGRATION", "data": {"status": status}}


def line(message: object) -> bytes:
    return json.dumps(message).encode() + b"\r\n"


def soon() -> float:
    """A deadline that a peer in the same process always keeps."""
    return time.monotonic() + 30


# --- lines


def test_lines_are_decoded_whole_and_byte_by_byte() -> None:
    data = line(GREETING) + b"\n" + line(DONE)
    decoder = LineDecoder()
    pieces = [message for byte in data for message in decoder.feed(bytes([byte]))]
    assert list(LineDecoder().feed(data)) == pieces == [GREETING, DONE]


def test_trailing_data_waits_for_the_rest_of_its_line() -> None:
    decoder = LineDecoder()
    assert list(decoder.feed(line(DONE) + b'{"event"')) == [DONE]
    assert list(decoder.feed(b': "STOP"}\n')) == [{"event": "STOP"}]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"garbage\n", "not JSON"),
        (b"\xff\xfe\n", "not JSON"),
        (b"[" * 100_000 + b"\n", "not JSON"),
        (b"[1]\n", "not an object"),
        (b"null\n", "not an object"),
        (b" " * (1 << 20) + b" ", "too long"),
        (b" " * (1 << 20) + b" \n", "too long"),
    ],
    ids=range(7),
)
def test_what_is_no_qmp_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        list(LineDecoder().feed(data))


@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_protocol_errors(data: bytes) -> None:
    try:
        list(LineDecoder().feed(data + b"\n"))
    except ProtocolError:
        return


@given(st.lists(st.dictionaries(st.text(), st.integers())), st.data())
def test_it_does_not_matter_where_a_stream_is_split(
    messages: list[dict[str, int]], data: st.DataObject
) -> None:
    stream = b"".join(map(line, messages))
    cut = data.draw(st.integers(0, len(stream)))
    decoder = LineDecoder()
    assert [*decoder.feed(stream[:cut]), *decoder.feed(stream[cut:])] == messages


# --- the client


@contextmanager
def client(*answers: bytes, greeting: bytes = b"") -> Iterator[tuple[QmpClient, list[dict[str, Any]]]]:
    """A client whose peer gives one of ``answers`` for each command, then closes; and what it was asked."""
    ours, theirs = socket.socketpair()
    asked: list[dict[str, Any]] = []

    def serve() -> None:
        with theirs, theirs.makefile("rb") as requests:
            theirs.sendall(greeting)
            for answer in answers:
                asked.append(json.loads(requests.readline()))
                theirs.sendall(answer)

    peer = threading.Thread(target=serve)
    peer.start()
    qmp = QmpClient(ours)
    try:
        yield qmp, asked
    finally:
        qmp.close()
        peer.join()


def test_negotiation_waits_for_the_greeting_and_enters_command_mode() -> None:
    with client(line(DONE), greeting=line(GREETING)) as (qmp, asked):
        qmp.negotiate(soon())
        assert asked == [{"execute": "qmp_capabilities", "arguments": {}}]
        assert qmp.commands == 1


def test_a_command_carries_its_arguments_and_gives_what_it_returns() -> None:
    with client(line({"return": {"status": "running"}})) as (qmp, asked):
        assert qmp.execute("query-status", soon(), detail=1) == {"status": "running"}
        assert asked == [{"execute": "query-status", "arguments": {"detail": 1}}]


def test_events_in_between_are_kept_in_order() -> None:
    with client(line({"event": "STOP"}) + line({"event": "RESUME"}) + line(DONE)) as (qmp, _):
        qmp.execute("stop", soon())
        assert [event["event"] for event in qmp.events] == ["STOP", "RESUME"]


def test_a_refusal_names_the_command_and_the_reason() -> None:
    refusal = {"error": {"class": "GenericError", "desc": "no such device"}}
    with (
        client(line(refusal)) as (qmp, _),
        pytest.raises(QmpError, match="QEMU refused device_del: no such device"),
    ):
        qmp.execute("device_del", soon())


def test_an_answer_before_the_end_of_the_connection_counts() -> None:
    with client(line(DONE)) as (qmp, _):
        assert qmp.execute("quit", soon()) == {}


def test_the_end_of_the_connection_is_a_death() -> None:
    with client() as (qmp, _), pytest.raises(MachineDied):
        qmp.execute("stop", soon())


def test_an_end_before_the_greeting_is_a_death() -> None:
    with client(greeting=b'{"QMP"') as (qmp, _), pytest.raises(MachineDied, match="its greeting"):
        qmp.negotiate(soon())


def test_silence_until_the_deadline_is_a_timeout() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(MachineTimeout, match="the answer to stop"):
        QmpClient(ours).execute("stop", time.monotonic())


def test_garbage_instead_of_an_answer_is_a_protocol_error() -> None:
    with client(b"Segmentation fault\n") as (qmp, _), pytest.raises(ProtocolError) as caught:
        qmp.execute("stop", soon())
    assert "Segmentation fault" in caught.value.evidence


def test_a_migration_is_over_when_its_last_event_says_so() -> None:
    events = [migration("setup"), migration("active"), migration("completed")]
    with client(line(DONE) + b"".join(map(line, events))) as (qmp, asked):
        qmp.execute("migrate", soon())
        qmp.wait_migrated(soon())
        assert len(asked) == 1


def test_a_migration_that_has_only_begun_is_waited_for() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(MachineTimeout, match="the end of a migration"):
        theirs.sendall(line(migration("active")))
        QmpClient(ours).wait_migrated(time.monotonic() + 0.05)


@pytest.mark.parametrize(
    ("answer", "reason"), [({"error-desc": "no space"}, "no space"), ({}, "no reason given")]
)
def test_a_failed_migration_says_why(answer: dict[str, str], reason: str) -> None:
    with client(line({"return": answer}), greeting=line(migration("failed"))) as (qmp, asked):
        with pytest.raises(QmpError, match=reason):
            qmp.wait_migrated(soon())
        assert asked[0]["execute"] == "query-migrate"
