"""Decisions out of a fuzzer's bytes: the same bytes always make the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

__all__ = ["Supply"]

T = TypeVar("T")


class Supply:
    """Takes ``data`` from its start. Beyond its end numbers are zero: all bytes mean something."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Whether anything is left."""
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes, fewer where no more are left."""
        taken = self._data[self._at : self._at + size]
        self._at += len(taken)
        return taken

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data))

    def number(self, size: int = 1) -> int:
        """A number of ``size`` bytes, little-endian."""
        return int.from_bytes(self.take(size), "little")

    def choice(self, choices: Sequence[T]) -> T:
        """One of at most 256 ``choices``."""
        return choices[self.number() % len(choices)]
