"""The key of a snapshot, and the two files that describe one on disk: ``tree.json`` and ``manifest.json``."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_smol.engines.qemu.command_line import Hardware
from pytest_smol.errors import SnapshotError
from pytest_smol.snapshots.snapshot import Snapshot, seal
from pytest_smol.snapshots.sparse import digest_of
from pytest_smol.virtiofs.filesystem.state import TreeState
from pytest_smol.virtiofs.view import View

__all__ = [
    "key_of",
    "load",
    "read_manifest",
    "read_tree",
    "write_description",
    "write_manifest",
    "write_tree",
]

#: Changes whenever what a snapshot holds or how it is laid out changes.
FORMAT = 3

#: The files of a snapshot.
_FILES = ("ram", "state", "tree.json")


def key_of(facts: Mapping[str, Any]) -> str:
    """The key of all ``facts`` (JSON-ready) that can change a snapshot: 32 hexadecimal digits."""
    text = json.dumps({"format": FORMAT, **facts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def write_tree(tree: TreeState, directory: Path) -> None:
    """Write ``tree.json``, read-only, into ``directory``. Raises OSError."""
    path = directory / "tree.json"
    path.write_text(json.dumps(tree.to_json()), encoding="ascii")
    path.chmod(0o444)


def write_manifest(digests: Mapping[str, str], directory: Path) -> None:
    """Write ``manifest.json`` with the digests of a snapshot's files by name. Raises OSError."""
    digests = {**digests, "tree.json": digest_of(directory / "tree.json")}
    (directory / "manifest.json").write_text(
        json.dumps({"format": FORMAT, "files": digests}), encoding="ascii"
    )


def write_description(snapshot: Snapshot, directory: Path, *more: str) -> None:
    """Describe a snapshot in the ``directory`` that its files are in, and make these read-only.

    ``more`` names further files that belong to it. Raises OSError.
    """
    write_tree(snapshot.tree, directory)
    seal(snapshot)
    for name in more:
        (directory / name).chmod(0o444)
    write_manifest({name: digest_of(directory / name) for name in ("ram", "state", *more)}, directory)


def load(directory: Path, hardware: Hardware, view: View, *more: str) -> Snapshot:
    """The snapshot in ``directory``, used in place; ``more`` names further files that belong to it.

    Raises :class:`SnapshotError` unless it is whole and the user's own.
    """
    try:
        files = read_manifest(directory, *more)
        tree = read_tree(directory)
        damaged = [name for name, digest in files.items() if digest_of(directory / name) != digest]
    except (OSError, ValueError, KeyError, TypeError) as error:
        damaged = [str(error)]
    if damaged:
        raise SnapshotError(
            f"the snapshot {directory} cannot be used: {', '.join(damaged)}",
            remedy="something else writes to that directory; see who, and run again",
        )
    return Snapshot(hardware, view, directory / "ram", directory / "state", tree)


def read_tree(directory: Path) -> TreeState:
    """The content of ``tree.json``. Raises OSError, ValueError, KeyError or TypeError if it is not sound."""
    return TreeState.from_json(json.loads((directory / "tree.json").read_text("ascii")))


def read_manifest(directory: Path, *more: str) -> dict[str, str]:
    """The digests by file name. Raises ValueError, KeyError, TypeError or OSError where it is not sound."""
    manifest = json.loads((directory / "manifest.json").read_text("ascii"))
    files: dict[str, str] = manifest["files"]
    if manifest["format"] != FORMAT or set(files) != {*_FILES, *more}:
        raise ValueError("it is of another format")
    if digest_of(directory / "tree.json") != files["tree.json"]:
        raise ValueError("tree.json is damaged")
    if directory.stat().st_uid != os.getuid():
        raise ValueError("it belongs to another user")
    return files
