"""About how much memory a message takes: for limits on what a run keeps of its guests."""

from __future__ import annotations

import sys
from typing import Any

from pytest_smol.errors import ProtocolError
from pytest_smol.protocol.wire import Message

__all__ = ["MessageBudget", "weight"]

#: Bytes of an object without its content, as CPython has them on 64 bits.
_OBJECT = 56


def weight(value: Any) -> int:
    """Bytes that plain JSON data takes; a text takes up to four for each character."""
    total = 0
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, str):
            total += sys.getsizeof(each)
            continue
        total += _OBJECT
        if isinstance(each, dict):
            total += sum(map(sys.getsizeof, each))
            left += each.values()
        elif isinstance(each, list):
            left += each
    return total


class MessageBudget:
    """The most, in bytes, that a run keeps of what its guests say about one thing, here ``what``."""

    def __init__(self, what: str, most: int) -> None:
        self._what = what
        self._most = most
        self._kept = 0

    def begin(self) -> None:
        """What is kept from now on is about another thing."""
        self._kept = 0

    def take(self, message: Message) -> None:
        """Count ``message``. Raises :class:`ProtocolError` if that is too much."""
        self._kept += weight(message)
        if self._kept > self._most:
            raise ProtocolError(
                f"{self._what} reported more than {self._most >> 20} MiB",
                remedy="what is to be kept can be written to a file that smol_artifacts names",
            )
