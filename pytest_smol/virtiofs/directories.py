"""What a guest finds in a directory, be it the host's or composed by the view."""

from __future__ import annotations

import os
import stat

from pytest_smol.virtiofs.attributes import Devices, composed_ino, composed_mode
from pytest_smol.virtiofs.hostfiles import Places
from pytest_smol.virtiofs.listing import DirectoryEntry, scan
from pytest_smol.virtiofs.observe import Observer

__all__ = ["Directories"]

DT_DIR = stat.S_IFDIR >> 12


class Directories:
    """Reads directories, and has what was listed on the host observed."""

    def __init__(self, places: Places, devices: Devices, observer: Observer) -> None:
        self._places = places
        self._devices = devices
        self._observer = observer

    def scan(self, path: bytes) -> list[DirectoryEntry]:
        """All entries of the directory at guest path ``path``, ``.`` and ``..`` first. Raises OSError."""
        above = self._places.directory(path)
        if above is None:
            found = self._scan_composed(path)
            ino = composed_ino(path)
        else:
            host = above or b"/"
            st, rows = scan(host)
            self._observer.listed(host, st, [name for name, _, _ in rows])
            device = st.st_dev
            found = [DirectoryEntry(name, self._devices.ino(device, ino), kind) for name, ino, kind in rows]
            ino = self._devices.ino(device, st.st_ino)
        dots = [DirectoryEntry(b".", ino, DT_DIR), DirectoryEntry(b"..", self._parent_ino(path), DT_DIR)]
        return dots + found

    def _scan_composed(self, path: bytes) -> list[DirectoryEntry]:
        self._observer.listed_composed(os.fsdecode(path) or "/")
        found: list[DirectoryEntry] = []
        for name, child in self._places.children(path).items():
            place = os.fsencode(child)
            host = self._places.host(place)
            try:
                st = None if host is None else os.lstat(host)
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
        st = os.lstat(host or b"/")
        return self._devices.ino(st.st_dev, st.st_ino)
