"""The cache of base snapshots, shared by processes under file locks.

A base snapshot on disk is a directory named by its key::

    base/<key>/ram            the guest's memory, sparse
    base/<key>/state          the engine's device state
    base/<key>/tree.json      the file server's node table, and the host paths that the guest looked at
    base/<key>/manifest.json  digests of the three
    base/<key>/identities.json  by what the host files are recognised that were found unchanged last
    base/<key>.lock           held while it is checked, copied or stored

It is valid if it is whole (the digests agree) and if every host path that the
guest looked at while it was made is unchanged: see ``virtiofs/dependencies``.
Anything else is built again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from pytest_smol.engines.protocol import Hardware
from pytest_smol.errors import SnapshotError
from pytest_smol.host.run_directory import require_space
from pytest_smol.snapshots.description import (
    Manifest,
    read_identities,
    read_manifest,
    read_tree,
    write_identities,
    write_manifest,
    write_tree,
)
from pytest_smol.snapshots.snapshot import Snapshot
from pytest_smol.snapshots.sparse import copy_sparse, write_error
from pytest_smol.virtiofs.dependencies.comparison import Comparison, compare
from pytest_smol.virtiofs.dependencies.dependency import hashed
from pytest_smol.virtiofs.view import View

__all__ = ["BaseCache", "Origin"]

#: A base snapshot that was not used for so long, in seconds, is removed.
_MAX_UNUSED = 14 * 86400.0

_KEY_PATTERN = "[0-9a-f]" * 32

#: How far a host's time stamp counter may be from the frequency that a guest was told, as a fraction. The
#: measured frequency of one host differs less from boot to boot; NTP corrects a clock by half of this.
_TSC_TOLERANCE = 0.001

#: The prefix, before the key, of a directory that is not complete yet.
_UNFINISHED = ".new-"


@dataclass(frozen=True)
class Origin:
    """Where a base snapshot came from.

    ``built`` is None for a hit, else how long the build took in seconds;
    ``stale`` is why the one in the cache was not used, None where there was none.
    """

    built: float | None = None
    stale: str | None = None

    def describe(self) -> str:
        """A clause for pytest's header."""
        if self.built is None:
            return "base snapshot hit"
        because = f" ({self.stale})" if self.stale else ""
        return f"base snapshot built in {self.built:.1f} s{because}"


class BaseCache:
    """Base snapshots below ``root``, the user's cache directory.

    ``tsc_khz`` is the frequency of this host's time stamp counter, 0 if it does not matter.
    """

    def __init__(self, root: Path, tsc_khz: int = 0) -> None:
        self._tsc_khz = tsc_khz
        self._root = root / "base"
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def checkout(
        self, key: str, hardware: Hardware, view: View, target: Path, build: Callable[[Path], Snapshot]
    ) -> tuple[Snapshot, Origin]:
        """The valid snapshot ``key`` with files of its own in the directory ``target``.

        They are copied from the cache. Where it has no valid snapshot,
        ``build(target)`` makes them, one process at a time for a key, and they
        are copied into the cache. So no guest ever writes to the cache's file
        system. Raises what ``build`` raises, :class:`SnapshotError` and
        :class:`DiskFull`.
        """
        require_space(target, hardware.memory << 20)
        directory = self._root / key
        with FileLock(f"{directory}.lock"):
            snapshot, reason = self._copy_valid(directory, hardware, view, target)
            if snapshot is not None:
                return snapshot, Origin()
            begin = time.monotonic()
            snapshot = self._build(directory, hardware, target, build)
            built = time.monotonic() - begin
        self.collect()  # takes little time compared with a build
        return snapshot, Origin(built, reason)

    def collect(self, unused: float = _MAX_UNUSED) -> list[Path]:
        """Remove stale snapshots and those not used for ``unused`` seconds; returns what was removed."""
        removed = []
        for lock in self._root.glob(_KEY_PATTERN + ".lock"):
            try:
                with FileLock(lock, timeout=0):
                    removed += self._collect_one(lock.with_suffix(""), unused)
            except Timeout:  # a snapshot in use is kept
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

    def _copy_valid(
        self, directory: Path, hardware: Hardware, view: View, target: Path
    ) -> tuple[Snapshot | None, str | None]:
        """The copy in ``target``, or None and why there is none (None where the cache had nothing)."""
        if not directory.exists():
            return None, None
        try:
            manifest = read_manifest(directory)
            tree = read_tree(directory)
        except (OSError, ValueError, KeyError, TypeError) as error:
            return None, f"its description is damaged: {error}"
        known = read_identities(directory)
        now = compare(tree.dependencies, known)
        difference = self._other_frequency(manifest.tsc_khz) or now.reason
        if difference is not None:
            return None, difference
        for name in ("ram", "state"):
            if _copied(directory / name, target / name) != manifest.files[name]:
                return None, f"its {name} file is damaged"
        with suppress(OSError):  # a cache that cannot be written to is as good
            os.utime(directory / "manifest.json")  # the time of the last use
            if now.identities != known:
                write_identities(now.identities, directory)
        tree = tree.on_host(now)
        return Snapshot(hardware, view, target / "ram", target / "state", tree), None

    def _other_frequency(self, tsc_khz: int) -> str | None:
        """Why a guest that was told ``tsc_khz`` would measure time wrongly here; None if it would not."""
        if abs(self._tsc_khz - tsc_khz) <= tsc_khz * _TSC_TOLERANCE or not self._tsc_khz:
            return None
        return f"the time stamp counter ran at {tsc_khz} kHz, now at {self._tsc_khz}"

    def _build(
        self, directory: Path, hardware: Hardware, target: Path, build: Callable[[Path], Snapshot]
    ) -> Snapshot:
        """A new snapshot in ``target``, copied to ``directory``."""
        require_space(self._root, hardware.memory << 20)
        try:
            snapshot = build(target)
        except OSError as error:
            raise write_error(target, error) from error
        tree = snapshot.tree
        tree = replace(tree, dependencies=hashed(tree.dependencies))
        now = compare(tree.dependencies)
        if now.reason is not None:
            raise SnapshotError(
                f"the base snapshot was not valid right after it was made: {now.reason}",
                remedy="wait until nothing changes the interpreter's files any more, and run again",
            )
        snapshot = replace(snapshot, tree=tree)
        self._store(snapshot, now, directory)
        return snapshot

    def _store(self, snapshot: Snapshot, now: Comparison, directory: Path) -> None:
        """Copy ``snapshot`` to ``directory``. Raises :class:`DiskFull`."""
        made = Path(tempfile.mkdtemp(prefix=f"{_UNFINISHED}{directory.name}-", dir=self._root))
        try:
            write_tree(snapshot.tree.without_devices(), made)
            write_identities(now.identities, made)
            digests = {}
            for path in (snapshot.ram, snapshot.state):
                digests[path.name] = copy_sparse(path, made / path.name)
                (made / path.name).chmod(0o444)
            write_manifest(Manifest(digests, self._tsc_khz), made)
            _remove(directory)
            made.rename(directory)
        except OSError as error:
            raise write_error(made, error) from error
        finally:
            shutil.rmtree(made, ignore_errors=True)


def _copied(source: Path, target: Path) -> str | None:
    """The digest of what was copied; None where ``source`` cannot be read."""
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
        if time.time() - last_use >= unused:
            return True
        return compare(read_tree(directory).dependencies, read_identities(directory)).reason is not None
    except (OSError, ValueError, KeyError, TypeError):
        return True
