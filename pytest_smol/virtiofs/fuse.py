"""The FUSE protocol as the kernel speaks it: structs, opcodes and flags as tables.

Names and numbers are those of ``include/uapi/linux/fuse.h``, protocol 7.31 to
7.38. Bytes in, bytes out: nothing here does input or output, and nothing of
this project is imported.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum, IntFlag
from typing import NamedTuple

__all__ = [
    "ATTR",
    "ATTR_OUT",
    "CHANGING",
    "DIRENT",
    "ENTRY_OUT",
    "FORGET_IN",
    "FORGET_ONE",
    "IN_HEADER",
    "KERNEL_VERSION",
    "MINOR_VERSIONS",
    "OUT_HEADER",
    "ROOT_ID",
    "SILENT",
    "InitFlag",
    "Layout",
    "Malformed",
    "Opcode",
    "OpenFlag",
    "Request",
    "decode_name",
    "decode_request",
    "dirent_size",
    "encode_dirent",
    "encode_error",
    "encode_reply",
]

KERNEL_VERSION = 7
MINOR_VERSIONS = range(31, 39)
"""Minor versions spoken here; a kernel that is newer is answered with the last."""
ROOT_ID = 1
NAME_MAX = 255


class Malformed(ValueError):
    """A request whose bytes do not hold what its opcode says."""


_CODES = {"u16": "H", "u32": "I", "s32": "i", "u64": "Q"}


class Layout:
    """One kernel struct: ``name``, ``fields`` in order, and its little-endian ``codec``.

    ``fields`` is written ``"len:u32 error:s32"``; ``name*3:u32`` is an array.
    """

    def __init__(self, name: str, fields: str) -> None:
        names: list[str] = []
        codes = "<"
        for field in fields.split():
            label, _, kind = field.partition(":")
            label, _, count = label.partition("*")
            names += [f"{label}{n}" for n in range(int(count))] if count else [label]
            codes += _CODES[kind] * int(count or 1)
        self.name = name
        self.fields: tuple[str, ...] = tuple(names)
        self.codec: struct.Struct = struct.Struct(codes)
        self.size = self.codec.size

    def pack(self, values: Mapping[str, int]) -> bytes:
        """Bytes of the struct; fields not named are 0. Raises KeyError for an unknown field."""
        row = dict.fromkeys(self.fields, 0)
        for name, value in values.items():
            if name not in row:
                raise KeyError(f"{self.name} has no field {name}")
            row[name] = value
        return self.codec.pack(*row.values())

    def unpack(self, data: bytes) -> dict[str, int]:
        """Fields at the start of ``data``. Raises :class:`Malformed` when it is too short."""
        if len(data) < self.size:
            raise Malformed(f"{self.name} needs {self.size} bytes, there are {len(data)}")
        return dict(zip(self.fields, self.codec.unpack_from(data), strict=True))


IN_HEADER = Layout(
    "fuse_in_header",
    "len:u32 opcode:u32 unique:u64 nodeid:u64 uid:u32 gid:u32 pid:u32 total_extlen:u16 padding:u16",
)
OUT_HEADER = Layout("fuse_out_header", "len:u32 error:s32 unique:u64")
ATTR = Layout(
    "fuse_attr",
    "ino:u64 size:u64 blocks:u64 atime:u64 mtime:u64 ctime:u64 atimensec:u32 mtimensec:u32 ctimensec:u32 "
    "mode:u32 nlink:u32 uid:u32 gid:u32 rdev:u32 blksize:u32 flags:u32",
)
# The two structs that end in a fuse_attr are declared without it: attributes
# are packed once and appended, whichever of the two they go into.
ENTRY_OUT = Layout(
    "fuse_entry_out",
    "nodeid:u64 generation:u64 entry_valid:u64 attr_valid:u64 entry_valid_nsec:u32 attr_valid_nsec:u32",
)
ATTR_OUT = Layout("fuse_attr_out", "attr_valid:u64 attr_valid_nsec:u32 dummy:u32")
INIT_IN = Layout("fuse_init_in", "major:u32 minor:u32 max_readahead:u32 flags:u32")
INIT_OUT = Layout(
    "fuse_init_out",
    "major:u32 minor:u32 max_readahead:u32 flags:u32 max_background:u16 congestion_threshold:u16 "
    "max_write:u32 time_gran:u32 max_pages:u16 map_alignment:u16 flags2:u32 unused*7:u32",
)
OPEN_IN = Layout("fuse_open_in", "flags:u32 open_flags:u32")
OPEN_OUT = Layout("fuse_open_out", "fh:u64 open_flags:u32 padding:u32")
READ_IN = Layout(
    "fuse_read_in", "fh:u64 offset:u64 size:u32 read_flags:u32 lock_owner:u64 flags:u32 padding:u32"
)
KSTATFS = Layout(
    "fuse_kstatfs",
    "blocks:u64 bfree:u64 bavail:u64 files:u64 ffree:u64 bsize:u32 namelen:u32 frsize:u32 "
    "padding:u32 spare*6:u32",
)
LSEEK_IN = Layout("fuse_lseek_in", "fh:u64 offset:u64 whence:u32 padding:u32")
LSEEK_OUT = Layout("fuse_lseek_out", "offset:u64")
FORGET_IN = Layout("fuse_forget_in", "nlookup:u64")
FORGET_ONE = Layout("fuse_forget_one", "nodeid:u64 nlookup:u64")
BATCH_FORGET_IN = Layout("fuse_batch_forget_in", "count:u32 dummy:u32")
DIRENT = Layout("fuse_dirent", "ino:u64 off:u64 namelen:u32 type:u32")


class Opcode(IntEnum):
    """enum fuse_opcode."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SETUPMAPPING = 48
    REMOVEMAPPING = 49
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52


SILENT = frozenset({Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT, Opcode.NOTIFY_REPLY})
"""What gets no reply, not even an error."""
CHANGING = frozenset(
    {
        *(Opcode.SETATTR, Opcode.SETXATTR, Opcode.REMOVEXATTR),
        *(Opcode.SYMLINK, Opcode.MKNOD, Opcode.MKDIR, Opcode.LINK, Opcode.CREATE, Opcode.TMPFILE),
        *(Opcode.UNLINK, Opcode.RMDIR, Opcode.RENAME, Opcode.RENAME2),
        *(Opcode.WRITE, Opcode.FALLOCATE, Opcode.COPY_FILE_RANGE),
    }
)
"""What would change a file, a directory or its attributes."""


class InitFlag(IntFlag):
    """The FUSE_* flags of INIT that are used here."""

    ASYNC_READ = 1 << 0
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    NO_OPENDIR_SUPPORT = 1 << 24


class OpenFlag(IntFlag):
    """The FOPEN_* flags of an OPEN reply that are used here."""

    KEEP_CACHE = 1 << 1
    CACHE_DIR = 1 << 3


class Request(NamedTuple):
    """One request without its header's bookkeeping; ``opcode`` may be one that is not known."""

    opcode: int
    unique: int
    nodeid: int
    body: bytes


def decode_request(data: bytes) -> Request:
    """The request in ``data``. Raises :class:`Malformed` when it is cut short or its length is wrong."""
    if len(data) < IN_HEADER.size:
        raise Malformed(f"a request of {len(data)} bytes is shorter than its header")
    length, opcode, unique, nodeid, *_ = IN_HEADER.codec.unpack_from(data)
    if length != len(data):
        raise Malformed(f"a request of {len(data)} bytes says that it has {length}")
    return Request(opcode, unique, nodeid, data[IN_HEADER.size :])


def decode_name(body: bytes) -> bytes:
    """The one path component a LOOKUP asks for.

    Raises :class:`Malformed` for anything that is not exactly one name ended
    by NUL; ``.`` and ``..`` are none, for EXPORT_SUPPORT is not offered.
    """
    name = body[:-1]
    if not name or body[-1] or b"/" in name or b"\0" in name or name in (b".", b".."):
        raise Malformed(f"not a name: {body[:64]!r}")
    return name


_pack_out = OUT_HEADER.codec.pack


def encode_reply(unique: int, payload: bytes) -> bytes:
    """A reply that succeeds, with ``payload`` after its header."""
    return _pack_out(16 + len(payload), 0, unique) + payload


def encode_error(unique: int, errno: int) -> bytes:
    """A reply that fails with ``errno``, a positive number as in :mod:`errno`."""
    return _pack_out(16, -errno, unique)


def dirent_size(namelen: int) -> int:
    """FUSE_DIRENT_SIZE: bytes of a fuse_dirent with a name of ``namelen`` bytes, padding included."""
    return (DIRENT.size + namelen + 7) & ~7


def encode_dirent(ino: int, off: int, kind: int, name: bytes) -> bytes:
    """One fuse_dirent, padded. ``off`` is the cookie of the entry after it, ``kind`` a DT_* number."""
    return DIRENT.codec.pack(ino, off, len(name), kind) + name + bytes(-len(name) & 7)
