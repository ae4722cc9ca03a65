"""What a guest finds in a directory, be it the host's or composed by the view."""

from __future__ import annotations

import os
import stat

from pytest_smol.host.beneath import Beneath
from pytest_smol.virtiofs.dependencies.recorder import DependencyRecorder
from pytest_smol.virtiofs.filesystem.attributes import Devices, composed_ino, composed_mode
from pytest_smol.virtiofs.filesystem.host_files import Places
from pytest_smol.virtiofs.filesystem.listing import DirectoryEntry, scan
from pytest_smol.virtiofs.hiding.secrets import Secrets

__all__ = ["Directories"]

DT_DIR = stat.S_IFDIR >> 12
DT_REG = stat.S_IFREG >> 12

Row = tuple[bytes, int, int]


class Directories:
    """Lists directories without hidden entries; listings of the host's directories are dependencies."""

    def __init__(
        self,
        places: Places,
        devices: Devices,
        recorder: DependencyRecorder,
        beneath: Beneath,
        secrets: Secrets,
    ) -> None:
        self._beneath = beneath
        self._secrets = secrets
        self._places = places
        self._devices = devices
        self._recorder = recorder

    def scan(self, path: bytes) -> list[DirectoryEntry]:
        """All entries of the directory at guest path ``path``, ``.`` and ``..`` first. Raises OSError."""
        above = self._places.directory(path)
        if above is None:
            found = self._scan_composed(path)
            ino = composed_ino(path)
        else:
            host = above or b"/"
            with self._beneath.directory(host) as fd:
                st, rows = scan(fd)
                # Hidden names count too: that there are others is seen by what is not hidden of them.
                self._recorder.listed(host, st, [name for name, _, _ in rows])
                rows = self._visible(fd, above, rows)
            device = st.st_dev
            found = [DirectoryEntry(name, self._devices.ino(device, ino), kind) for name, ino, kind in rows]
            ino = self._devices.ino(device, st.st_ino)
        dots = [DirectoryEntry(b".", ino, DT_DIR), DirectoryEntry(b"..", self._parent_ino(path), DT_DIR)]
        return dots + found

    def _visible(self, fd: int, directory: bytes, rows: list[Row]) -> list[Row]:
        doubts = self._secrets.doubts(directory)
        return [
            row
            for row in rows
            if not doubts(row[0], row[2] == DT_REG) or self._is_visible(fd, directory, row)
        ]

    def _is_visible(self, fd: int, directory: bytes, row: Row) -> bool:
        try:
            st = os.stat(row[0], dir_fd=fd, follow_symlinks=False)
        except OSError:
            return False  # it has just gone
        return not self._secrets.hides(directory + b"/" + row[0], st)

    def _scan_composed(self, path: bytes) -> list[DirectoryEntry]:
        self._recorder.listed_composed(os.fsdecode(path) or "/")
        found: list[DirectoryEntry] = []
        for name, child in self._places.children(path).items():
            place = os.fsencode(child)
            host = self._places.host(place)
            try:
                st = None if host is None else self._beneath.lstat(host)
            except OSError:
                continue
            ino = self._devices.ino(st.st_dev, st.st_ino) if st else composed_ino(place)
            mode = st.st_mode if st else composed_mode(self._places.composed(place))
            found.append(DirectoryEntry(os.fsencode(name), ino, mode >> 12))
        return found

    def _parent_ino(self, path: bytes) -> int:
        parent = path.rpartition(b"/")[0]
        host = self._places.directory(parent)
        if host is None:
            return composed_ino(parent)
        st = self._beneath.lstat(host or b"/")
        return self._devices.ino(st.st_dev, st.st_ino)
