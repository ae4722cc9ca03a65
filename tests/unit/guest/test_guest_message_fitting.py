"""Messages that are too large: shortened so that they fit, with a line that says so."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_smol.guest.message_fitting import cut_list, cut_text, frame
from pytest_smol.protocol.wire import FROM_GUEST, MAX_FRAME, Decoder, Message, WireError, encode
from tests.plugin.test_lies import report

MIB = 1 << 20


def sent(message: Message, most: int = MAX_FRAME) -> Message:
    """``message`` as the host gets it."""
    data = frame(message, most)
    assert len(data) <= most + 4
    (received,) = Decoder(FROM_GUEST).feed(data)
    return received


def test_a_text_keeps_its_begin_and_its_end() -> None:
    assert cut_text("abcdef", 6) == "abcdef"
    assert cut_text("abcdefg", 4) == "ab\n[smol: 3 characters are left out here]\nfg"


def test_a_list_keeps_its_begin_and_its_end() -> None:
    assert cut_list(["a", "b"], 2) == ["a", "b"]
    assert cut_list(["a", "b", "c", "d"], 2) == ["a", "[smol: 2 lines are left out here]", "d"]
    assert cut_list([1, 2, 3, 4], 2) == [1, "[smol: 2 values are left out here]", 4]
    assert cut_list([{"a": 1}] * 9, 4) == [{"a": 1}] * 4


def test_what_fits_is_sent_as_it_is() -> None:
    assert frame(report("call", longrepr="x")) == encode(report("call", longrepr="x"))


def test_one_long_text_costs_no_other() -> None:
    sections = [("Captured stdout call", "x" * (20 * MIB)), ("Captured log call", "y" * 1000)]
    data = sent(report("call", sections=sections), 8 * MIB)["data"]
    (_, long), (_, short) = data["sections"]
    assert short == "y" * 1000
    assert long.count("x") == 4 * MIB
    assert f"[smol: {16 * MIB} characters are left out here]" in long


LARGE: dict[str, dict[str, Any]] = {
    "ascii": {"longrepr": "x" * (MAX_FRAME + 1)},
    "escapes": {"longrepr": "\U0001f600" * (MAX_FRAME >> 3)},
    "sections": {"sections": [("a title", "x" * MIB)] * 20},
    "properties": {"user_properties": [["name", {"deep": ["x" * MAX_FRAME]}]]},
    "lines": {"longrepr": {"reprtraceback": {"reprentries": [{"data": {"lines": ["a line"] * (2 * MIB)}}]}}},
    "frames": {
        "longrepr": {"reprtraceback": {"reprentries": [{"data": {"lines": ["a line" * 99] * 99}}] * 300}}
    },
}


@pytest.mark.parametrize("data", LARGE.values(), ids=LARGE.keys())
@pytest.mark.parametrize("most", [MAX_FRAME, MIB // 2])
def test_a_report_that_is_too_large_arrives_nonetheless(data: dict[str, Any], most: int) -> None:
    received = sent(report("call", outcome="failed", **data), most)
    assert received["data"]["outcome"] == "failed"
    assert received["data"].keys() == report("call")["data"].keys()


def test_values_that_hold_themselves_arrive() -> None:
    endless: dict[str, Any] = {"text": "x" * (MAX_FRAME >> 6)}
    endless["more"] = endless
    assert sent(report("call", user_properties=[endless]))["data"]["user_properties"]


def test_what_cannot_be_shortened_is_an_error() -> None:
    """A node id that is cut would be another's."""
    with pytest.raises(WireError, match="larger"):
        frame({"type": "nodes", "rows": ["x" * (MAX_FRAME + 1)]})
