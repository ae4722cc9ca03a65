"""What an engine's process may do on the host, held by the kernel, should a guest take that process over.

Rules are set on a thread that does nothing but spawn; its children inherit them, so a fork pays nothing for
them. There is one such thread for each set of files: a fork reads its snapshot and writes nothing; what makes
a snapshot writes to that snapshot's directory. What the engine's program itself needs is given by the engine.
"""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

from pytest_smol.engines.confinement.landlock import Access, Rule, abi, no_new_privileges, restrict_thread
from pytest_smol.engines.confinement.seccomp import forbid_calls
from pytest_smol.errors import ConfinementMissing, HostError, SmolError
from pytest_smol.host.process import Spawner

__all__ = [
    "LIMITS_OF_FORKS",
    "LIMITS_OF_MAKERS",
    "READ_RUN",
    "Domain",
    "Level",
    "Spawners",
    "probe",
    "require",
    "rules",
]

_READ = Access.READ_FILE | Access.READ_DIR

#: Access to programs and their libraries.
READ_RUN = _READ | Access.EXECUTE

_WRITE = _READ | Access.WRITE_FILE | Access.TRUNCATE | Access.MAKE_REG

#: Where programs and their libraries are.
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")

#: What every program needs as well: the loader's own files, and devices that hold nothing.
_COMMON = (
    Rule("/etc/ld.so.cache", Access.READ_FILE),
    Rule("/etc/ld.so.preload", Access.READ_FILE),
    Rule("/dev/null", Access.READ_FILE | Access.WRITE_FILE),
    Rule("/dev/urandom", Access.READ_FILE),
)

#: Limits by setrlimit(2)'s numbers. A fork writes nothing but its words on standard error; the file of
#: a maker's device state is some 100 kB, and memory that is mapped counts in neither.
LIMITS_OF_FORKS = {resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: 256, resource.RLIMIT_FSIZE: 1 << 20}
LIMITS_OF_MAKERS = {**LIMITS_OF_FORKS, resource.RLIMIT_FSIZE: 64 << 20}

#: What Landlock refuses, and since which version of its ABI.
_LANDLOCK = (
    (1, "files"),
    (3, "truncating files"),
    (4, "TCP"),
    (5, "device controls"),
    (6, "signals and abstract sockets"),
)

_FILTERED = "sockets and the memory of other machines"
_LIMITED = "core files, and files and descriptors without end"

_HOW = "Linux 6.12 or newer has it all, with landlock in its list of security modules (lsm=)"


@dataclass(frozen=True)
class Domain:
    """The files of one machine: ``reads`` and ``writes`` are files, or directories with all below them.

    ``largest_file`` is the most bytes that a file may have that it was given open, 0 where there is none.
    """

    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()
    largest_file: int = 0


@dataclass(frozen=True)
class Level:
    """How far a process is confined: the version of Landlock's ABI, 0 for none, and what else there is.

    ``filter`` says whether calls are filtered, ``limits`` whether limits are set.
    ``reason`` says why what the kernel has is not used, and is mostly empty.
    """

    landlock: int
    filter: bool = True
    limits: bool = True
    reason: str = ""

    @property
    def missing(self) -> tuple[str, ...]:
        """What the kernel will not refuse the engine's process."""
        absent = tuple(what for since, what in _LANDLOCK if since > self.landlock)
        return absent + tuple(
            what for has, what in ((self.filter, _FILTERED), (self.limits, _LIMITED)) if not has
        )

    def describe(self) -> str:
        """One line."""
        parts = ["no sockets, no memory of others"] if self.filter else []
        parts += [f"Landlock ABI {self.landlock}" if self.landlock else "no Landlock", "no new privileges"]
        parts += ["no core files, few descriptors, small files"] if self.limits else []
        text = ", ".join(parts) + (f"; not refused: {', '.join(self.missing)}" if self.missing else "")
        return text + (f" ({self.reason})" if self.reason else "")


def rules(own: Sequence[Rule], domain: Domain) -> Iterator[Rule]:
    """All that an engine's process may do with files; ``own`` is what its program itself needs."""
    yield from (Rule(path, READ_RUN) for path in _SYSTEM)
    yield from _COMMON
    yield from own
    yield from (Rule(str(path), _READ) for path in domain.reads)
    yield from (Rule(str(path), _WRITE) for path in domain.writes)


def _confine(level: Level, allowed: Sequence[Rule]) -> None:
    """Confine the calling thread as far as ``level`` says. Raises OSError."""
    no_new_privileges()
    if level.filter:
        forbid_calls()
    if level.landlock:
        restrict_thread(allowed, level.landlock)


class Spawners:
    """Threads that spawn confined processes, which die with them. A context manager, for any thread.

    ``own`` is what the engine's program itself needs.
    """

    def __init__(self, own: Sequence[Rule], level: Level) -> None:
        self.level = level
        self._own = tuple(own)
        self._lock = threading.Lock()
        self._forks: dict[Domain, Spawner] = {}
        self._stack = ExitStack()

    def _make(self, domain: Domain, limits: Mapping[int, int]) -> Spawner:
        allowed = list(rules(self._own, domain))
        try:
            largest = max(limits[resource.RLIMIT_FSIZE], domain.largest_file)
            limits = {**limits, resource.RLIMIT_FSIZE: largest} if self.level.limits else {}
            spawner = Spawner(partial(_confine, self.level, allowed), limits)
        except OSError as error:
            raise HostError(f"machines cannot be confined: {error}", remedy=_HOW) from error
        return self._stack.enter_context(spawner)

    def for_forks(self, *files: Path, largest_file: int = 0) -> Spawner:
        """What spawns the forks of the snapshot that consists of ``files``."""
        domain = Domain(files, largest_file=largest_file)
        with self._lock:
            if domain not in self._forks:
                self._forks[domain] = self._make(domain, LIMITS_OF_FORKS)
            return self._forks[domain]

    def for_maker(self, directory: Path, *reads: Path, largest_file: int = 0) -> Spawner:
        """What spawns the process that makes a snapshot in ``directory``, and reads other files for it."""
        with self._lock:
            return self._make(Domain(reads, (directory,), largest_file), LIMITS_OF_MAKERS)

    def close(self) -> None:
        """End the threads, and with them all that they spawned; idempotent."""
        self._stack.close()

    def __enter__(self) -> Spawners:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _failure_of(argv: Sequence[str], own: Sequence[Rule], level: Level) -> str:
    """Why ``argv`` cannot be run as ``level`` says; empty if it can."""
    try:
        with Spawners(own, level) as spawners:
            child = spawners.for_forks().spawn(argv, ())
            try:
                status = child.wait(30)
                lines = child.stderr().strip().splitlines()
            finally:
                child.kill()
    except SmolError as error:
        return str(error)
    return "" if status == 0 else f"{argv[0]} does not run so: {lines[-1] if lines else status}"


def probe(argv: Sequence[str], own: Sequence[Rule]) -> Level:
    """How far the program of ``argv`` can be confined on this host: ``argv`` is run, and should succeed.

    It is tried, as a container may forbid it. ``own`` is what the program itself needs.
    """
    version = abi()
    why = _failure_of(argv, own, Level(version))
    if not why:
        return Level(version)
    for landlock, filtered, limits in ((version, False, True), (0, True, True), (version, True, False)):
        level = Level(landlock, filtered, limits, why)
        if not _failure_of(argv, own, level):
            return level
    return Level(0, filter=False, limits=False, reason=why)


def require(level: Level, lacks: Sequence[str] = ()) -> None:
    """Raise :class:`ConfinementMissing` unless nothing is missing of what keeps a hostile guest in.

    ``lacks`` is what the engine misses, a clause each.
    """
    missing = [*lacks, *(f"machines cannot be refused {what}" for what in level.missing)]
    if level.reason:
        missing.append(level.reason)
    if missing:
        raise ConfinementMissing(
            f"smol_require_confinement is set, and machines cannot be confined: {'; '.join(missing)}",
            remedy=f"use a host with KVM; {_HOW}; pytest-smol doctor shows both",
        )
