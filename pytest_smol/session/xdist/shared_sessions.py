"""Session snapshots that the workers of one distributed run share: the first to need one makes it.

Below the controller's run directory, which lives as long as the run::

    <key>/ram, state, tree.json, manifest.json   a snapshot, as in the cache of base snapshots
    <key>/said          what the guest said while it collected, as frames
    <key>/failure.json  instead of a snapshot: why there is none
    <key>.lock          held while it is looked for or made
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from pytest_smol import errors
from pytest_smol.engines.protocol import Hardware
from pytest_smol.errors import SmolError, SnapshotError
from pytest_smol.host.cache_directory import distrust
from pytest_smol.host.run_directory import require_space
from pytest_smol.protocol.wire import Message
from pytest_smol.snapshots.description import load, write_description
from pytest_smol.snapshots.snapshot import Snapshot
from pytest_smol.snapshots.sparse import write_error
from pytest_smol.virtiofs.view import View

__all__ = ["ProcessContext", "SharedSession", "SharedSessions"]

#: What is being made is called so, before its key.
_UNFINISHED = ".new-"

_SAID = "said"
_FAILURE = "failure.json"


@dataclass(frozen=True)
class SharedSession:
    """What came of a guest session: all that the guest said, and its snapshot or else why there is none.

    ``failure`` is for a machine that went wrong, ``ended`` (its exit status and
    what it printed) for a guest whose pytest ended while it collected.
    """

    said: bytes
    snapshot: Snapshot | None = None
    failure: SmolError | None = None
    ended: tuple[int, str] | None = None


def _unchanged(request: Any) -> Any:
    return request


@dataclass(frozen=True)
class ProcessContext:
    """What a process of a distributed run shares with the others; nothing in a run of one process.

    The :class:`SessionRequest` of its guests goes through ``adapt_request``, so
    that those of all processes are told the same. Its own directory is made in
    ``directory``, its guest sessions are in ``sessions``, and its machines may use
    ``memory`` bytes. ``workerinput`` is what pytest-xdist's controller told a
    worker, ``env`` are variables that only a worker has, and ``colour`` tells
    whether the controller shows colours; that and ``workerinput`` are None
    elsewhere. To ``hidden`` are added the host paths that its machines asked for
    and did not get.
    """

    adapt_request: Callable[[Any], Any] = _unchanged
    directory: Path | None = None
    sessions: SharedSessions | None = None
    memory: int | None = None
    workerinput: Message | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    colour: bool | None = None
    hidden: set[str] = field(default_factory=set)


class SharedSessions:
    """Guest sessions below the directory ``root``, by key.

    Raises :class:`SnapshotError` for a directory that others may write to.
    """

    def __init__(self, root: Path) -> None:
        reason = distrust(root.lstat(), os.geteuid())
        if reason:
            raise SnapshotError(
                f"the directory {root} is refused: {reason}",
                remedy="point TMPDIR to a directory of your own",
            )
        self._root = root

    def obtain(
        self, key: str, hardware: Hardware, view: View, build: Callable[[Path], SharedSession]
    ) -> tuple[SharedSession, bool]:
        """What came of the guest session ``key``, and whether it was made just now.

        ``build(directory)`` makes the snapshot's files in ``directory``; one
        process at a time is in it for a key, and the others wait. Raises what
        it raises (nothing is shared then), :class:`DiskFull`, and
        :class:`SnapshotError` where what another process made is not whole.
        """
        directory = self._root / key
        with FileLock(f"{directory}.lock"):
            if directory.exists():
                return self._load(directory, hardware, view), False
            return self._make(directory, hardware, build), True

    def _load(self, directory: Path, hardware: Hardware, view: View) -> SharedSession:
        try:
            said = (directory / _SAID).read_bytes()
            shared = _read_failure(directory / _FAILURE, said)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SnapshotError(
                f"the guest session {directory} cannot be used: {error}",
                remedy="something else writes to that directory; find out which process, and run again",
            ) from error
        return shared or SharedSession(said, load(directory, hardware, view, _SAID))

    def _make(
        self, directory: Path, hardware: Hardware, build: Callable[[Path], SharedSession]
    ) -> SharedSession:
        require_space(self._root, hardware.memory << 20)
        made = Path(tempfile.mkdtemp(prefix=f"{_UNFINISHED}{directory.name}-", dir=self._root))
        try:
            shared = build(made)
            _store(shared, made)
            made.rename(directory)
        except OSError as error:
            raise write_error(made, error) from error
        finally:
            shutil.rmtree(made, ignore_errors=True)
        return replace(shared, snapshot=_moved(shared.snapshot, directory))


def _store(shared: SharedSession, directory: Path) -> None:
    (directory / _SAID).write_bytes(shared.said)
    if shared.snapshot is not None:
        write_description(shared.snapshot, directory, _SAID)
    else:
        table = {"ended": shared.ended, "failure": _fields(shared.failure)}
        (directory / _FAILURE).write_text(json.dumps(table), encoding="ascii")


def _fields(failure: SmolError | None) -> dict[str, str] | None:
    if failure is None:
        return None
    texts = {"message": failure.message, "remedy": failure.remedy, "evidence": failure.evidence}
    return {"kind": type(failure).__name__, **texts}


def _read_failure(path: Path, said: bytes) -> SharedSession | None:
    """What is stored in the place of a snapshot; None where there is one.

    Raises OSError, ValueError, KeyError or TypeError where it is not sound.
    """
    if not path.exists():
        return None
    table = json.loads(path.read_text("ascii"))
    if table["ended"] is not None:
        status, output = table["ended"]
        return SharedSession(said, ended=(int(status), str(output)))
    fields = dict(table["failure"])
    kind = vars(errors).get(fields.pop("kind"))
    if not (isinstance(kind, type) and issubclass(kind, SmolError)):
        raise ValueError("no error of ours")
    return SharedSession(said, failure=kind(fields.pop("message"), **fields))


def _moved(snapshot: Snapshot | None, directory: Path) -> Snapshot | None:
    """``snapshot``, whose files were moved to ``directory``."""
    if snapshot is None:
        return None
    disks = tuple(path and directory / path.name for path in snapshot.disks)
    return replace(
        snapshot, ram=directory / snapshot.ram.name, state=directory / snapshot.state.name, disks=disks
    )
