"""Which machines there is room for, among all runs of the user on this host and all workers of each.

A guest touches its memory late, so what is available says little of how many machines fit: each has a claim
to all that it may come to use. Below the user's cache directory::

    machines/<domain>.lock            held while claims are counted and made
    machines/<domain>.budget          the bytes that were available when there was no claim
    machines/<domain>/<bytes>-<name>  one claim; its file is locked as long as its run lives
    machines/<domain>/0-<name>        a process that waits for room

The kernel releases the locks of a process that dies. A domain is what has the memory: see
:func:`~pytest_smol.host.resources.memory_domain`.
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

#: How long a fork waits for room, in seconds. Machines of other runs end, unless one is in a debugger.
PATIENCE = 600.0

#: How often memory is looked at again while it is waited for, in seconds: nothing tells that others free it.
_LOOK = 1.0

#: A domain in which no machine was started for so long, in seconds, is of a boot or a container long gone.
_FORGOTTEN = 7 * 86400.0

_NAME = re.compile(r"(\d{1,15})-[0-9a-f]{16}")

# inotify(7): an end of a process closes its files, so both kinds of end are seen.
_IN_CLOSE_WRITE, _IN_DELETE = 0x8, 0x200

_REMEDY = "free some memory, raise this container's limit or lower --smol-memory"


@dataclass(frozen=True)
class Claim:
    """Memory that one machine may come to use; ``fd`` holds the lock of the file ``path``."""

    path: Path
    fd: int


class Ledger:
    """The claims in ``directory``, and those of them that are this run's. For any thread.

    ``available`` gives bytes, ``processors`` the cores that may be used. A context
    manager: leaving it gives up the run's claims. Methods raise :class:`DiskFull`
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
        """Room for a guest of ``memory`` MiB, or None where there is none, or others wait for it already.

        ``spare`` is for a machine that nothing waits for: there are to be no more of these than cores.
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

    def claim_beside(self, memory: int, machines: int) -> Claim:
        """Room for one more machine of a run that keeps ``machines`` others, and so must not wait.

        Two such runs would wait for each other. Raises :class:`NotEnoughMemory`.
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
        """Room for a guest of ``memory`` MiB, waited for as long as others have machines.

        Raises :class:`NotEnoughMemory` where nobody has one, or after ``patience`` seconds.
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
        """Give up ``claim``; idempotent."""
        with suppress(KeyError):
            self._mine.remove(claim)
            claim.path.unlink(missing_ok=True)
            os.close(claim.fd)

    def close(self) -> None:
        """Give up all claims of the run; idempotent."""
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
        """The bytes of each living claim, while no other process makes one."""
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
    """The claims of machines among all that are ``living``; a claim of no bytes is one that waits."""
    return [claimed for claimed in living if claimed]


def _is_locked(path: Path) -> bool:
    """Whether the claim ``path`` is somebody's; if not, it is removed."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # it was given up just now
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
            f"what machines there are cannot be noted in {directory}: {error.strerror}",
            remedy="see that you can write there, or set XDG_CACHE_HOME to a directory of your own",
        ) from error


def _forget(root: Path, mine: Path) -> None:
    """Remove domains that are long gone."""
    oldest = time.time() - _FORGOTTEN
    with suppress(OSError):
        for directory in root.iterdir():
            if directory.is_dir() and directory != mine and directory.stat().st_mtime < oldest:
                shutil.rmtree(directory, ignore_errors=True)
                for suffix in (".lock", ".budget"):
                    directory.with_suffix(suffix).unlink(missing_ok=True)


class _Changes:
    """Tells when a claim in ``directory`` ends, where inotify(7) can be had. A context manager."""

    def __init__(self, directory: Path) -> None:
        libc = ctypes.CDLL(None)
        self._poll = select.poll()
        # Few of these are allowed to a user; without one, it is only looked at again now and then.
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
