"""Credentials in configuration files, redacted in place: each of their characters becomes an ``x``.

The size of a file stays what it is, so neither its attributes nor offsets in it change.
"""

from __future__ import annotations

import re

__all__ = ["holds_secret", "redacted"]

# What these search may be a hostile project's own, so no repetition in them can go over the same bytes
# again and again: each is bounded, or ends at what begins the next one.

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

#: Source: RFC 7468, PuTTY's key files, and the JSON files of Google's accounts.
_PRIVATE = re.compile(
    rb"^[ \t\xef\xbb\xbf]{0,20}(?:-{4,5} ?BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY|PuTTY-User-Key-File-)"
    rb"|\"(?:private_key|client_secret|refresh_token)\"\s{0,40}:",
    re.MULTILINE,
)


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


def holds_secret(data: bytes) -> bool:
    """Whether there is a private key or the credentials of an account in ``data``."""
    return _PRIVATE.search(data) is not None
