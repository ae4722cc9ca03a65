"""Writes cpio archives in the format "newc", which Linux unpacks as its initramfs.

Source: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Member", "archive", "character_device", "directory", "file", "symlink"]

MAGIC = b"070701"

#: The header's fields after the magic, each written as eight hexadecimal digits.
FIELDS = (
    "ino",
    "mode",
    "uid",
    "gid",
    "nlink",
    "mtime",
    "filesize",
    "maj",
    "min",
    "rmaj",
    "rmin",
    "namesize",
    "chksum",
)

TRAILER = "TRAILER!!!"


@dataclass(frozen=True)
class Member:
    """One member: its path without a leading slash, ``st_mode``, content, and device (major, minor)."""

    name: str
    mode: int
    data: bytes = b""
    rdev: tuple[int, int] = (0, 0)


def directory(name: str, permissions: int = 0o755) -> Member:
    """A directory at the path ``name``."""
    return Member(name, stat.S_IFDIR | permissions)


def file(name: str, data: bytes, permissions: int = 0o644) -> Member:
    """A regular file at the path ``name`` with the content ``data``."""
    return Member(name, stat.S_IFREG | permissions, data)


def symlink(name: str, target: str) -> Member:
    """A symbolic link at the path ``name`` to ``target``."""
    return Member(name, stat.S_IFLNK | 0o777, target.encode("utf-8"))


def character_device(name: str, major: int, minor: int, permissions: int = 0o600) -> Member:
    """A device node at the path ``name`` for the character device ``major``:``minor``."""
    return Member(name, stat.S_IFCHR | permissions, rdev=(major, minor))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _encode(member: Member, ino: int) -> bytes:
    name = member.name.encode("utf-8") + b"\0"
    values = {
        "ino": ino,
        "mode": member.mode,
        "nlink": 1,
        "filesize": len(member.data),
        "rmaj": member.rdev[0],
        "rmin": member.rdev[1],
        "namesize": len(name),
    }
    header = MAGIC + b"".join(b"%08x" % values.get(field, 0) for field in FIELDS)
    return _padded(header + name) + _padded(member.data)


def archive(members: Iterable[Member]) -> bytes:
    """The archive of ``members``. Equal members give equal bytes: all times are 0, the owner is root."""
    parts = [_encode(member, ino) for ino, member in enumerate(members, 1)]
    return b"".join([*parts, _encode(Member(TRAILER, 0), 0)])
