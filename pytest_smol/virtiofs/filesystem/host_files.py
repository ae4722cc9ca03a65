"""Translates the guest's paths to the host's, and keeps host files open. No other module does either."""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from pytest_smol.host.beneath import Beneath
from pytest_smol.virtiofs.filesystem.attributes import Composed
from pytest_smol.virtiofs.hiding.redaction import MAX_REDACTED, redacted_source
from pytest_smol.virtiofs.hiding.secrets import Redaction, Secrets
from pytest_smol.virtiofs.view import Entry, HostPath, View

__all__ = ["Files", "Places"]

REDACTED = " (its tokens)"
"""What is said of a source file whose tokens are redacted, after its path."""
MAX_DIRECTORIES = 1 << 16
"""How many directories' host paths are remembered."""


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
            if len(self._directories) >= MAX_DIRECTORIES:
                self._directories.clear()
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


class OpenFile(NamedTuple):
    """A descriptor, which file it is, and how credentials in it are redacted if they are."""

    fd: int
    st_dev: int
    st_ino: int
    redaction: Redaction | None


class Files:
    """Host files that are open for reading, by node id; the least recently used is closed first.

    ``tell`` is called with the host path of a file that is opened and must not be
    read, or whose tokens are redacted, and with what is to be said of that.
    """

    def __init__(
        self,
        beneath: Beneath,
        secrets: Secrets,
        tell: Callable[[bytes, str], None] = lambda path, why: None,
        limit: int = 64,
    ) -> None:
        self._beneath = beneath
        self._secrets = secrets
        self._tell = tell
        self._limit = limit
        self._open: OrderedDict[int, OpenFile] = OrderedDict()
        self._texts: dict[int, tuple[tuple[int, int], bytes]] = {}  # redacted: size and time, what is shown

    def read(self, nodeid: int, host: bytes, size: int, offset: int) -> bytes:
        """Up to ``size`` bytes at ``offset`` of the regular file ``host``. Raises OSError as :meth:`get`."""
        file = self._file(nodeid, host)
        if file.redaction:
            return self._text(nodeid, file.fd, file.redaction)[offset : offset + size]
        return os.pread(file.fd, size, offset)

    def _text(self, nodeid: int, fd: int, redaction: Redaction) -> bytes:
        st = os.fstat(fd)
        known = self._texts.get(nodeid)
        if known is None or known[0] != (st.st_size, st.st_mtime_ns):
            text = redaction(os.pread(fd, MAX_REDACTED, 0))
            known = self._texts[nodeid] = ((st.st_size, st.st_mtime_ns), text)
        return known[1]

    def get(self, nodeid: int, host: bytes) -> int:
        """A file descriptor of the regular file ``host``, which stays this cache's own.

        Raises OSError: ESTALE when something else than a regular file is there
        now, ENOENT when it has become one that is hidden.
        """
        return self._file(nodeid, host).fd

    def _file(self, nodeid: int, host: bytes) -> OpenFile:
        known = self._open.get(nodeid)
        if known is not None:
            self._open.move_to_end(nodeid)
            return known
        fd = self._open_host(host)
        st = os.fstat(fd)
        try:
            redaction = self._secrets.redaction(host, st, fd)
        except BaseException as error:
            os.close(fd)
            if isinstance(error, FileNotFoundError):
                self._tell(host, "")
            raise
        if redaction is redacted_source:
            self._tell(host, REDACTED)
        file = self._open[nodeid] = OpenFile(fd, st.st_dev, st.st_ino, redaction)
        if len(self._open) > self._limit:
            self.drop(next(iter(self._open)))
        return file

    def _open_host(self, host: bytes) -> int:
        try:
            return self._beneath.open_regular(host)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._open:
                raise
        self.close()  # this process or the host is out of descriptors: close ours
        return self._beneath.open_regular(host)

    def check(self, nodeid: int, st: os.stat_result) -> None:
        """The guest is about to be told ``st``: a file open under that node must be the same one."""
        known = self._open.get(nodeid)
        if known is not None and known[1:3] != (st.st_dev, st.st_ino):
            self.drop(nodeid)

    def drop(self, nodeid: int) -> None:
        """Close the node's file, if it is open."""
        self._texts.pop(nodeid, None)
        known = self._open.pop(nodeid, None)
        if known is not None:
            os.close(known.fd)

    def close(self) -> None:
        """Close all."""
        for nodeid in list(self._open):
            self.drop(nodeid)
