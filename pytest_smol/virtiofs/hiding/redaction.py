"""Credentials in configuration files and in source code, redacted in place: each character becomes an ``x``.

The size of a file stays what it is, so neither its attributes nor offsets in it change.
"""

from __future__ import annotations

import re

from pytest_smol.virtiofs.hiding.contents import find_tokens

__all__ = ["MAX_REDACTED", "redacted", "redacted_source"]

MAX_REDACTED = 256 << 10
"""Bytes of the largest file that is redacted."""

# What these search may be a hostile project's own, so that no repetition may be searched from many starts:
# each is bounded, or ends at the characters that the next one begins with.

#: ``user:password`` of ``scheme://user:password@``.
_URL_USER = re.compile(rb"(?<=://)[^\s/\"']+(?=@)")
#: A key that by its name holds a credential, and its value to the end of the line and of what continues it.
_SECRET_KEY = re.compile(
    rb"(?:extraheader|token|passw(?:or)?d|passphrase|secret|smtppass|api_?key|_auth|cookie)[\w.\"'-]{0,40}"
    rb"[ \t]{0,40}[=:](?P<value>(?:\\[\s\S]|[^\\\n])*)",
    re.IGNORECASE,
)
#: Conda's channels have their token in the path.
_URL_TOKEN = re.compile(rb"/t/(?P<token>[A-Za-z0-9_-]{8,})")


def _x(data: bytes) -> bytes:
    return re.sub(rb"\S", b"x", data)


def _blank_user(found: re.Match[bytes]) -> bytes:
    account, colon, password = found[0].partition(b":")
    # A lone user name is a credential (a token), except where it names an ssh account.
    if b"ssh" in found.string[max(found.start() - 10, 0) : found.start()].lower():
        return account + colon + _x(password)
    return _x(found[0])


def _blank_group(found: re.Match[bytes]) -> bytes:
    start, end = found.start(1) - found.start(), found.end(1) - found.start()
    whole = found[0]
    return whole[:start] + _x(whole[start:end]) + whole[end:]


def redacted(data: bytes) -> bytes:
    """``data`` with credentials replaced, of the same length."""
    data = _URL_USER.sub(_blank_user, data)
    data = _URL_TOKEN.sub(_blank_group, data)
    return _SECRET_KEY.sub(_blank_group, data)


def redacted_source(data: bytes) -> bytes:
    """Source code with its tokens and private keys replaced, of the same length and with the same lines."""
    shown = bytearray(data)
    for begin, end in find_tokens(data):
        shown[begin:end] = _x(data[begin:end])
    return bytes(shown)
