"""Messages and output that come over several ports are put into the order in which they were sent."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_smol.protocol.output_order import MOST_HELD, OutputOrder
from pytest_smol.protocol.wire import MARKER

#: What a guest does: a number is a message, text is output of a stream.
Deeds = list[Any]


class Taker:
    """Feeds an output_order and notes what comes out."""

    def __init__(self) -> None:
        self.output_order = OutputOrder()
        self.seen: Deeds = []

    def show(self, name: str, data: bytes) -> None:
        self.seen.append((name, data.decode()))

    def say(self, number: object, mark: dict[str, Any] | None = None) -> None:
        """A message that is marked."""
        self.output_order.message(MARK if mark is None else mark)
        self.output_order.message(message(number))

    def take_all(self) -> Deeds:
        while (message := self.output_order.next(self.show)) is not None:
            self.seen.append(message["type"])
        return joined(self.seen)


def joined(deeds: Deeds) -> Deeds:
    """``deeds`` with neighbouring output of one stream put together."""
    result: Deeds = []
    for is_output, group in itertools.groupby(deeds, lambda deed: isinstance(deed, tuple)):
        if is_output:
            streams: dict[str, str] = {}
            for name, text in group:
                streams[name] = streams.get(name, "") + text
            result += sorted(streams.items())
        else:
            result += group
    return result


def message(number: object) -> dict[str, Any]:
    return {"type": number}


MARK: dict[str, Any] = {"type": "mark", "stderr": False}
BOTH: dict[str, Any] = {"type": "mark", "stderr": True}


output = st.tuples(st.sampled_from(["stdout", "stderr"]), st.text("a\x1e0", min_size=1, max_size=4))


@given(st.lists(st.integers(0, 9) | output, max_size=12), st.lists(st.integers(1, 9), min_size=1, max_size=9))
def test_what_is_sent_in_order_comes_in_order_however_it_is_cut(deeds: Deeds, cuts: list[int]) -> None:
    streams = {"stdout": b"", "stderr": b""}
    taker = Taker()
    for deed in deeds:
        if isinstance(deed, tuple):
            streams[deed[0]] += deed[1].encode()
        else:
            taker.output_order.message(BOTH)
            taker.output_order.message(message(deed))
            streams = {name: data + MARKER for name, data in streams.items()}
    for name, data in streams.items():
        at = 0
        for cut in itertools.cycle(cuts):
            taker.output_order.output(name, data[at : at + cut])
            at += cut
            if at >= len(data):
                break
    taker.take_all()
    taker.output_order.flush(taker.show)
    assert joined(taker.seen) == joined(deeds)


def test_output_after_a_marker_waits_for_the_message() -> None:
    taker = Taker()
    taker.output_order.output("stdout", b"before" + MARKER + b"after")
    assert taker.take_all() == [("stdout", "before")]
    taker.say("report")
    assert taker.take_all() == [("stdout", "before"), "report", ("stdout", "after")]


def test_output_is_due_at_once_while_no_marker_comes() -> None:
    taker = Taker()
    taker.output_order.output("stdout", b"some\x1e")
    assert taker.take_all() == [("stdout", "some")]
    taker.output_order.output("stdout", b"more")
    assert taker.take_all() == [("stdout", "some\x1emore")]


def test_a_message_that_is_marked_waits_for_the_output_before_it() -> None:
    taker = Taker()
    taker.output_order.message(message("unmarked"))
    taker.say("marked")
    assert taker.take_all() == ["unmarked"]
    assert taker.output_order.waits
    taker.output_order.output("stdout", b"text" + MARKER[:5])
    assert taker.take_all() == ["unmarked", ("stdout", "text")]
    taker.output_order.output("stdout", MARKER[5:])
    assert not taker.output_order.waits
    assert taker.take_all() == ["unmarked", ("stdout", "text"), "marked"]


def test_both_streams_are_waited_for_where_both_are_marked() -> None:
    taker = Taker()
    taker.say("marked", BOTH)
    taker.output_order.output("stdout", MARKER)
    assert taker.output_order.waits
    taker.output_order.output("stderr", MARKER)
    assert taker.take_all() == ["marked"]


def test_printing_only_keeps_output_behind_what_was_before() -> None:
    taker = Taker()
    taker.output_order.output("stdout", MARKER + b"printed")
    assert taker.take_all() == []
    taker.output_order.message(message("report"))
    taker.say("printing")
    assert taker.take_all() == ["report", ("stdout", "printed")]


def test_a_guest_that_left_markers_out_is_never_waited_for_again() -> None:
    taker = Taker()
    for number in range(3):
        taker.say(number)
    assert taker.take_all() == []
    taker.output_order.give_up()
    assert taker.take_all() == [0, 1, 2]


def test_a_marker_that_comes_after_its_message_holds_up_nothing() -> None:
    taker = Taker()
    taker.say("first")
    taker.output_order.give_up()
    assert taker.take_all() == ["first"]
    taker.output_order.output("stdout", b"a" + MARKER + b"b")
    assert taker.take_all() == ["first", ("stdout", "ab")]


def test_markers_are_no_output() -> None:
    taker = Taker()
    assert taker.output_order.output("stderr", b"a" + MARKER + b"b" + MARKER) == b"ab"


def test_forged_markers_hold_up_no_message() -> None:
    taker = Taker()
    taker.output_order.output("stdout", MARKER * 5 + b"late")
    taker.say("report")
    taker.output_order.message(message("another"))
    assert taker.take_all() == ["report", "another"]
    taker.output_order.flush(taker.show)
    assert taker.seen == ["report", "another", ("stdout", "late")]


@pytest.mark.parametrize("size", [1 << 10, 1 << 16])
def test_no_more_than_a_bound_is_held(size: int) -> None:
    taker = Taker()
    taker.output_order.output("stdout", MARKER)
    fed = 0
    while fed < 2 * MOST_HELD:
        taker.output_order.output("stdout", b"x" * size + MARKER)
        assert taker.output_order.next(taker.show) is None
        fed += size
    assert sum(len(text) for _, text in taker.seen) >= fed - MOST_HELD - size
