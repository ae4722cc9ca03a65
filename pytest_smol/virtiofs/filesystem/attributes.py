"""fuse_attr for what stands on the host and for what only the view has."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping

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

    The first device met keeps its numbers. Those of others carry the device's
    place in the table in their upper 16 bits.
    """

    def __init__(self, known: tuple[int, ...]) -> None:
        self._indices = {device: index for index, device in enumerate(known)}

    def ino(self, st_dev: int, st_ino: int) -> int:
        """The guest's inode number of a host inode."""
        index = self._indices.get(st_dev)
        if index is None:
            index = self._indices[st_dev] = len(self._indices)
        return st_ino if index == 0 else index << INO_BITS | (st_ino ^ st_ino >> INO_BITS) & INO_MASK

    def freeze(self) -> tuple[int, ...]:
        """The devices in the order in which they were met."""
        return tuple(self._indices)


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
    digest = hashlib.blake2b(path, digest_size=INO_BITS // 8).digest()
    return COMPOSED_DEVICE << INO_BITS | int.from_bytes(digest, "little")


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
