"""The fuse_attr of host files, and of entries that only the view has."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping

from pytest_smol.virtiofs.dependencies.comparison import NO_DEVICE
from pytest_smol.virtiofs.fuse import ATTR
from pytest_smol.virtiofs.view import Content, Directory, Link

__all__ = ["Composed", "Devices", "composed_attr", "composed_ino", "composed_mode", "host_attr"]

Composed = Content | Directory | Link
"""What exists only in the view."""

U64_MASK = (1 << 64) - 1
U32_MASK = (1 << 32) - 1
INO_BITS = 48
INO_MASK = (1 << INO_BITS) - 1
COMPOSED_DEVICE = 0xFFFF  # above any index in the table of devices
SECOND = 10**9
BLOCK_SIZE = 4096


class Devices:
    """Inode numbers that stay distinct between host file systems, which the guest sees as one.

    The guest's number is the host's, with the device's place in a table in the
    upper 16 bits (0 for the first device). A number of the host's that needs
    these bits itself is replaced by a digest of it. ``known`` is the table so
    far: st_dev numbers, NO_DEVICE for a place that is never used again.
    """

    def __init__(self, known: tuple[int, ...]) -> None:
        self._known = known
        self._indices = {device: place for place, device in enumerate(known) if device != NO_DEVICE}
        self._added: list[int] = []

    def index(self, st_dev: int) -> int:
        """The device's place in the table, a new one if it has none."""
        place = self._indices.get(st_dev)
        if place is None:
            place = self._indices[st_dev] = len(self._known) + len(self._added)
            self._added.append(st_dev)
        return place

    def ino(self, st_dev: int, st_ino: int) -> int:
        """The guest's inode number of a host inode."""
        place = self._indices.get(st_dev)
        if place is None:
            place = self.index(st_dev)
        if st_ino > INO_MASK:
            st_ino = _ino_digest(st_ino.to_bytes(8, "little"))
        return place << INO_BITS | st_ino

    def freeze(self) -> tuple[int, ...]:
        """The table as it is now."""
        return (*self._known, *self._added)


def _ino_digest(data: bytes) -> int:
    """``INO_BITS`` bits that stand for ``data``."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=INO_BITS // 8).digest(), "little")


_pack = ATTR.codec.pack


def host_attr(st: os.stat_result, ino: int) -> bytes:
    """A fuse_attr of a host file's lstat(2), under the inode number ``ino``."""
    atime, mtime, ctime = st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns
    return _pack(
        ino,
        st.st_size,
        st.st_blocks,
        atime // SECOND & U64_MASK,  # times before 1970 are negative
        mtime // SECOND & U64_MASK,
        ctime // SECOND & U64_MASK,
        atime % SECOND,
        mtime % SECOND,
        ctime % SECOND,
        st.st_mode,
        st.st_nlink & U32_MASK,
        st.st_uid,
        st.st_gid,
        st.st_rdev & U32_MASK,  # the kernel's 32-bit form is the lower half of the C library's
        st.st_blksize & U32_MASK,
        0,
    )


def composed_ino(path: bytes) -> int:
    """The inode number of a path that only the view has: the same in each fork, without a table."""
    return COMPOSED_DEVICE << INO_BITS | _ino_digest(path)


def composed_mode(entry: Composed) -> int:
    """st_mode of an entry of the view."""
    if isinstance(entry, Link):
        return stat.S_IFLNK | 0o777
    kind = stat.S_IFREG if isinstance(entry, Content) else stat.S_IFDIR
    return kind | stat.S_IMODE(entry.mode)


def composed_attr(path: bytes, entry: Composed, names: Mapping[str, str]) -> bytes:
    """A fuse_attr of an entry of the view; ``names`` are a directory's children."""
    size = _size(entry)
    values = {
        "ino": composed_ino(path),
        "size": size,
        "blocks": -(-size // 512),
        "mode": composed_mode(entry),
        "nlink": 2 if isinstance(entry, Directory) else 1,
        "blksize": BLOCK_SIZE,
    }
    if not isinstance(entry, Link):
        values.update(uid=entry.uid, gid=entry.gid)
    if isinstance(entry, Directory):
        # The guest drops its cached listing when the time of a directory is
        # another one: a time made of the names changes whenever they do.
        joined = os.fsencode("\0".join(sorted(names)))
        values["mtime"] = int.from_bytes(hashlib.blake2b(joined, digest_size=4).digest(), "little") >> 2
    return ATTR.pack(values)


def _size(entry: Composed) -> int:
    if isinstance(entry, Content):
        return len(entry.data)
    return len(os.fsencode(entry.target)) if isinstance(entry, Link) else 0
