"""Guest text made safe to show."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_smol.reports.text import OutputLimit, caret, clean, encodable

CONTROLS = [chr(code) for code in [*range(0x20), *range(0x7F, 0xA0)] if chr(code) not in "\t\n"]


@pytest.mark.parametrize(
    ("character", "shown"),
    [("\x00", "^@"), ("\x1b", "^["), ("\x7f", "^?"), ("\x80", "M-^@"), ("\x9b", "M-^["), ("\x9f", "M-^_")],
)
def test_controls_are_shown_as_cat_does(character: str, shown: str) -> None:
    assert caret(character) == clean(character) == shown


@pytest.mark.parametrize("character", CONTROLS)
@pytest.mark.parametrize("colour", [False, True])
def test_no_control_character_is_left(character: str, colour: bool) -> None:
    assert character not in clean(f"a{character}b", colour=colour)


@pytest.mark.parametrize("text", ["", "a\tb\nc", "näïve 日本 \U0001f600", "\u00a0", "~ "])
def test_plain_text_is_left_as_it_is(text: str) -> None:
    assert clean(text) == clean(text, colour=True) == text


def test_line_ends_of_a_terminal_are_line_ends() -> None:
    assert clean("a\r\nb\rc") == "a\nb^Mc"


def test_colours_are_kept_only_where_colour_is_wanted() -> None:
    text = "\x1b[1;31mred\x1b[0m"
    assert clean(text, colour=True) == text
    assert clean(text) == "^[[1;31mred^[[0m"


@pytest.mark.parametrize(
    "sequence",
    ["\x1b[2J", "\x1b]0;title\x07", "\x1b[?25l", "\x1b[31", "\x1b[3\x1b[1m1m\x07", "\x9b31m", "\x1b[31;K"],
)
def test_with_colour_nothing_but_colours_passes(sequence: str) -> None:
    left = re.sub(r"\x1b\[[0-9;:]*m", "", clean(sequence, colour=True))
    assert not set(left) & set(CONTROLS)


@given(st.text())
def test_what_is_clean_stays_as_it_is(text: str) -> None:
    assert clean(clean(text)) == clean(text)


@given(st.text(st.sampled_from("\x1b[3;1m\x07\r\na")))
def test_no_mixture_lets_an_escape_through(text: str) -> None:
    left = re.sub(r"\x1b\[[0-9;:]*m", "", clean(text, colour=True))
    assert not set(left) & set(CONTROLS)


def test_output_past_its_limit_is_left_out_and_told_once() -> None:
    limit = OutputLimit(1 << 20)
    assert limit.within("x" * (1 << 20)) == "x" * (1 << 20)
    assert not limit.reached
    assert limit.within("") == ""
    assert limit.within("y") == "\n[smol: more than 1 MiB of output, the rest is left out]\n"
    assert limit.reached
    assert limit.within("z") == ""


def test_a_text_across_the_limit_is_cut_there_and_each_test_has_its_own() -> None:
    limit = OutputLimit(5)
    assert limit.within("abcdefg").startswith("abcde\n[smol: ")
    limit.begin()
    assert limit.within("abc") == "abc"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\ud800", "\\ud800"),
        ("a\udc80b\udfff", "a\\udc80b\\udfff"),
        ("\ufffe\uffff\ufffd", "\\ufffe\\uffff\ufffd"),
    ],
)
def test_what_files_cannot_hold_is_escaped(text: str, shown: str) -> None:
    assert encodable(text) == shown
    assert clean(text) == text


@given(st.text(st.characters()))
def test_all_text_can_be_encoded_and_written_to_xml(text: str) -> None:
    shown = encodable(clean(text))
    shown.encode("utf-8")
    assert ElementTree.fromstring(ElementTree.tostring(_element(shown))).get("name") is not None


def _element(text: str) -> ElementTree.Element:
    return ElementTree.Element("property", name=text)
