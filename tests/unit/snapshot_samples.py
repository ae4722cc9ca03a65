"""Made-up snapshots: small files instead of a machine's memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pytest_smol.engines.protocol import Hardware
from pytest_smol.snapshots.base_cache import BaseCache, Origin
from pytest_smol.snapshots.key import key_of
from pytest_smol.snapshots.snapshot import Snapshot
from pytest_smol.virtiofs.dependencies.dependency import NOT_HASHED, FileDependency
from pytest_smol.virtiofs.filesystem.state import TreeState
from pytest_smol.virtiofs.view import View

HARDWARE = Hardware(memory=1)
VIEW = View({})
KEY = key_of({"test": 1})
RAM = b"head" + bytes(200_000) + b"tail" + bytes(100_000)
STATE = b"device state"
#: A st_dev that no device has; each dependency is on the device in this place of the table.
DEVICE = 0xDEAD


def observed(path: Path) -> FileDependency:
    """``path`` as a guest has seen and read it."""
    try:
        st = os.lstat(path)
    except FileNotFoundError:
        return FileDependency(str(path), 0, 0, 0, 0)
    fields = (st.st_mode, st.st_ino, st.st_size, st.st_mtime_ns)
    return FileDependency(str(path), *fields, device=0, content=NOT_HASHED)


class Builder:
    """Builds snapshots that depend on the files ``seen``, and counts how often."""

    def __init__(self, seen: Sequence[Path] = ()) -> None:
        self.seen = seen
        self.count = 0

    def __call__(self, directory: Path) -> Snapshot:
        self.count += 1
        (directory / "ram").write_bytes(RAM)
        (directory / "state").write_bytes(STATE)
        tree = TreeState(devices=(DEVICE,), dependencies=tuple(map(observed, self.seen)), flags=7)
        return Snapshot(HARDWARE, VIEW, directory / "ram", directory / "state", tree)


def checkout(root: Path, target: Path, build: Builder, key: str = KEY) -> tuple[Snapshot, Origin]:
    """A checkout into the directory ``target``, made where it is missing."""
    target.mkdir(exist_ok=True)
    return BaseCache(root).checkout(key, HARDWARE, VIEW, target, build)
