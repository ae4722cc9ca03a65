"""Whether a file's content is a credential or holds some: the tables of ``patterns.py``, applied."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from pytest_smol.virtiofs.hiding.patterns import FILES, RARE, TOKENS, Anchor, Pattern, View

__all__ = [
    "LOOKED_INTO",
    "compiled_holds_tokens",
    "find_tokens",
    "holds_credentials",
    "holds_secret",
    "source_holds_tokens",
]

LOOKED_INTO = 64 << 10
"""Bytes of a file that are searched for credentials; no private key is larger."""

#: Private keys and credentials of accounts, for files whose name alone makes them suspects.
_SUSPECT = re.compile(
    rb"(?:^|\x00)[ \t\xef\xbb\xbf]{0,20}(?:-{4,5} ?BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY|PuTTY-User-Key-File-)"
    rb"|\"(?:private_key|client_secret|refresh_token)\"\s{0,40}:",
    re.MULTILINE,
)
#: Source: RFC 5208, RFC 5958 (PKCS #8), RFC 8017 (PKCS #1) and RFC 5915 in DER.
_DER = re.compile(
    rb"\x30(?:[\x00-\x7f]|\x81.|\x82..)(?:\x02\x01[\x00\x01]\x30[\x05-\x40]\x06|\x02\x01\x00\x02[\x81\x82]|\x02\x01\x01\x04[\x1c-\x42])",
    re.DOTALL,
)
_UTF16 = {b"\xff\xfe": 0, b"\xfe\xff": 1}
"""Byte order marks, and which byte of two is that of an ASCII character."""

#: AWS ends the sample keys of its documentation so. Source code quotes them, and tests compare with them.
_SAMPLES = (b"EXAMPLE", b"EXAMPLEKEY")


def _table(classes: dict[str, str]) -> bytes:
    table = bytearray(b" " * 256)
    for letters, replacement in classes.items():
        for letter in letters.encode():
            table[letter] = ord(replacement)
    return bytes(table)


_SMALL, _CAPITAL, _DIGITS = "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789"
_CLASSES = {
    View.WORDS: _table({_SMALL + _CAPITAL + _DIGITS: "a", "_": "_", "-": "-", ".": "."}),
    View.CAPITALS: _table({_CAPITAL + _DIGITS: "a"}),
}


class _Scanner:
    """Searches for the rows of a table."""

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self._groups: dict[Anchor, list[Pattern]] = {}
        for pattern in patterns:
            self._groups.setdefault(pattern.anchors[0], []).append(pattern)

    def _candidates(self, data: bytes) -> Iterator[Pattern]:
        """The rows all of whose anchors are in ``data``."""
        views = {View.RAW: data, **{view: data.translate(classes) for view, classes in _CLASSES.items()}}
        for (view, anchor), rows in self._groups.items():
            if anchor in views[view]:
                for row in rows:
                    if all(other in views[place] for place, other in row.anchors[1:]):
                        yield row

    def may_match(self, data: bytes) -> bool:
        """Whether some row matches, be it within a longer word."""
        return any(row.regex.search(data) for row in self._candidates(data))

    def matches(self, data: bytes) -> Iterator[re.Match[bytes]]:
        """All matches, row by row."""
        for row in self._candidates(data):
            for match in row.regex.finditer(data):
                before, after = data[match.start() - 1 : match.start()], data[match.end() : match.end() + 1]
                if not (row.word and (before.isalnum() or after.isalnum())):
                    yield match


_IN_SOURCE = _Scanner(TOKENS)
_IN_DATA = _Scanner((*FILES, *TOKENS, *RARE))


def _is_text(data: bytes) -> bool:
    """Whether ``data`` looks like text: it has no NUL at its start."""
    return b"\0" not in data[:4096]


def holds_secret(data: bytes) -> bool:
    """Whether there is a private key or an account's credentials in a file with a suspicious name."""
    return _SUSPECT.search(data) is not None or holds_credentials(data)


def holds_credentials(data: bytes) -> bool:
    """Whether ``data``, the first 64 KiB of a file of any name, is or holds a credential."""
    first = _UTF16.get(data[:2])
    if first is not None:
        data = data[2 + first :: 2]
    if not _is_text(data):
        return _DER.match(data) is not None
    return any(True for _ in _IN_DATA.matches(data))


def find_tokens(data: bytes) -> list[tuple[int, int]]:
    """Where tokens and private keys are in ``data``, source code or compiled code: begins and ends.

    The sample keys of AWS's documentation are left out.
    """
    return [
        match.span("secret" if match.re.groupindex else 0)
        for match in _IN_SOURCE.matches(data)
        if not match[0].endswith(_SAMPLES)
    ]


def source_holds_tokens(data: bytes) -> bool:
    """Whether :func:`find_tokens` finds any."""
    return bool(find_tokens(data))


#: Source: CPython's Python/marshal.c: a string is its type, its length in one byte or four, and its text.
_STRING = re.compile(rb"[zZ\xda\xfa]([\x10-\xff])|[saAu\xf3\xe1\xc1\xf5](..\0\0)", re.DOTALL)


def compiled_holds_tokens(data: bytes) -> bool:
    """Whether there are tokens among the constants of a module's compiled code."""
    if not _IN_SOURCE.may_match(data):
        return False
    # Each string is searched by itself: what is before and after it in the code is often a letter by chance.
    strings = [
        data[found.end() : found.end() + int.from_bytes(found[1] or found[2], "little")]
        for found in _STRING.finditer(data)
    ]
    return bool(find_tokens(b"\n".join([data, *strings])))
