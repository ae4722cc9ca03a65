"""Runs the parts of all tests, as many at once as there are processors.

Each part is a process of its own with its output in a file, which is printed when the part has ended. The
status is 0 if all parts passed or were skipped, 1 if not, and 130 after SIGINT, SIGTERM or SIGHUP: then all
parts are interrupted as by Ctrl-C, and killed if they have not ended after a while or at a second signal.
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.ci.parts import ROOT, Part, queue
from tests.kvm.l1 import QUICK, SKIPPED

__all__ = ["Outcome", "main", "pytest_command"]

#: How long a part may take to end after it was interrupted, in seconds; a machine is ended within it.
PATIENCE = 60.0

#: How long the emulated host of the part of KVM may run, in seconds; generous, for a busy host.
KVM_LIMIT = 2400

#: The signals that ask for an end.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Command = Callable[[Part], Sequence[str]]


def pytest_command(part: Part) -> list[str]:
    """Parts that run at once must not write to one cache directory."""
    color = "yes" if sys.stdout.isatty() else "no"
    options = ["--durations=5", f"--color={color}", "-p", "no:cacheprovider"]
    if part.kvm:
        limit = f"--limit={KVM_LIMIT}"
        return [sys.executable, "-m", "tests.kvm.l1.run", "--or-skip", limit, *options, *QUICK]
    return [sys.executable, "-m", "pytest", *options, *part.paths]


#: What a status says. SKIPPED is no failure: the part's output says why nothing ran.
_VERDICTS = {0: "passed", SKIPPED: "skipped, its output says why"}


@dataclass(frozen=True)
class Outcome:
    """How a part ended: its exit status, or the negated number of the signal that killed it."""

    part: Part
    status: int
    seconds: float

    def __str__(self) -> str:
        verdict = _VERDICTS.get(self.status, f"failed (status {self.status})")
        return f"{self.seconds:4.0f} s  {self.part.name}: {verdict}"


@dataclass
class _Running:
    part: Part
    process: subprocess.Popen[bytes]
    output: Path
    began: float = field(default_factory=time.monotonic)


class Runner:
    """Runs parts, ``slots`` at once, in the directory ``root``. To be used as a context manager.

    While it is entered, SIGINT, SIGTERM and SIGHUP do nothing but end the wait for a part.
    """

    def __init__(self, command: Command, slots: int, root: Path = ROOT) -> None:
        self._command = command
        self._slots = slots
        self._root = root
        self._running: dict[int, _Running] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Runner:
        with self._stack as stack:
            self._logs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pytest-smol-tests-")))
            self._selector = stack.enter_context(selectors.DefaultSelector())
            self._selector.register(stack.enter_context(_signals()), selectors.EVENT_READ)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._stack:
            self._stop()

    def run(self, parts: Sequence[Part]) -> Iterator[Outcome]:
        """Start ``parts`` in their order; yields each when it has ended, after its output was printed.

        Raises KeyboardInterrupt after a signal.
        """
        waiting = list(parts)
        while waiting or self._running:
            while waiting and len(self._running) < self._slots:
                self._start(waiting.pop(0))
            yield from self._wait(None)

    def _start(self, part: Part) -> None:
        output = self._logs / part.name.replace("/", "-")
        with output.open("wb") as file:
            process = subprocess.Popen(
                self._command(part),
                cwd=self._root,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that it can be killed with the processes that it has started
            )
        pidfd = os.pidfd_open(process.pid)
        self._running[pidfd] = _Running(part, process, output)
        self._selector.register(pidfd, selectors.EVENT_READ)
        print(f"-- {part.name}: started", flush=True)

    def _wait(self, seconds: float | None) -> list[Outcome]:
        """Wait for a part to end, for at most ``seconds``. Raises KeyboardInterrupt after a signal."""
        ready = [key.fileobj for key, _ in self._selector.select(seconds)]
        for file in ready:
            if isinstance(file, socket.socket):
                file.recv(1)
                raise KeyboardInterrupt
        return [self._ended(file) for file in ready if isinstance(file, int)]

    def _ended(self, pidfd: int) -> Outcome:
        running = self._running.pop(pidfd)
        self._selector.unregister(pidfd)
        os.close(pidfd)
        outcome = Outcome(running.part, running.process.wait(), time.monotonic() - running.began)
        print(f"\n==== {outcome}", flush=True)
        with running.output.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.flush()
        return outcome

    def _stop(self) -> None:
        """End what still runs: first as by Ctrl-C, after PATIENCE or at another signal by SIGKILL."""
        for running in self._running.values():
            running.process.send_signal(signal.SIGINT)
        end = time.monotonic() + PATIENCE
        with suppress(KeyboardInterrupt):
            while self._running and (left := end - time.monotonic()) > 0:
                self._wait(left)
        for running in self._running.values():
            os.killpg(running.process.pid, signal.SIGKILL)
        for pidfd in list(self._running):
            self._ended(pidfd)


@contextmanager
def _signals() -> Iterator[socket.socket]:
    """A socket that can be read from after a signal that asks for an end; such signals do nothing else."""
    wakeup, written = socket.socketpair()
    written.setblocking(False)
    with wakeup, written:
        previous_fd = signal.set_wakeup_fd(written.fileno())
        handlers = {each: signal.signal(each, lambda number, frame: None) for each in ENDING}
        try:
            yield wakeup
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(previous_fd)


def main(
    parts: Sequence[Part] | None = None, command: Command = pytest_command, slots: int | None = None
) -> int:
    """Run ``parts``, by default all tests; prints what each took, and returns the exit status."""
    outcomes: list[Outcome] = []
    begin = time.monotonic()
    try:
        with Runner(command, slots or len(os.sched_getaffinity(0))) as runner:
            outcomes.extend(runner.run(queue() if parts is None else parts))
    except KeyboardInterrupt:
        print("interrupted: not all tests were run")
        return 130
    print(f"\nwhere the time went ({time.monotonic() - begin:.0f} s in all):")
    print(*outcomes, sep="\n")
    return int(any(outcome.status not in _VERDICTS for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
