"""The snapshot value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pytest_smol.engines.protocol import Hardware
from pytest_smol.virtiofs.filesystem.state import TreeState
from pytest_smol.virtiofs.view import View

__all__ = ["Snapshot", "seal"]


@dataclass(frozen=True)
class Snapshot:
    """A frozen machine: memory and device state in files, the file server's state and the view as values.

    ``disks`` has the file of each scratch disk, None for one that nothing was written to; for a machine
    none of whose disks was written to it may be empty.
    """

    hardware: Hardware
    view: View
    ram: Path
    state: Path
    tree: TreeState
    disks: tuple[Path | None, ...] = ()


def seal(snapshot: Snapshot) -> Snapshot:
    """Make the files of a snapshot read-only; returns the snapshot. Raises OSError."""
    for path in (snapshot.ram, snapshot.state, *snapshot.disks):
        if path is not None:
            path.chmod(0o444)
    return snapshot
