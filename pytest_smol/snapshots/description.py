"""The files that describe a snapshot on disk: ``tree.json``, ``manifest.json`` and ``identities.json``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_smol.engines.protocol import Hardware
from pytest_smol.errors import SnapshotError
from pytest_smol.snapshots.disk_files import stored
from pytest_smol.snapshots.key import FORMAT
from pytest_smol.snapshots.snapshot import Snapshot, seal
from pytest_smol.snapshots.sparse import digest_of
from pytest_smol.virtiofs.dependencies.comparison import Identity
from pytest_smol.virtiofs.filesystem.state import TreeState
from pytest_smol.virtiofs.view import View

__all__ = [
    "Manifest",
    "load",
    "read_identities",
    "read_manifest",
    "read_tree",
    "write_description",
    "write_identities",
    "write_manifest",
    "write_tree",
]

#: The files of a snapshot.
_FILES = ("ram", "state", "tree.json")


@dataclass(frozen=True)
class Manifest:
    """Digests of a snapshot's files by name, and the TSC frequency that its guest was told (0: none)."""

    files: Mapping[str, str]
    tsc_khz: int = 0


def write_tree(tree: TreeState, directory: Path) -> None:
    """Write ``tree.json``, read-only, into ``directory``. Raises OSError."""
    path = directory / "tree.json"
    path.write_text(json.dumps(tree.to_json()), encoding="ascii")
    path.chmod(0o444)


def write_manifest(manifest: Manifest, directory: Path) -> None:
    """Write ``manifest.json``; the digest of ``tree.json`` is added. Raises OSError."""
    digests = {**manifest.files, "tree.json": digest_of(directory / "tree.json")}
    table = {"format": FORMAT, "files": digests, "tsc_khz": manifest.tsc_khz}
    (directory / "manifest.json").write_text(json.dumps(table), encoding="ascii")


def write_description(snapshot: Snapshot, directory: Path, *more: str) -> None:
    """Describe a snapshot in the ``directory`` that its files are in, and make these read-only.

    ``more`` names further files that belong to it. Raises OSError.
    """
    write_tree(snapshot.tree, directory)
    seal(snapshot)
    for name in more:
        (directory / name).chmod(0o444)
    disks = [path.name for path in snapshot.disks if path is not None]
    files = {name: digest_of(directory / name) for name in ("ram", "state", *disks, *more)}
    write_manifest(Manifest(files), directory)


def load(directory: Path, hardware: Hardware, view: View, *more: str) -> Snapshot:
    """The snapshot in ``directory``, used in place; ``more`` names further files that belong to it.

    Raises :class:`SnapshotError` unless it is whole and the user's own.
    """
    disks = stored(directory, len(hardware.disks))
    try:
        files = read_manifest(directory, *(path.name for path in disks if path is not None), *more).files
        tree = read_tree(directory)
        damaged = [name for name, digest in files.items() if digest_of(directory / name) != digest]
    except (OSError, ValueError, KeyError, TypeError) as error:
        damaged = [str(error)]
    if damaged:
        raise SnapshotError(
            f"the snapshot {directory} cannot be used: {', '.join(damaged)}",
            remedy="something else writes to that directory; find out which process, and run again",
        )
    return Snapshot(hardware, view, directory / "ram", directory / "state", tree, disks)


def read_tree(directory: Path) -> TreeState:
    """The content of ``tree.json``. Raises OSError, ValueError, KeyError or TypeError if it is not sound."""
    return TreeState.from_json(json.loads((directory / "tree.json").read_text("ascii")))


def write_identities(identities: Sequence[Identity], directory: Path) -> None:
    """Write ``identities.json``: how the files that the guest depends on are recognised now. Raises OSError.

    Whatever is in it cannot make a wrong snapshot valid but by chance: it only
    saves reading files whose inode number and time it has.
    """
    path = directory / "identities.json"
    unfinished = path.with_suffix(".new")
    unfinished.write_text(json.dumps([list(identity) for identity in identities]), encoding="ascii")
    unfinished.replace(path)


def read_identities(directory: Path) -> tuple[Identity, ...] | None:
    """The content of ``identities.json``, None where it is missing or not sound."""
    try:
        rows = json.loads((directory / "identities.json").read_text("ascii"))
        return tuple(Identity(int(ino), int(mtime_ns)) for ino, mtime_ns in rows)
    except (OSError, ValueError, TypeError):
        return None


def read_manifest(directory: Path, *more: str) -> Manifest:
    """The content of ``manifest.json``. Raises as :func:`read_tree` does."""
    manifest = json.loads((directory / "manifest.json").read_text("ascii"))
    files: dict[str, str] = manifest["files"]
    if manifest["format"] != FORMAT or set(files) != {*_FILES, *more}:
        raise ValueError("it is of another format")
    if digest_of(directory / "tree.json") != files["tree.json"]:
        raise ValueError("tree.json is damaged")
    if directory.stat().st_uid != os.getuid():
        raise ValueError("it belongs to another user")
    return Manifest(files, int(manifest["tsc_khz"]))
