"""Text that a guest wrote, made safe to show: control characters in caret notation.

Names (node ids, properties, keywords) also go where nothing escapes what UTF-8 or XML 1.0 (section 2.2, Char)
cannot hold: lone surrogates, U+FFFE and U+FFFF. There, and for execnet, they are written as
Python escapes them.
"""

from __future__ import annotations

import re

__all__ = ["OutputLimit", "caret", "clean", "encodable"]

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_NOT_ENCODABLE = re.compile("[\ud800-\udfff\ufffe\uffff]")

#: ECMA-48 "select graphic rendition", the one escape sequence that only colours.
_SGR = re.compile(r"(\x1b\[[0-9;:]*m)")


def caret(character: str) -> str:
    """``^[`` for escape, ``^?`` for delete, ``M-^[`` for the C1 controls, as cat(1) -v shows them."""
    code = ord(character)
    prefix, code = ("M-", code - 0x80) if code >= 0x80 else ("", code)
    return f"{prefix}^{chr(code ^ 0x40)}"


def _shown(text: str) -> str:
    text = text.replace("\r\n", "\n")
    return _CONTROL.sub(lambda match: caret(match.group()), text)


def encodable(text: str) -> str:
    """``text`` with what UTF-8 or XML cannot hold as Python escapes it."""
    return text if text.isascii() else _NOT_ENCODABLE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def clean(text: str, *, colour: bool = False) -> str:
    """``text`` without control characters but newline and tab; with ``colour`` colours are kept."""
    if not colour:
        return _shown(text)
    parts = _SGR.split(text)
    return "".join(part if index % 2 else _shown(part) for index, part in enumerate(parts))


class OutputLimit:
    """How much of what one test writes is shown: ``most`` characters, and then a line that says so."""

    def __init__(self, most: int) -> None:
        self._most = self._left = most

    def begin(self) -> None:
        """Another test begins: it may write as much as any other."""
        self._left = self._most

    @property
    def reached(self) -> bool:
        """Whether nothing more is shown."""
        return self._left < 0

    def within(self, text: str) -> str:
        """What is shown for ``text``."""
        if self.reached:
            return ""
        left = self._left
        self._left = left - len(text)
        if len(text) <= left:
            return text
        return f"{text[:left]}\n[smol: more than {self._most >> 20} MiB of output, the rest is left out]\n"
