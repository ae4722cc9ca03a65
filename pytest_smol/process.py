"""QEMU as a child process: spawned with inherited sockets, dies with us, reaped without polling.

It is reaped only by :meth:`ChildProcess.kill`: until then its number is nobody
else's, so the file server may still write to the memory of the process by that number.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache

from pytest_smol.errors import HostError

__all__ = ["ChildProcess"]


@lru_cache(maxsize=1)
def _launcher() -> tuple[str, ...]:
    """A prefix that makes a program die with the thread that spawned it, where the host has one.

    setpriv(1) sets PR_SET_PDEATHSIG between fork and exec, which Python cannot
    do safely in a process that has threads.
    """
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "KILL", "--") if setpriv else ()


class ChildProcess:
    """One program with the descriptors ``fds``, in a session of its own (Ctrl-C is not for it).

    Raises :class:`HostError` when it cannot be started.
    """

    def __init__(self, argv: Sequence[str], fds: Sequence[int]) -> None:
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
                remedy="see that it is there and may be executed, or name another with smol_qemu",
            ) from error
        self.pid = self._process.pid
        self._pidfd = os.pidfd_open(self.pid)
        self._closed = False

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
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        os.close(self._pidfd)
        os.close(self._stderr)
        self._closed = True


if sys.platform != "linux":  # pragma: no cover - the package needs Linux throughout
    raise ImportError("pytest-smol needs Linux")
