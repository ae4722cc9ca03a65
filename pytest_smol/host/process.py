"""A child process: spawned with inherited sockets, killed when this process ends, reaped without polling.

It is reaped only by :meth:`ChildProcess.kill`: until then no other process gets
its pid, so the file server may still write to the memory of the process by that pid.
"""

from __future__ import annotations

import os
import resource
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from types import TracebackType

from pytest_smol.errors import HostError, ToolMissing

__all__ = ["ChildProcess", "Spawner", "find_setpriv", "launcher_problem"]

_PDEATHSIG = ("--pdeathsig", "KILL", "--")


def find_setpriv(path: str | None = None) -> str:
    """The path of a setpriv(1) on ``path`` (default: ``$PATH``) that has ``--pdeathsig``.

    Raises ToolMissing where there is none, HostError where it does not work, as busybox's.
    """
    remedy = "install the package util-linux"
    setpriv = shutil.which("setpriv", path=path)
    if setpriv is None:
        raise ToolMissing(
            "setpriv is not installed, so machines go on running if pytest is killed", remedy=remedy
        )
    argv = [setpriv, *_PDEATHSIG, "true"]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError as error:
        raise HostError(f"'{' '.join(argv)}' fails: {error.strerror}", remedy=remedy) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise HostError(
            f"'{' '.join(argv)}' fails: {last}; so machines go on running if pytest is killed",
            remedy=f"{remedy}: busybox's setpriv will not do",
        )
    return setpriv


@lru_cache(maxsize=1)
def _launcher() -> tuple[str, ...]:
    """A prefix that makes a program end with the thread that spawned it; empty where the host has none.

    setpriv(1) sets PR_SET_PDEATHSIG between fork and exec, which Python cannot
    do safely in a process that has threads.
    """
    try:
        return (find_setpriv(), *_PDEATHSIG)
    except HostError:
        return ()


def launcher_problem() -> str:
    """Why spawned programs go on running if this process is killed, with the remedy; empty if they do not."""
    if _launcher():
        return ""
    try:
        find_setpriv()
    except HostError as error:
        return f"{error.message} ({error.remedy})"
    return ""


def _limit(pid: int, limits: Mapping[int, int]) -> None:
    """Lower the limits of the child ``pid``, which has done nothing yet. Raises OSError."""
    for which, most in limits.items():
        with suppress(ProcessLookupError):  # it has ended already
            hard = resource.prlimit(pid, which)[1]
            least = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.prlimit(pid, which, (least, least))


class ChildProcess:
    """One program with the descriptors ``fds``, in a session of its own (Ctrl-C is not for it).

    ``limits`` are what it may use at most, by setrlimit(2)'s numbers. Raises
    :class:`HostError` when it cannot be started.
    """

    def __init__(
        self, argv: Sequence[str], fds: Sequence[int], limits: Mapping[int, int] | None = None
    ) -> None:
        self._stderr = os.memfd_create("stderr", os.MFD_CLOEXEC)
        try:
            self._process = subprocess.Popen(
                [*_launcher(), *argv],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                pass_fds=fds,
                start_new_session=True,
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            )
        except OSError as error:
            os.close(self._stderr)
            raise HostError(
                f"{argv[0]} cannot be started: {error}",
                remedy="see that it is there and may be executed, or name another with --smol-qemu",
            ) from error
        self.pid = self._process.pid
        self._closed = False
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except OSError as error:
            self._reap()
            raise HostError(
                f"{argv[0]} cannot be watched: {error}",
                remedy="pidfd_open(2) needs Linux 5.3 or newer, and a seccomp filter that allows it",
            ) from error
        try:
            _limit(self.pid, limits or {})
        except OSError as error:
            self.kill()
            raise HostError(
                f"{argv[0]} cannot be limited: {error}", remedy="see what forbids prlimit(2) on this host"
            ) from error

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs. Looked at, but not reaped."""
        if self._process.returncode is not None:
            return int(self._process.returncode)
        try:
            ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # someone else waits for all children of this process
            return self._process.poll()
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    @property
    def stopped(self) -> bool:
        """Whether it is stopped (SIGSTOP), and does nothing until it is told to go on."""
        try:
            found = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # it is gone, or someone else waits for all children of this process
            return False
        return found is not None

    def stderr(self) -> str:
        """What it wrote to standard error, the first 64 KiB."""
        return os.pread(self._stderr, 65536, 0).decode("utf-8", "replace") if not self._closed else ""

    def wait(self, timeout: float) -> int | None:
        """Its exit status, or None if it still runs after ``timeout`` seconds."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return self.returncode if poll.poll(timeout * 1000) else None

    def send_kill(self) -> None:
        """Have it killed, without waiting for it; idempotent."""
        if not self._closed:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def kill(self) -> None:
        """Kill and reap it; it is gone when this returns."""
        if self._closed:
            return
        self._reap()
        os.close(self._pidfd)

    def _reap(self) -> None:
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        os.close(self._stderr)
        self._closed = True


def _kill_unused(child: Future[ChildProcess]) -> None:
    if not child.cancelled() and child.exception() is None:
        child.result().kill()


_THREADS = "see whether a limit of processes (ulimit -u, or a container's) is reached"


class Spawner:
    """A thread that does nothing but spawn: what it spawns dies with it. A context manager.

    ``prepare`` is called in the thread before all else; children inherit what it does to the thread.
    Raises what that raises, and :class:`HostError` where no thread can be started.
    """

    def __init__(
        self, prepare: Callable[[], None] = lambda: None, limits: Mapping[int, int] | None = None
    ) -> None:
        _launcher()  # looked for now: the thread may not be allowed to
        self._limits = limits
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="smol-spawner")
        try:
            self._thread.submit(prepare).result()
        except BaseException as error:
            self.close()
            if isinstance(error, RuntimeError):
                raise HostError(f"no thread can be started: {error}", remedy=_THREADS) from error
            raise

    def spawn(self, argv: Sequence[str], fds: Sequence[int]) -> ChildProcess:
        """A child of the thread's. For any thread; raises as :class:`ChildProcess` does."""
        child = self._thread.submit(ChildProcess, argv, fds, self._limits)
        try:
            return child.result()
        except BaseException:  # Ctrl-C during the wait: the caller does not get the child
            child.add_done_callback(_kill_unused)
            raise

    def close(self) -> None:
        """End the thread, and with it all that it spawned; idempotent."""
        self._thread.shutdown()

    def __enter__(self) -> Spawner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


if sys.platform != "linux":  # pragma: no cover - the package needs Linux throughout
    raise ImportError("pytest-smol needs Linux")
