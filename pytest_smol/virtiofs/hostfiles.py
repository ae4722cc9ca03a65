"""The only place that leads from the guest's paths to the host's, and that opens host files."""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict

from pytest_smol.virtiofs.attributes import Composed
from pytest_smol.virtiofs.view import Entry, HostPath, View

__all__ = ["Files", "Places"]

OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Places:
    """Where each guest path stands: on the host, or in the view alone."""

    def __init__(self, view: View) -> None:
        self._view = view
        # Directories only: the host's path without a slash at its end, or None
        # for one that the view composes.
        self._directories: dict[bytes, bytes | None] = {}

    def host(self, path: bytes) -> bytes | None:
        """The host path at guest path ``path`` (``b""``: root), or None where only the view has something.

        Each component above the last must have been looked up by the guest and
        found to be a directory. Raises FileNotFoundError for a path that
        neither the view nor a host directory in it covers.
        """
        parent, _, name = path.rpartition(b"/")
        above = self._directories.get(parent) if path else None
        if above is not None:
            return above + b"/" + name
        entry = self.entry(path)
        if isinstance(entry, HostPath):
            return os.fsencode(entry.path)
        if entry is not None:
            return None
        above = self.directory(parent) if path else None
        if above is None:
            raise FileNotFoundError(errno.ENOENT, "not in the view")
        return above + b"/" + name

    def directory(self, path: bytes) -> bytes | None:
        """Like :meth:`host`, for a path that is a directory; ends in no slash (``b""``: the host's root)."""
        try:
            return self._directories[path]
        except KeyError:
            host = self.host(path)
            self._directories[path] = found = None if host is None else host.rstrip(b"/")
            return found

    def entry(self, path: bytes) -> Entry | None:
        """What the view itself has at ``path``."""
        return self._view.get(os.fsdecode(path) or "/")

    def composed(self, path: bytes) -> Composed:
        """The view's own entry at ``path``. Raises FileNotFoundError where it has none."""
        entry = self.entry(path)
        if entry is None or isinstance(entry, HostPath):
            raise FileNotFoundError(errno.ENOENT, "not in the view")
        return entry

    def children(self, path: bytes) -> dict[str, str]:
        """Guest paths of what the view puts into a directory of its own, by name."""
        return dict(self._view.children.get(os.fsdecode(path) or "/", {}))


class Files:
    """Host files that are open for reading, by node id; the least recently used is closed first."""

    def __init__(self, limit: int = 64) -> None:
        self._limit = limit
        self._open: OrderedDict[int, tuple[int, int, int]] = OrderedDict()  # fd, st_dev, st_ino

    def get(self, nodeid: int, host: bytes) -> int:
        """A file descriptor of the regular file ``host``, which stays this cache's own.

        Raises OSError: ESTALE when something else than a regular file is there now.
        """
        if nodeid in self._open:
            self._open.move_to_end(nodeid)
            return self._open[nodeid][0]
        # Opening a device or a pipe could do something: look first.
        if not stat.S_ISREG(os.lstat(host).st_mode):
            raise OSError(errno.ESTALE, "no regular file any more")
        fd = os.open(host, OPEN_FLAGS)
        st = os.fstat(fd)
        if not stat.S_ISREG(st.st_mode):
            os.close(fd)
            raise OSError(errno.ESTALE, "no regular file any more")
        self._open[nodeid] = (fd, st.st_dev, st.st_ino)
        if len(self._open) > self._limit:
            os.close(self._open.popitem(last=False)[1][0])
        return fd

    def check(self, nodeid: int, st: os.stat_result) -> None:
        """The guest is about to be told ``st``: a file open under that node must be the same one."""
        known = self._open.get(nodeid)
        if known is not None and known[1:] != (st.st_dev, st.st_ino):
            self.drop(nodeid)

    def drop(self, nodeid: int) -> None:
        """Close the node's file, if it is open."""
        known = self._open.pop(nodeid, None)
        if known is not None:
            os.close(known[0])

    def close(self) -> None:
        """Close all."""
        for nodeid in list(self._open):
            self.drop(nodeid)
