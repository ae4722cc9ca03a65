"""What a guest sends to the terminal, and the key that takes it back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_smol.machine.terminal_filter import EscapeKey, TerminalFilter

CLIPBOARD = b"52;c;aGVsbG8="

#: Control strings by name, in all their forms.
STRINGS = {
    "OSC with BEL": b"\x1b]" + CLIPBOARD + b"\x07",
    "OSC with ST": b"\x1b]" + CLIPBOARD + b"\x1b\\",
    "OSC with an 8-bit ST": b"\x1b]" + CLIPBOARD + "\x9c".encode(),
    "an 8-bit OSC": "\x9d".encode() + CLIPBOARD + b"\x07",
    "a raw 8-bit OSC": b"\x9d" + CLIPBOARD + b"\x07",
    "a raw 8-bit OSC and ST": b"\x9d" + CLIPBOARD + b"\x9c",
    "DCS": b"\x1bP$q q\x1b\\",
    "APC": b"\x1b_Gf=100;AAAA\x1b\\",
    "PM": b"\x1b^private\x1b\\",
    "SOS": b"\x1bXstring\x1b\\",
    "OSC aborted": b"\x1b]0;title\x18",
    "OSC cut short by another": b"\x1b]0;title\x1b]1;icon\x07",
}

HARMLESS = (
    b"plain text\r\n\tand tabs",
    "é, 漢字 and 🐍".encode(),
    b"\x1b[31;1mred\x1b[0m",
    b"\x1b[2J\x1b[H\x1b[10;20H\x1b[K",
    b"\x1b[?1049h\x1b[?25l\x1b[?2004h",
    b"\x1b(B\x1b)0\x1b=\x1b>\x1b7\x1b8\x1bM\x1bc",
    b"\x1b[6n",
    b"a\x08b\x07",
)


@pytest.mark.parametrize("string", STRINGS.values(), ids=STRINGS)
def test_control_strings_are_dropped(string: bytes) -> None:
    assert TerminalFilter().feed(b"before" + string + b"after") == b"beforeafter"


@pytest.mark.parametrize("string", STRINGS.values(), ids=STRINGS)
def test_control_strings_are_dropped_however_they_are_cut(string: bytes) -> None:
    strainer = TerminalFilter()
    assert b"".join(strainer.feed(bytes([byte])) for byte in b"before" + string + b"after") == b"beforeafter"


@pytest.mark.parametrize("text", HARMLESS)
def test_what_debuggers_and_editors_need_is_passed_on(text: bytes) -> None:
    assert TerminalFilter().feed(text) == text


@pytest.mark.parametrize("sequence", [b"\x1b[21t", b"\x1b[5i", b"\x1b[?5i", b"\x9b21t", "\x9b21t".encode()])
def test_reports_of_text_and_printing_are_dropped(sequence: bytes) -> None:
    assert TerminalFilter().feed(b"a" + sequence + b"b") == b"ab"


def test_an_8_bit_control_sequence_is_passed_on_in_7_bits() -> None:
    assert TerminalFilter().feed("\x9b31m".encode()) == b"\x1b[31m"


def test_a_sequence_without_end_is_not_kept() -> None:
    strainer = TerminalFilter()
    assert b"\x1b" not in strainer.feed(b"\x1b[" + b"1;" * 1_000_000)
    assert len(strainer._sequence) < 1000


def test_a_string_without_end_is_not_kept() -> None:
    strainer = TerminalFilter()
    assert strainer.feed(b"\x1b]" + b"x" * 1_000_000) == b""
    assert strainer.feed(b"\x07shown") == b"shown"


@given(st.lists(st.binary(max_size=40)))
def test_nothing_that_begins_a_control_string_is_ever_passed_on(pieces: list[bytes]) -> None:
    strainer = TerminalFilter()
    passed = b"".join(map(strainer.feed, pieces)).decode("utf-8", "surrogateescape")
    assert not any("\udc80" <= character < "\udca0" for character in passed)
    assert not any(f"\x1b{start}" in passed for start in "PX]^_")
    assert not any("\x80" <= character <= "\x9f" for character in passed)


@given(st.text())
def test_text_without_control_characters_is_passed_on(text: str) -> None:
    plain = "".join(character for character in text if character.isprintable())
    assert TerminalFilter().feed(plain.encode()) == plain.encode()


@pytest.mark.parametrize(
    ("pieces", "sent", "ended"),
    [
        ([b"abc"], b"abc", False),
        ([b"a\x1d\x1db"], b"a", True),
        ([b"a\x1d", b"\x1d"], b"a", True),
        ([b"a\x1d", b"b\x1d", b"c"], b"a\x1db\x1dc", False),
        ([b"\x1d"], b"", False),
        ([b"\x1d", b"", b"\x1d"], b"", True),
    ],
)
def test_the_key_typed_twice_takes_the_terminal_back(pieces: list[bytes], sent: bytes, ended: bool) -> None:
    key = EscapeKey()
    passed, found = b"", False
    for piece in pieces:
        data, found = key.feed(piece)
        passed += data
    assert (passed, found) == (sent, ended)
