"""About how much memory a message takes: for limits on what a run keeps of its guests."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any

from pytest_smol.errors import ProtocolError
from pytest_smol.protocol.wire import Message

__all__ = ["MessageBudget", "RunBudget", "weight"]

#: What each thing (a test, a hook) may take that does not count towards the limit of the run, in bytes: tests
#: that report little are not refused because others reported much.
FREE = 64 << 10

#: Controls are shown in caret notation, in up to four characters; surrogates and noncharacters in six.
_LONGER_WHEN_SHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_MOST_ADDED = 5


def weight(value: Any) -> int:
    """Bytes that plain JSON data takes, with its text as it is shown; up to four for each character."""
    total = 0
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, str):
            total += _text_weight(each)
            continue
        total += sys.getsizeof(each)
        if isinstance(each, dict):
            total += sum(map(_text_weight, each))
            left += each.values()
        elif isinstance(each, list):
            left += each
    return total


def _text_weight(text: str) -> int:
    size = sys.getsizeof(text)
    if text.isprintable():
        return size
    longer = len(text) - len(_LONGER_WHEN_SHOWN.sub("", text))
    return size + longer * _MOST_ADDED * (1 + size // len(text))


class RunBudget:
    """The most, in bytes, that a run keeps of what its guests say about all things, here ``what``."""

    def __init__(self, most: int, what: str, remedy: str) -> None:
        self._most = self._left = most
        self._what = what
        self._remedy = remedy

    def take(self, amount: int) -> None:
        """Count ``amount`` bytes. Raises :class:`ProtocolError`, and counts nothing, if that is too much."""
        if not self.allows(amount):
            raise _too_much(self._what, self._most, self._remedy)

    def allows(self, amount: int) -> bool:
        """Count ``amount`` bytes if they are not too much; whether they are not."""
        if amount > self._left:
            return False
        self._left -= amount
        return True


class MessageBudget:
    """The most, in bytes, that a run keeps of what its guests say about one thing, here ``what``.

    What it takes beyond :data:`FREE` counts towards the budget of the ``run`` as well.
    """

    def __init__(self, what: str, most: int, run: RunBudget | None = None) -> None:
        self._what = what
        self._most = most
        self._run = run
        self.begin()

    def begin(self) -> None:
        """What is kept from now on is about another thing."""
        self._kept = 0

    def take(self, message: Message) -> None:
        """Count ``message``. Raises :class:`ProtocolError` if that is too much."""
        self.add(weight(message))

    def add(self, amount: int) -> None:
        """Count ``amount`` bytes more. Raises :class:`ProtocolError` if that is too much."""
        before = max(self._kept, FREE)
        self._kept += amount
        if self._kept > self._most:
            raise _too_much(
                self._what,
                self._most,
                "what is to be kept can be written to a file that smol_artifacts names",
            )
        if self._run is not None and self._kept > before:
            self._run.take(self._kept - before)

    def allows_beyond(self, texts: Iterable[str]) -> bool:
        """Whether the run may keep ``texts`` of the host's own about the thing; counts them if it may."""
        return self._run is None or self._run.allows(sum(map(_text_weight, texts)))


def _too_much(what: str, most: int, remedy: str) -> ProtocolError:
    amount = f"{most >> 20} MiB" if most >= 1 << 20 else f"{most >> 10} KiB"
    return ProtocolError(f"{what} reported more than {amount}", remedy=remedy)
