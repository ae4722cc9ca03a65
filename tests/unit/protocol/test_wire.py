"""Frames and messages: whole, in pieces, with trailing data, and as a hostile peer would send them."""

from __future__ import annotations

import enum
import json
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_smol.protocol.wire import FROM_GUEST, MAX_FRAME, TO_GUEST, Decoder, Message, WireError, encode

DONE = encode({"type": "done"})


def frame(body: bytes) -> bytes:
    return struct.pack("<I", len(body)) + body


def decode(data: bytes) -> list[Message]:
    return list(Decoder(FROM_GUEST).feed(data))


def carried(value: object) -> Any:
    """What is left of ``value`` after its way through both ends."""
    (message,) = decode(encode({"type": "report", "index": 0, "data": {"value": value}}))
    return message["data"]["value"]


def refused(data: bytes) -> str:
    with pytest.raises(WireError) as caught:
        decode(data)
    return str(caught.value)


# --- frames


def test_a_frame_is_a_little_endian_length_and_ascii_json() -> None:
    assert encode({"type": "ready", "python": "ü"}) == frame(b'{"type": "ready", "python": "\\u00fc"}')


def test_frames_are_decoded_whole_and_byte_by_byte() -> None:
    data = encode({"type": "start", "index": 3}) + DONE
    decoder = Decoder(FROM_GUEST)
    pieces = [message for byte in data for message in decoder.feed(bytes([byte]))]
    assert decode(data) == pieces == [{"type": "start", "index": 3}, {"type": "done"}]
    assert decoder.pending == 0


def test_trailing_data_waits_for_the_rest_of_its_frame() -> None:
    decoder = Decoder(FROM_GUEST)
    assert list(decoder.feed(DONE + DONE[:7])) == [{"type": "done"}]
    assert decoder.pending == 7
    assert list(decoder.feed(DONE[7:])) == [{"type": "done"}]


def test_a_length_beyond_the_cap_is_refused_before_its_body_arrives() -> None:
    assert str(MAX_FRAME + 1) in refused(struct.pack("<I", MAX_FRAME + 1))


def test_a_length_at_the_cap_is_waited_for() -> None:
    assert decode(struct.pack("<I", MAX_FRAME) + b" " * 100) == []


def test_after_an_error_nothing_is_accepted_any_more() -> None:
    decoder = Decoder(FROM_GUEST)
    with pytest.raises(WireError) as first:
        list(decoder.feed(frame(b"[]")))
    with pytest.raises(WireError) as second:
        list(decoder.feed(DONE))
    assert second.value is first.value


def test_messages_before_a_bad_one_count() -> None:
    stream = Decoder(FROM_GUEST).feed(DONE + frame(b"null"))
    assert next(stream) == {"type": "done"}
    with pytest.raises(WireError):
        next(stream)


# --- what is no message


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not strict JSON"),
        (b"{", "not strict JSON"),
        (b"\xff", "not strict JSON"),
        ('{"type": "dönë"}'.encode(), "not strict JSON"),
        (b"[]", "a message is an object"),
        (b'"done"', "a message is an object"),
        (b'{"type": "done", "type": "done"}', "twice"),
        (b'{"type": "start", "index": NaN}', "NaN"),
        (b'{"type": "start", "index": Infinity}', "Infinity"),
        (b'{"type": "start", "index": 123456789012345678901}', "too long"),
        (b"{}", "unknown type"),
        (b'{"type": null}', "unknown type"),
        (b'{"type": {}}', "unknown type"),
        (b'{"type": ["done"]}', "unknown type"),
        (b'{"type": "run", "steps": [], "failed": 0}', "unknown type"),
        (b'{"type": "done", "more": 1}', "wrong fields"),
        (b'{"type": "start"}', "wrong fields"),
        (b'{"type": "start", "index": true}', "wrong type"),
        (b'{"type": "start", "index": 1.0}', "wrong type"),
        (b'{"type": "start", "index": null}', "wrong type"),
        (b'{"type": "stop", "kind": "", "reason": "", "returncode": "0", "place": null}', "wrong type"),
    ],
)
def test_what_is_no_message_is_refused(body: bytes, reason: str) -> None:
    assert reason in refused(frame(body))


@pytest.mark.parametrize(
    "nested", [b"[" * 60 + b"]" * 60, b'{"a":' * 60 + b"0" + b"}" * 60, b"[" * 100_000], ids=len
)
def test_nesting_that_would_exhaust_a_stack_is_refused(nested: bytes) -> None:
    assert "not strict JSON" in refused(frame(b'{"type": "nodes", "rows": ' + nested + b"}"))


def test_a_null_that_a_field_allows_is_accepted() -> None:
    message = {"type": "stop", "kind": "exit", "reason": "", "returncode": None, "place": None}
    assert decode(encode(message)) == [message]


_SAMPLES: dict[type, Any] = {str: "x", int: 1, bool: True, list: [1], dict: {"a": 1}, type(None): None}


def _samples(table: Any) -> Iterator[tuple[Any, Message]]:
    for kind, fields in table.items():
        yield table, {"type": kind, **{name: _SAMPLES[types[0]] for name, types in fields.items()}}


@pytest.mark.parametrize(("table", "message"), [*_samples(TO_GUEST), *_samples(FROM_GUEST)])
def test_every_message_of_the_tables_crosses(table: Any, message: Message) -> None:
    assert list(Decoder(table).feed(encode(message))) == [message]


@pytest.mark.parametrize(("table", "message"), [*_samples(TO_GUEST), *_samples(FROM_GUEST)])
def test_no_field_may_be_missing(table: Any, message: Message) -> None:
    for name in message.keys() - {"type"}:
        less = {key: value for key, value in message.items() if key != name}
        with pytest.raises(WireError, match="wrong fields"):
            list(Decoder(table).feed(encode(less)))


# --- what a test may attach


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class Colour(enum.IntEnum):
    RED = 1


class Shouting(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "LOUD"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("\ud800 \U0001f600 \x00", "\ud800 \U0001f600 \x00"),
        (1 << 62, 1 << 62),
        (-(1 << 63) + 1, -(1 << 63) + 1),
        (1e300, 1e300),
        (Colour.RED, 1),
        (Shouting("quiet"), "quiet"),
        ((1, 2), [1, 2]),
        (10**30, str(10**30)),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (b"bytes", "b'bytes'"),
        ({1, 2}, "{1, 2}"),
        ({1: "a", (2, 3): "b", None: "c"}, {"1": "a", "(2, 3)": "b", "None": "c"}),
        ({1: "first", "1": "second"}, {"1": "second"}),
        ({Shouting("key"): 0}, {"key": 0}),
        (Unprintable(), "<unprintable Unprintable: RuntimeError>"),
        ({Unprintable(): 0}, {"<unprintable Unprintable: RuntimeError>": 0}),
    ],
)
def test_any_value_arrives_as_itself_or_as_text(value: object, expected: object) -> None:
    assert carried(value) == expected


def test_an_integer_that_python_may_refuse_to_show_is_text() -> None:
    assert isinstance(carried(10**5000), str)


def test_endless_and_very_deep_values_arrive_cut() -> None:
    endless: list[Any] = []
    endless.append(endless)
    deep: Any = "bottom"
    for _ in range(100_000):
        deep = [deep]
    for value in (endless, deep):
        levels = 0
        left = carried(value)
        while isinstance(left, list):
            left, levels = left[0], levels + 1
        assert levels > 40
        assert isinstance(left, str)


def test_a_message_that_is_too_large_is_not_sent() -> None:
    with pytest.raises(WireError, match="'ready' message"):
        encode({"type": "ready", "python": "x" * MAX_FRAME})


def test_the_largest_frame_crosses() -> None:
    empty = len(encode({"type": "ready", "python": ""})) - 4
    message = {"type": "ready", "python": "x" * (MAX_FRAME - empty)}
    assert decode(encode(message)) == [message]


# --- properties

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.none(), inner),
    max_leaves=20,
)


@given(json_values)
def test_whatever_is_encoded_is_accepted(value: object) -> None:
    carried(value)


@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_wire_errors(data: bytes) -> None:
    try:
        decode(data)
    except WireError:
        return


@given(json_values)
def test_random_objects_raise_nothing_but_wire_errors(value: object) -> None:
    try:
        decode(frame(json.dumps(value, default=repr).encode()))
    except WireError:
        return


@given(st.lists(st.sampled_from([DONE, encode({"type": "start", "index": 1})])), st.data())
def test_it_does_not_matter_where_a_stream_is_split(frames: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(frames)
    cut = data.draw(st.integers(0, len(stream)))
    decoder = Decoder(FROM_GUEST)
    parts = [*decoder.feed(stream[:cut]), *decoder.feed(stream[cut:])]
    assert parts == decode(stream)


@pytest.mark.parametrize("many", [b"[" + b"[],[]," * (1 << 19) + b"0]", b"[" + b'"",' * (1 << 21) + b"0]"])
def test_many_small_values_are_refused(many: bytes) -> None:
    """Each takes many times what it takes in the frame."""
    assert "too many values" in refused(frame(b'{"type": "header", "lines": ' + many + b"}"))


@pytest.mark.parametrize("text", ["1,2,[{" * (1 << 19), '\\"' * (1 << 20), "\\\\,[" * (1 << 19)])
def test_a_text_may_hold_what_looks_like_many_values(text: str) -> None:
    message: Message = {"type": "header", "lines": [text]}
    assert list(Decoder(FROM_GUEST).feed(encode(message))) == [message]
