"""Snapshots: the value, and the cache of base snapshots with keys, locks and exact validity.

A base snapshot on disk is a directory named by its key::

    base/<key>/ram            the guest's memory, sparse
    base/<key>/state          QEMU's device state
    base/<key>/tree.json      the file server's node table, and all it was asked
    base/<key>/manifest.json  digests and sizes of the three; written last
    base/<key>.lock           held while it is checked, copied or built

It is valid if it is whole (the digests agree) and if every path that the guest
looked at while it was made is still as it was. Anything else is rebuilt.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pytest_smol.engines.qemu.command_line import Hardware
from pytest_smol.errors import DiskFull, SnapshotError
from pytest_smol.host.run_directory import require_space
from pytest_smol.virtiofs.dependencies.recorder import changed
from pytest_smol.virtiofs.filesystem.state import TreeState
from pytest_smol.virtiofs.view import View

__all__ = [
    "BaseCache",
    "Snapshot",
    "copy_sparse",
    "describe",
    "described",
    "digest_of",
    "key_of",
    "not_written",
    "seal",
]

#: Changes whenever what a snapshot holds or how it is laid out changes.
FORMAT = 2

_CHUNK = 64 << 10

#: A base snapshot that was not used for so long, in seconds, is garbage.
_MAX_UNUSED = 14 * 86400.0

_KEY_PATTERN = "[0-9a-f]" * 32

#: The files of a snapshot.
_FILES = ("ram", "state", "tree.json")

#: What a snapshot that is being made is called, before its key.
_UNFINISHED = ".new-"


@dataclass(frozen=True)
class Snapshot:
    """A frozen machine: memory and device state in files, node table and view as values."""

    hardware: Hardware
    view: View
    ram: Path
    state: Path
    tree: TreeState


@dataclass(frozen=True)
class Origin:
    """Where a base snapshot came from: ``built`` is None for a hit, else seconds; ``stale`` says why."""

    built: float | None = None
    stale: str | None = None

    def describe(self) -> str:
        """For pytest's header."""
        if self.built is None:
            return "base snapshot hit"
        because = f" ({self.stale})" if self.stale else ""
        return f"base snapshot built in {self.built:.1f} s{because}"


def key_of(facts: dict[str, Any]) -> str:
    """The key of all ``facts`` (JSON-ready) that can change a snapshot: 32 hexadecimal digits."""
    text = json.dumps({"format": FORMAT, **facts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def seal(snapshot: Snapshot) -> Snapshot:
    """Make the files of a snapshot read-only; gives it back."""
    for path in (snapshot.ram, snapshot.state):
        path.chmod(0o444)
    return snapshot


def _chunks(fd: int) -> Iterator[int]:
    """The aligned offsets of a sparse file's chunks that are not all hole, by lseek(2) SEEK_DATA."""
    offset = 0
    size = os.fstat(fd).st_size
    while offset < size:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        end = os.lseek(fd, start, os.SEEK_HOLE)
        for offset in range(start - start % _CHUNK, end, _CHUNK):
            yield offset
        offset += _CHUNK


def _digest(source: int, write: Callable[[int, bytes], object]) -> str:
    """The digest of a sparse file's content; ``write(offset, data)`` is given all that is not zero."""
    digest = hashlib.sha256(b"%d" % os.fstat(source).st_size)
    zeros = bytes(_CHUNK)
    # Chunks are aligned, so that one content has one digest however it is stored.
    for offset in _chunks(source):
        data = os.pread(source, _CHUNK, offset)
        if data != zeros[: len(data)]:
            digest.update(b"%d:" % offset + data)
            write(offset, data)
    return digest.hexdigest()


def digest_of(path: Path) -> str:
    """A digest of a file's size and content; cheap for the holes of a sparse one."""
    with path.open("rb") as file:
        return _digest(file.fileno(), lambda offset, data: None)


def copy_sparse(source: Path, target: Path) -> str:
    """Copy a file without its holes; gives its digest.

    Raises :class:`DiskFull` when ``target`` cannot be written, OSError when ``source`` cannot be opened.
    """
    with source.open("rb") as reader:
        try:
            with target.open("wb") as writer:
                os.ftruncate(writer.fileno(), os.fstat(reader.fileno()).st_size)
                return _digest(reader.fileno(), lambda offset, data: _write(writer.fileno(), data, offset))
        except OSError as error:
            raise not_written(target, error) from error


def _write(fd: int, data: bytes, offset: int) -> None:
    """Write all of ``data``: what still fits on a full disk is written, and is no error of its own."""
    while data:
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written


def not_written(path: Path, error: OSError) -> DiskFull:
    """The error for a ``path`` that could not be written."""
    return DiskFull(
        f"{path} could not be written: {error.strerror or error}",
        remedy="free some space there, or point TMPDIR and XDG_CACHE_HOME to a larger file system",
    )


class BaseCache:
    """Base snapshots below ``root`` (the user's cache directory), shared by processes under file locks."""

    def __init__(self, root: Path) -> None:
        self._root = root / "base"
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def checkout(
        self, key: str, hardware: Hardware, view: View, target: Path, build: Callable[[Path], Snapshot]
    ) -> tuple[Snapshot, Origin]:
        """A private copy in ``target`` of the valid snapshot ``key``, built first where there is none.

        ``build(directory)`` makes the snapshot's files in ``directory``; it is
        called by one process at a time for a key. Raises what it raises, and
        :class:`SnapshotError` or :class:`DiskFull`.
        """
        require_space(target, hardware.memory << 20)
        directory = self._root / key
        with FileLock(f"{directory}.lock"):
            copied, reason = self._try_checkout(directory, hardware, view, target)
            if copied is not None:
                return copied, Origin()
            begin = time.monotonic()
            self._rebuild(directory, hardware, build)
            built = time.monotonic() - begin
            copied, damage = self._try_checkout(directory, hardware, view, target)
        self.collect()  # a build takes seconds; whoever waits for one can wait for this too
        if copied is None:
            raise SnapshotError(
                f"the base snapshot was not valid right after it was made: {damage}",
                remedy="something changes the interpreter's files meanwhile; run again when it is done",
            )
        return copied, Origin(built, reason)

    def collect(self, unused: float = _MAX_UNUSED) -> list[Path]:
        """Remove snapshots that were not used for ``unused`` seconds or are stale; give what was removed."""
        removed = []
        for lock in self._root.glob(_KEY_PATTERN + ".lock"):
            try:
                with FileLock(lock, timeout=0):
                    removed += self._collect_one(lock.with_suffix(""), unused)
            except Timeout:  # in use, so it is none
                continue
        return removed

    def _collect_one(self, directory: Path, unused: float) -> list[Path]:
        """The lock of ``directory`` must be held."""
        garbage = list(self._root.glob(f"{_UNFINISHED}{directory.name}-*"))
        if directory.exists() and _is_garbage(directory, unused):
            garbage.append(directory)
        for path in garbage:
            shutil.rmtree(path, ignore_errors=True)
        return garbage

    def _try_checkout(
        self, directory: Path, hardware: Hardware, view: View, target: Path
    ) -> tuple[Snapshot | None, str | None]:
        """The copy, or None and why there is none (no reason where nothing was there)."""
        if not directory.exists():
            return None, None
        try:
            manifest = _read_manifest(directory)
            tree = _read_tree(directory)
        except (OSError, ValueError, KeyError, TypeError) as error:
            return None, f"its description is damaged: {error}"
        difference = changed(tree.dependencies)
        if difference is not None:
            return None, difference
        for name in ("ram", "state"):
            if _copied(directory / name, target / name) != manifest[name]:
                return None, f"its {name} file is damaged"
        os.utime(directory / "manifest.json")  # says when it was last used
        return Snapshot(hardware, view, target / "ram", target / "state", tree), None

    def _rebuild(self, directory: Path, hardware: Hardware, build: Callable[[Path], Snapshot]) -> None:
        require_space(self._root, hardware.memory << 20)
        made = Path(tempfile.mkdtemp(prefix=f"{_UNFINISHED}{directory.name}-", dir=self._root))
        try:
            describe(build(made), made)
            _remove(directory)
            made.rename(directory)
        except OSError as error:
            raise not_written(made, error) from error
        finally:
            shutil.rmtree(made, ignore_errors=True)


def _copied(source: Path, target: Path) -> str | None:
    """The digest of what was copied; None where there is nothing to copy."""
    try:
        return copy_sparse(source, target)
    except OSError:
        return None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_garbage(directory: Path, unused: float) -> bool:
    try:
        last_use = (directory / "manifest.json").stat().st_mtime
        return time.time() - last_use >= unused or changed(_read_tree(directory).dependencies) is not None
    except (OSError, ValueError, KeyError, TypeError):
        return True


def _read_tree(directory: Path) -> TreeState:
    """The node table. Raises OSError, ValueError, KeyError or TypeError where it is not sound."""
    return TreeState.from_json(json.loads((directory / "tree.json").read_text("ascii")))


def describe(snapshot: Snapshot, directory: Path, *more: str) -> None:
    """Write what tells whether a snapshot is whole into the ``directory`` that it is in, and seal it.

    ``more`` names files that belong to it. Raises OSError where that cannot be written.
    """
    tree = directory / "tree.json"
    tree.write_text(json.dumps(snapshot.tree.to_json()), encoding="ascii")
    seal(snapshot)
    for name in ("tree.json", *more):
        (directory / name).chmod(0o444)
    files = {name: digest_of(directory / name) for name in (*_FILES, *more)}
    (directory / "manifest.json").write_text(json.dumps({"format": FORMAT, "files": files}), encoding="ascii")


def described(directory: Path, hardware: Hardware, view: View, *more: str) -> Snapshot:
    """The snapshot in ``directory``, used where it is; ``more`` names files that belong to it.

    Raises :class:`SnapshotError` unless it is whole and the user's own.
    """
    try:
        files = _read_manifest(directory, *more)
        tree = _read_tree(directory)
        damaged = [name for name, digest in files.items() if digest_of(directory / name) != digest]
    except (OSError, ValueError, KeyError, TypeError) as error:
        damaged = [str(error)]
    if damaged:
        raise SnapshotError(
            f"the snapshot {directory} cannot be used: {', '.join(damaged)}",
            remedy="something else writes to that directory; see who, and run again",
        )
    return Snapshot(hardware, view, directory / "ram", directory / "state", tree)


def _read_manifest(directory: Path, *more: str) -> dict[str, str]:
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
