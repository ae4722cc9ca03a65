"""A read-only file system over a view: FUSE requests in, replies out.

Opens are zero-message where the kernel can do that (NO_OPEN_SUPPORT,
NO_OPENDIR_SUPPORT): reads and listings name a node and nothing else, so a
frozen guest holds no file handle that a later server would have to know.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable
from itertools import islice

from pytest_smol.host.beneath import Beneath
from pytest_smol.virtiofs import fuse
from pytest_smol.virtiofs.dependencies.recorder import LIMIT, DependencyRecorder
from pytest_smol.virtiofs.filesystem.attributes import Devices, composed_attr, composed_mode, host_attr
from pytest_smol.virtiofs.filesystem.directories import Directories
from pytest_smol.virtiofs.filesystem.host_files import Files, Places
from pytest_smol.virtiofs.filesystem.listing import DirectoryEntry, Listing, Listings
from pytest_smol.virtiofs.filesystem.node_table import Node, NodeTable
from pytest_smol.virtiofs.filesystem.state import TreeState
from pytest_smol.virtiofs.fuse import InitFlag, Opcode, OpenFlag
from pytest_smol.virtiofs.hiding.secrets import Secrets
from pytest_smol.virtiofs.view import Content, HostPath, Link, View

__all__ = ["FLAGS", "Tree", "TreeState"]

VALID = 365 * 24 * 3600
"""Seconds for which the guest may keep what stands on the host: longer than any session."""
MAX_PAGES = 256
MAX_READAHEAD = 1 << 20
MAX_LISTED = 1 << 17  # bytes of directory entries in one reply; kernels ask for a page, or a few
MAX_HIDDEN_HITS = 100
MIN_WRITE = 4096  # the kernel takes no less; nothing is ever written
#: The flags of INIT that are offered to the guest's kernel. Without READDIRPLUS_AUTO all entries of a listing
#: come with attributes; with it only those of the first page do, and the rest is looked up name by name.
FLAGS = (
    InitFlag.ASYNC_READ
    | InitFlag.AUTO_INVAL_DATA
    | InitFlag.DO_READDIRPLUS
    | InitFlag.NO_OPEN_SUPPORT
    | InitFlag.PARALLEL_DIROPS
    | InitFlag.MAX_PAGES
    | InitFlag.CACHE_SYMLINKS
    | InitFlag.NO_OPENDIR_SUPPORT
)

_pack_entry = fuse.ENTRY_OUT.codec.pack
_pack_attr_out = fuse.ATTR_OUT.codec.pack
_unpack_read = fuse.READ_IN.codec.unpack_from
_S_IFMT = 0o170000

NEGATIVE = _pack_entry(0, 0, VALID, 0, 0, 0) + bytes(fuse.ATTR.size)
NO_ENTRY = bytes(fuse.ENTRY_OUT.size + fuse.ATTR.size)

Handler = Callable[["Tree", int, bytes, int], bytes]


class Tree:
    """One guest's file system. For one thread at a time.

    ``state`` is what a frozen tree left behind: the guest that this one serves
    holds its nodes. If ``view`` is larger than the one that guest was shown, it may
    have to drop its caches: :meth:`TreeState.outdated`. A ``final`` tree is never
    frozen, so it need not remember what its guest has seen. To ``hidden_hits`` it adds
    host paths that its guest asks for by name and that are hidden, the first few.
    """

    def __init__(
        self,
        view: View,
        state: TreeState | None = None,
        *,
        final: bool = False,
        hidden_hits: set[str] | None = None,
    ) -> None:
        self._base = state or TreeState()
        self._nodes = NodeTable(self._base.nodes)
        self._devices = Devices(self._base.devices)
        self._flags = InitFlag(self._base.flags)
        self._places = Places(view)
        self._recorder = DependencyRecorder(0 if final else LIMIT)
        self._beneath = Beneath()
        named = {os.fsencode(entry.path) for entry in view.entries.values() if isinstance(entry, HostPath)}
        self._secrets = Secrets(view.hiding, named, self._beneath)
        host = (self._beneath, self._secrets)
        self._directories = Directories(self._places, self._devices, self._recorder, *host)
        self._files = Files(*host, self._tell)
        self._listings = Listings()
        self._hidden_hits = set() if hidden_hits is None else hidden_hits

    def dispatch(self, request: bytes, room: int) -> bytes | None:
        """The reply to one FUSE request, at most ``room`` bytes; None where none is due (or fits)."""
        try:
            opcode, unique, nodeid, body = fuse.decode_request(request)
        except fuse.Malformed:
            return self._refuse(request, room)
        if opcode in fuse.SILENT:
            self._silent(opcode, nodeid, body)
            return None
        try:
            handler = _HANDLERS.get(opcode)
            if handler is None:
                reply = fuse.encode_error(unique, _ERRORS.get(opcode, errno.ENOSYS))
            else:
                reply = fuse.encode_reply(unique, handler(self, nodeid, body, room - 16))
        except OSError as error:
            reply = fuse.encode_error(unique, error.errno or errno.EIO)
        except (ValueError, OverflowError, struct.error):
            reply = fuse.encode_error(unique, errno.EINVAL)
        if len(reply) > room:
            reply = fuse.encode_error(unique, errno.EIO)
        return reply if len(reply) <= room else None

    def freeze(self) -> TreeState:
        """All that a tree needs to go on from here. Raises SnapshotError when it is too much."""
        return TreeState(
            self._nodes.freeze(),
            self._devices.freeze(),
            self._recorder.freeze(self._base.dependencies, self._devices.index),
            self.composed_misses,
            self._base.composed_listings | self._recorder.composed_listings,
            int(self._flags),
        )

    @property
    def composed_misses(self) -> frozenset[str]:
        """Guest paths looked up in vain in directories of the view, in this tree or the one it continues.

        The guest's kernel may remember these misses: a session whose view adds
        such a path must have it drop its caches.
        """
        return self._base.composed_misses | self._recorder.composed_misses

    def close(self) -> None:
        """Close all host files. The tree may still be used, and opens them again."""
        self._files.close()
        self._beneath.close()

    def _refuse(self, request: bytes, room: int) -> bytes | None:
        """A reply to a request whose length is wrong: possible if its number can be read."""
        if len(request) < 16 or room < 16:
            return None
        return fuse.encode_error(struct.unpack_from("<8xQ", request)[0], errno.EINVAL)

    def _silent(self, opcode: int, nodeid: int, body: bytes) -> None:
        """Requests that get no reply, not even an error."""
        if opcode == Opcode.FORGET and len(body) >= 8:
            self._forget(nodeid, fuse.FORGET_IN.codec.unpack_from(body)[0])
        if opcode == Opcode.BATCH_FORGET:
            whole = (len(body) - 8) // 16 * 16
            rows = fuse.FORGET_ONE.codec.iter_unpack(body[8 : 8 + max(whole, 0)])
            count = fuse.BATCH_FORGET_IN.codec.unpack_from(body)[0] if len(body) >= 8 else 0
            for forgotten, nlookup in islice(rows, count):
                self._forget(forgotten, nlookup)

    def _forget(self, nodeid: int, nlookup: int) -> None:
        if self._nodes.forget(nodeid, nlookup):
            self._files.drop(nodeid)
            self._listings.drop(nodeid)

    def _node(self, nodeid: int, kind: int = 0) -> Node:
        """The node of that id, of that kind where one is given. Raises OSError: ESTALE, ENOTDIR, EINVAL."""
        node = self._nodes.get(nodeid)
        if node is None or not node.kind:
            raise OSError(errno.ESTALE, "no such node")
        if kind and node.kind != kind:
            raise OSError(errno.ENOTDIR if kind == stat.S_IFDIR else errno.EINVAL, "of another kind")
        return node

    def _stat(self, host: bytes) -> tuple[os.stat_result, bytes]:
        st = self._beneath.lstat(host)
        return st, host_attr(st, self._devices.ino(st.st_dev, st.st_ino))

    def _tell(self, host: bytes, more: str = "") -> None:
        """Remember that the guest asked for ``host``, which is hidden, or ``more`` of it."""
        if len(self._hidden_hits) < MAX_HIDDEN_HITS:
            self._hidden_hits.add(os.fsdecode(host) + more)

    # Entries: what LOOKUP and READDIRPLUS hand out.

    def _host_entry(self, path: bytes, host: bytes) -> tuple[bytes, int]:
        """An entry_out for a host path, and its st_mode; counts as a lookup. Raises OSError."""
        st, attr = self._stat(host)
        self._recorder.saw(host, st)
        if self._secrets.hides(host, st):
            self._tell(host)
            raise FileNotFoundError(errno.ENOENT, "hidden")
        nodeid = self._nodes.enter(path, st.st_mode & _S_IFMT)
        self._files.check(nodeid, st)
        return _pack_entry(nodeid, 0, VALID, VALID, 0, 0) + attr, st.st_mode

    def _view_entry(self, path: bytes) -> tuple[bytes, int]:
        """An entry_out for what the view has at ``path``, and its st_mode. Raises FileNotFoundError."""
        entry = self._places.entry(path)
        if entry is None:
            self._recorder.missed(os.fsdecode(path))
            raise FileNotFoundError(errno.ENOENT, "not in the view")
        if isinstance(entry, HostPath):
            host = os.fsencode(entry.path)
            try:
                return self._host_entry(path, host)
            except FileNotFoundError:
                self._recorder.saw(host, None)
                raise
        mode = composed_mode(entry)
        nodeid = self._nodes.enter(path, mode & _S_IFMT)
        head = _pack_entry(nodeid, 0, VALID, VALID, 0, 0)
        return head + composed_attr(path, entry, self._places.children(path)), mode

    # One method for each opcode: (nodeid, body, room for the payload) -> payload. Raises OSError, ValueError.

    def _init(self, nodeid: int, body: bytes, room: int) -> bytes:
        offered = fuse.INIT_IN.unpack(body)
        if offered["major"] < fuse.KERNEL_VERSION or offered["minor"] < fuse.MINOR_VERSIONS[0]:
            raise OSError(errno.EPROTO, "a kernel that is too old")
        minor = min(offered["minor"], fuse.MINOR_VERSIONS[-1])
        reply = {"major": fuse.KERNEL_VERSION, "minor": minor}
        if offered["major"] == fuse.KERNEL_VERSION:  # else the kernel tries again with ours
            self._flags = FLAGS & InitFlag(offered["flags"])
            reply.update(max_readahead=MAX_READAHEAD, flags=int(self._flags), max_write=MIN_WRITE)
            reply.update(max_background=64, congestion_threshold=48, time_gran=1, max_pages=MAX_PAGES)
        return fuse.INIT_OUT.pack(reply)

    def _destroy(self, nodeid: int, body: bytes, room: int) -> bytes:
        self._files.close()
        return b""

    def _lookup(self, nodeid: int, body: bytes, room: int) -> bytes:
        name = fuse.decode_name(body)
        parent = self._node(nodeid, stat.S_IFDIR).path
        above = self._places.directory(parent)
        path = parent + b"/" + name
        if above is None:
            return self._view_entry(path)[0]
        host = above + b"/" + name
        try:
            return self._host_entry(path, host)[0]
        except FileNotFoundError:
            self._recorder.saw(host, None)
            return NEGATIVE

    def _getattr(self, nodeid: int, body: bytes, room: int) -> bytes:
        node = self._node(nodeid)
        host = self._places.host(node.path)
        if host is None:
            entry = self._places.composed(node.path)
            attr = composed_attr(node.path, entry, self._places.children(node.path))
            return _pack_attr_out(VALID, 0, 0) + attr
        st, attr = self._stat(host)
        if st.st_mode & _S_IFMT != node.kind:
            self._nodes.stale(nodeid)
            raise OSError(errno.ESTALE, "of another kind by now")
        self._recorder.saw(host, st)
        self._files.check(nodeid, st)
        return _pack_attr_out(VALID, 0, 0) + attr

    def _readlink(self, nodeid: int, body: bytes, room: int) -> bytes:
        path = self._node(nodeid, stat.S_IFLNK).path
        host = self._places.host(path)
        if host is not None:
            return self._beneath.readlink(host)
        entry = self._places.composed(path)
        return os.fsencode(entry.target) if isinstance(entry, Link) else b""

    def _read(self, nodeid: int, body: bytes, room: int) -> bytes:
        _, offset, size, _, _, _, _ = _unpack_read(body)
        node = self._node(nodeid, stat.S_IFREG)
        size = min(size, room)
        host = self._places.host(node.path)
        if host is not None:
            self._recorder.read(host)
            return self._files.read(nodeid, host, size, offset)
        return self._content(node.path)[offset : offset + size]

    def _content(self, path: bytes) -> bytes:
        entry = self._places.composed(path)
        return entry.data if isinstance(entry, Content) else b""

    def _lseek(self, nodeid: int, body: bytes, room: int) -> bytes:
        fields = fuse.LSEEK_IN.unpack(body)
        node = self._node(nodeid, stat.S_IFREG)
        offset, whence = fields["offset"], fields["whence"]
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise OSError(errno.EINVAL, "the kernel does all other seeks itself")
        host = self._places.host(node.path)
        if host is not None:
            self._recorder.read(host)
            return fuse.LSEEK_OUT.pack({"offset": os.lseek(self._files.get(nodeid, host), offset, whence)})
        size = len(self._content(node.path))
        if offset >= size:
            raise OSError(errno.ENXIO, "beyond the end")
        return fuse.LSEEK_OUT.pack({"offset": offset if whence == os.SEEK_DATA else size})

    def _statfs(self, nodeid: int, body: bytes, room: int) -> bytes:
        host = self._places.host(self._node(nodeid).path)
        if host is None:
            return fuse.KSTATFS.pack({"bsize": 4096, "frsize": 4096, "namelen": fuse.NAME_MAX})
        st = self._beneath.statvfs(host)
        sizes = {"bsize": st.f_bsize, "frsize": st.f_frsize, "namelen": st.f_namemax}
        blocks = {"blocks": st.f_blocks, "bfree": st.f_bfree, "bavail": st.f_bavail}
        return fuse.KSTATFS.pack({**sizes, **blocks, "files": st.f_files, "ffree": st.f_ffree})

    def _open(self, nodeid: int, body: bytes, room: int) -> bytes:
        if self._flags & InitFlag.NO_OPEN_SUPPORT:
            raise OSError(errno.ENOSYS, "opens need no message")
        if fuse.OPEN_IN.unpack(body)["flags"] & os.O_ACCMODE != os.O_RDONLY:
            raise OSError(errno.EROFS, "read-only")
        self._node(nodeid, stat.S_IFREG)
        return fuse.OPEN_OUT.pack({"open_flags": OpenFlag.KEEP_CACHE})

    def _opendir(self, nodeid: int, body: bytes, room: int) -> bytes:
        if self._flags & InitFlag.NO_OPENDIR_SUPPORT:
            raise OSError(errno.ENOSYS, "opens need no message")
        self._node(nodeid, stat.S_IFDIR)
        return fuse.OPEN_OUT.pack({"open_flags": OpenFlag.KEEP_CACHE | OpenFlag.CACHE_DIR})

    def _nothing(self, nodeid: int, body: bytes, room: int) -> bytes:
        return b""

    def _readdir(self, nodeid: int, body: bytes, room: int) -> bytes:
        _, offset, size, _, _, _, _ = _unpack_read(body)
        path = self._node(nodeid, stat.S_IFDIR).path
        listing = self._listing(nodeid, path, offset)
        parts: list[bytes] = []
        left = min(size, room, MAX_LISTED)
        for cookie, entry in listing.after(offset):
            left -= fuse.dirent_size(len(entry.name))
            if left < 0:
                break
            parts.append(fuse.encode_dirent(entry.ino, cookie, entry.type, entry.name))
        return b"".join(parts)

    def _readdirplus(self, nodeid: int, body: bytes, room: int) -> bytes:
        _, offset, size, _, _, _, _ = _unpack_read(body)
        path = self._node(nodeid, stat.S_IFDIR).path
        listing = self._listing(nodeid, path, offset)
        parts: list[bytes] = []
        left = min(size, room, MAX_LISTED)
        for cookie, entry in listing.after(offset):
            left -= len(NO_ENTRY) + fuse.dirent_size(len(entry.name))
            if left < 0:  # an entry counts as looked up only if the guest gets it
                break
            head, kind = self._entry_plus(path, entry)
            parts += (head, fuse.encode_dirent(entry.ino, cookie, kind, entry.name))
        return b"".join(parts)

    def _entry_plus(self, path: bytes, entry: DirectoryEntry) -> tuple[bytes, int]:
        """The entry_out of a listed name and its DT_* type; an empty one if it cannot be had."""
        if entry.name in (b".", b".."):
            return NO_ENTRY, entry.type
        above = self._places.directory(path)
        child = path + b"/" + entry.name
        try:
            if above is None:
                head, mode = self._view_entry(child)
            else:
                head, mode = self._host_entry(child, above + b"/" + entry.name)
        except OSError:
            return NO_ENTRY, entry.type
        return head, mode >> 12

    def _listing(self, nodeid: int, path: bytes, offset: int) -> Listing:
        """The directory's entries, read again from the start of each pass over them."""
        listing, new = self._listings.get(nodeid)
        if new or offset == 0:
            listing.refresh(self._directories.scan(path))
            self._listings.trim()
        return listing


_HANDLERS: dict[int, Handler] = {
    Opcode.INIT: Tree._init,
    Opcode.DESTROY: Tree._destroy,
    Opcode.LOOKUP: Tree._lookup,
    Opcode.GETATTR: Tree._getattr,
    Opcode.READLINK: Tree._readlink,
    Opcode.READ: Tree._read,
    Opcode.LSEEK: Tree._lseek,
    Opcode.STATFS: Tree._statfs,
    Opcode.OPEN: Tree._open,
    Opcode.OPENDIR: Tree._opendir,
    Opcode.RELEASE: Tree._nothing,
    Opcode.RELEASEDIR: Tree._nothing,
    Opcode.READDIR: Tree._readdir,
    Opcode.READDIRPLUS: Tree._readdirplus,
}
# All that neither is answered nor would change anything gets ENOSYS, by which the kernel learns to
# do without: it checks permissions by mode instead of ACCESS, closes without FLUSH, and asks GETATTR
# instead of STATX, which could add no more than a birth time that Python cannot tell.
_ERRORS: dict[int, int] = {Opcode.IOCTL: errno.ENOTTY, **dict.fromkeys(fuse.CHANGING, errno.EROFS)}
