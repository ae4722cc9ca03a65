"""Limits how many machines run at once by memory, over all runs of the user on this host and their workers.

A guest uses its memory gradually, so the memory that is available now does not tell how many machines fit.
Each machine therefore has a claim: the most memory that it may use. Below the user's cache directory::

    machines/<domain>.lock            held while claims are counted and made
    machines/<domain>.budget          the bytes that were available when there was no claim
    machines/<domain>/<bytes>-<name>  one claim; its file is locked until its run ends
    machines/<domain>/0-<name>        a process that waits for memory

The kernel releases the locks of a process that ends. A domain stands for the processes that share one
limit of memory: see :func:`~pytest_smol.host.resources.memory_domain`.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import secrets
import select
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from pytest_smol.errors import DiskFull, NotEnoughMemory
from pytest_smol.host import cache_directory
from pytest_smol.host.resources import available_memory, cores, memory_domain, needed_memory

__all__ = ["Claim", "Ledger"]

#: The longest wait for memory, in seconds. Machines of other runs end, unless one is in a debugger.
PATIENCE = 600.0

#: The interval in which available memory is read again during a wait, in seconds: no event tells of it.
_LOOK = 1.0

#: The files of a domain in which no machine was started for so long, in seconds, are removed.
_FORGOTTEN = 7 * 86400.0

_NAME = re.compile(r"(\d{1,15})-[0-9a-f]{16}")

# inotify(7). A claim that is released is deleted; the files of a process that ends are closed.
_IN_CLOSE_WRITE, _IN_DELETE = 0x8, 0x200

_REMEDY = "free some memory, raise this container's limit or lower --smol-memory"


@dataclass(frozen=True)
class Claim:
    """The memory that one machine may use; ``fd`` holds the lock of the claim's file ``path``."""

    path: Path
    fd: int


class Ledger:
    """All claims in ``directory``, this run's among them. For any thread.

    ``available`` returns the available memory in bytes, ``processors`` the number of cores that may be
    used. A context manager: leaving it releases the run's claims. Methods raise :class:`DiskFull`
    where claims cannot be written.
    """

    def __init__(
        self,
        directory: Path,
        available: Callable[[], int] = available_memory,
        processors: Callable[[], int] = cores,
    ) -> None:
        self._directory = directory
        self._available = available
        self._processors = processors
        self._mine: set[Claim] = set()

    @classmethod
    def of_user(cls) -> Ledger:
        """The ledger of the user's runs on this host. Raises :class:`~pytest_smol.errors.SmolError`."""
        root = cache_directory.directory() / "machines"
        with _written(root):
            root.mkdir(mode=0o700, exist_ok=True)
        directory = root / memory_domain()
        _forget(root, directory)
        return cls(directory)

    def claim(self, memory: int, *, spare: bool = False) -> Claim | None:
        """A claim for a guest of ``memory`` MiB; None if it does not fit, or another process waits.

        With ``spare``, for a machine that no test needs yet, also None if there are more machines than cores.
        """
        with self._counted() as living:
            machines = _machines(living)
            fits = len(machines) == len(living) and self._fits(memory, machines)
            if spare:
                fits = fits and len(machines) <= self._processors()
            return self._write(needed_memory(memory)) if fits else None

    def _fits(self, memory: int, machines: list[int]) -> bool:
        needed, available = needed_memory(memory), self._available()
        return available >= needed and sum(machines) + needed <= self._budget(machines, available)

    def claim_without_waiting(self, memory: int, machines: int) -> Claim:
        """A claim for one more guest, of ``memory`` MiB, in a run that keeps ``machines`` others meanwhile.

        Two runs that waited while they keep machines could wait for each other for ever, so this raises
        :class:`NotEnoughMemory` where too little memory is available.
        """
        needed, available = needed_memory(memory), self._available()
        if available < needed:
            raise NotEnoughMemory(
                f"a guest of {memory} MiB needs more memory than the {available >> 20} MiB"
                f" that are available in addition to the {machines} machines which this run keeps",
                remedy=f"run the tests of a module one after another, as pytest orders them; {_REMEDY}",
            )
        with self._counted():
            return self._write(needed)

    def wait(self, memory: int, patience: float = PATIENCE) -> Claim:
        """A claim for a guest of ``memory`` MiB; waits while other processes have machines.

        Raises :class:`NotEnoughMemory` where no process has one, or after ``patience`` seconds.
        """
        end = time.monotonic() + patience
        with self._counted():
            turn = self._write(0)
        try:
            with _Changes(self._directory) as changes:
                while True:
                    with self._counted() as living:
                        machines = _machines(living)
                        if self._fits(memory, machines):
                            return self._write(needed_memory(memory))
                    if not machines or time.monotonic() >= end:
                        raise self._refusal(memory, len(machines))
                    changes.wait(_LOOK)
        finally:
            self.release(turn)

    def _refusal(self, memory: int, machines: int) -> NotEnoughMemory:
        running = f", in addition to {machines} machines of your runs" if machines else ""
        return NotEnoughMemory(
            f"a guest of {memory} MiB needs more memory than the {self._available() >> 20} MiB"
            f" that are available{running}",
            remedy=_REMEDY,
        )

    def release(self, claim: Claim) -> None:
        """Release ``claim``; idempotent."""
        with suppress(KeyError):
            self._mine.remove(claim)
            claim.path.unlink(missing_ok=True)
            os.close(claim.fd)

    def close(self) -> None:
        """Release all claims of the run; idempotent."""
        for claim in list(self._mine):
            self.release(claim)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- files ----------------------------------------------------------------------------

    @contextmanager
    def _counted(self) -> Iterator[list[int]]:
        """The bytes of each claim whose run has not ended; no other process makes a claim meanwhile."""
        with _written(self._directory):
            self._directory.mkdir(mode=0o700, exist_ok=True)
            lock = os.open(self._directory.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield [int(found[1]) for path, found in self._claims() if _is_locked(path)]
            finally:
                os.close(lock)

    def _claims(self) -> list[tuple[Path, re.Match[str]]]:
        named = ((path, _NAME.fullmatch(path.name)) for path in self._directory.iterdir())
        return [(path, found) for path, found in named if found]

    def _budget(self, machines: list[int], available: int) -> int:
        """The bytes that may be claimed in all."""
        file = self._directory.with_suffix(".budget")
        if not machines:
            file.write_text(str(available), "ascii")
            return available
        try:
            return max(int(file.read_text("ascii")), available)
        except (OSError, ValueError):
            return available

    def _write(self, needed: int) -> Claim:
        path = self._directory / f"{needed}-{secrets.token_hex(8)}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        claim = Claim(path, fd)
        self._mine.add(claim)
        return claim


def _machines(living: list[int]) -> list[int]:
    """The claims of machines among all that are ``living``; a claim of 0 bytes is of a process that waits."""
    return [claimed for claimed in living if claimed]


def _is_locked(path: Path) -> bool:
    """Whether the run that made the claim ``path`` still holds its lock; if not, the file is removed."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # it was released just now
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    path.unlink(missing_ok=True)
    return False


@contextmanager
def _written(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskFull(
            f"the list of running machines cannot be written to {directory}: {error.strerror}",
            remedy="see that you can write there, or set XDG_CACHE_HOME to a directory of your own",
        ) from error


def _forget(root: Path, mine: Path) -> None:
    """Remove the files of domains in which no machine was started for _FORGOTTEN seconds."""
    oldest = time.time() - _FORGOTTEN
    with suppress(OSError):
        for directory in root.iterdir():
            if directory.is_dir() and directory != mine and directory.stat().st_mtime < oldest:
                shutil.rmtree(directory, ignore_errors=True)
                for suffix in (".lock", ".budget"):
                    directory.with_suffix(suffix).unlink(missing_ok=True)


class _Changes:
    """Waits for the end of a claim in ``directory``, by inotify(7) if it is available. A context manager."""

    def __init__(self, directory: Path) -> None:
        libc = ctypes.CDLL(None)
        self._poll = select.poll()
        # A user may have few of these; without one, wait() only lets its time pass.
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd >= 0:
            self._poll.register(self._fd, select.POLLIN)
            libc.inotify_add_watch(self._fd, os.fsencode(directory), _IN_CLOSE_WRITE | _IN_DELETE)

    def wait(self, seconds: float) -> None:
        """Wait for a change, ``seconds`` at most."""
        if self._poll.poll(seconds * 1000):
            os.read(self._fd, 1 << 16)

    def __enter__(self) -> _Changes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd >= 0:
            os.close(self._fd)
