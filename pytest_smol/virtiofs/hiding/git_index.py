"""Which files git tracks, read from a repository's index without running git.

Source: git's Documentation/gitformat-index.txt, versions 2 to 4.
"""

from __future__ import annotations

import struct

__all__ = ["parse_index"]

_HEADER = struct.Struct(">4sII")
_EXTENDED = 0x4000
_NAME_LENGTH = 0x0FFF
_STATS = 40
"""Bytes of an entry before its object's id."""
_SHA1, _SHA256 = 20, 32
MOST_ENTRIES = 1 << 21


def parse_index(data: bytes) -> list[bytes]:
    """The paths of all entries, relative to the top of the work tree, sorted.

    Raises :class:`ValueError` for what is no index, and for a split index, whose
    other half is in another file.
    """
    if len(data) < _HEADER.size:
        raise ValueError("an index that is cut short")
    signature, version, count = _HEADER.unpack_from(data)
    if signature != b"DIRC" or version not in (2, 3, 4) or count > MOST_ENTRIES:
        raise ValueError(f"not an index of version 2 to 4: {signature!r} {version}")
    for size in (_SHA1, _SHA256):  # which one it is, only the repository's settings tell
        try:
            return sorted(set(_names(data, version, count, size)))
        except (IndexError, struct.error):
            continue
    raise ValueError("an index whose entries cannot be read")


def _names(data: bytes, version: int, count: int, id_size: int) -> list[bytes]:
    """Raises IndexError or struct.error where ids have another size, ValueError for a split index."""
    names: list[bytes] = []
    at, name = _HEADER.size, b""
    for _ in range(count):
        flags_at = at + _STATS + id_size
        (flags,) = struct.unpack_from(">H", data, flags_at)
        begin = flags_at + (4 if flags & _EXTENDED else 2)
        if flags & _EXTENDED and version < 3:
            raise IndexError("a flag of version 3")
        if version == 4:
            strip, begin = _offset(data, begin)
            if strip > len(name):
                raise IndexError("a name that is shorter than nothing")
            end = _end(data, begin)
            name = name[: len(name) - strip] + data[begin:end]
            at = end + 1
        else:
            end = _end(data, begin)
            name = data[begin:end]
            at += (end - at + 8) // 8 * 8
        if min(len(name), _NAME_LENGTH) != flags & _NAME_LENGTH:
            raise IndexError("a name of another length than its entry says")
        names.append(name)
    _check_extensions(data, at, id_size)
    return names


def _end(data: bytes, begin: int) -> int:
    end = data.find(b"\0", begin)
    if end < 0:
        raise IndexError("a name without an end")
    return end


def _offset(data: bytes, at: int) -> tuple[int, int]:
    """The variable-width integer at ``at``, as git's pack format has it, and where it ends."""
    value = data[at] & 0x7F
    while data[at] & 0x80:
        at += 1
        value = ((value + 1) << 7) | (data[at] & 0x7F)
        if value > len(data):
            raise IndexError("no length")
    return value, at + 1


def _check_extensions(data: bytes, at: int, id_size: int) -> None:
    """All after the entries is extensions and a checksum."""
    end = len(data) - id_size
    while at < end:
        signature, size = struct.unpack_from(">4sI", data, at)
        if signature == b"link" and any(data[at + 8 : at + 8 + id_size]):
            raise ValueError("a split index")
        at += 8 + size
    if at != end:
        raise IndexError("something else where the checksum is to be")
