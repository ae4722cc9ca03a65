"""Shortens messages that are too large: long texts and lists are cut, with a line that says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_smol.protocol.wire import MAX_FRAME, Message, WireError, encode

#: Types of messages whose texts are only shown to users, so that they may be shortened.
_READ = ("report", "collect_report", "warning", "suite_property", "stop", "usage_error")

#: The shortest length that texts are cut to, in characters.
_SHORTEST = 256

#: A list may have one element for this many characters that a text may have.
_PER_ELEMENT = 16

#: The deepest nesting in a message; what is nested deeper, or contains itself, is sent as its repr.
_MAX_DEPTH = 50


def frame(message: Message, most: int = MAX_FRAME) -> bytes:
    """The frame of ``message``, shortened to ``most`` bytes if it is larger and its type allows it.

    Raises :class:`WireError` where it is too large all the same.
    """
    if message["type"] not in _READ:
        return encode(message)
    try:
        return encode(message, most)
    except WireError:
        return _shortened(message, most)


def _shortened(message: Message, most: int) -> bytes:
    length = most // 2
    while length > _SHORTEST:
        try:
            return encode(_cut(message, length), most)
        except WireError:
            length //= 2
    return encode(_cut(message, _SHORTEST), most)


def cut_text(text: str, most: int) -> str:
    """``text``, or if it is longer than ``most`` characters its first and last halves of that.

    A line between them tells how many characters are left out.
    """
    if len(text) <= most:
        return text
    head, tail = text[: most // 2], text[len(text) - most // 2 :]
    return f"{head}\n[smol: {len(text) - len(head) - len(tail)} characters are left out here]\n{tail}"


def cut_list(values: list[Any], most: int) -> list[Any]:
    """``values``, or if there are more than ``most`` the first and the last half of that many.

    A text between them tells how many are left out, unless elements are containers themselves
    (frames of a traceback): no text may stand among those.
    """
    if len(values) <= most:
        return values
    head, tail = values[: most // 2], values[len(values) - most // 2 :]
    if any(isinstance(value, (dict, list, tuple)) for value in values):
        return head + tail
    kind = "lines" if all(isinstance(value, str) for value in values) else "values"
    return [*head, f"[smol: {len(values) - len(head) - len(tail)} {kind} are left out here]", *tail]


def _cut(value: Any, length: int, depth: int = 0) -> Any:
    if isinstance(value, str):
        return cut_text(str.__str__(value), length)
    if depth < _MAX_DEPTH and isinstance(value, Mapping):
        return {key: _cut(each, length, depth + 1) for key, each in value.items()}
    if depth < _MAX_DEPTH and isinstance(value, (list, tuple)):
        return [_cut(each, length, depth + 1) for each in cut_list(list(value), length // _PER_ELEMENT)]
    return value
