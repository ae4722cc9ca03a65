"""A guest without a machine: the real supervisor and runner in processes of this host.

Where a machine would be frozen, the runner waits for a message; here it can
then be forked as often as asked, which stands for restoring a snapshot. What
would change the host (its clock, its name, its user) is left out, and so are
writes that a machine would keep to itself: pytest's cache.

Started with the numbers of two inherited descriptors: the control channel,
and the socket over which forks are asked for.
"""

from __future__ import annotations

import ctypes
import os
import random
import select
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

from _pytest.cacheprovider import Cache

from pytest_smol.guest import runner, storage, supervisor
from pytest_smol.guest.artifacts.written_files import Layer
from pytest_smol.guest.port import Port
from pytest_smol.guest.session import plugin
from pytest_smol.guest.terminal.pump import start_pump

#: linux/prctl.h
PR_SET_PDEATHSIG = 1

#: The descriptors that a fork is given, in this order.
ROLES = ("control", "lifecycle", "stdout", "stderr", "terminal", "template")

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class ForkingPort(Port):
    """The runner's port; while the runner waits for a message, its process can be forked."""

    def __init__(self, control: int, template: int, pumps: socket.socket) -> None:
        super().__init__(control)
        self._template = socket.socket(fileno=template)
        self._pumps = pumps

    def send(self, kind: str, /, **fields: Any) -> None:
        try:
            super().send(kind, **fields)
        except BrokenPipeError:  # the host has let go, and the signal that ends this process is on its way
            os._exit(0)
        while kind == "done":  # the host takes the machine away now, whatever pytest had still to do
            signal.pause()

    def receive(self) -> dict[str, Any]:
        while not self._buffer and not self._spoken_to():
            self._fork()
        return super().receive()

    def _spoken_to(self) -> bool:
        """Wait for a message or for an order to fork; False for the latter.

        The host closes the control channel of a frozen guest, which is no message.
        """
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.register(self._template, select.POLLIN)
        events = dict(poll.poll())
        return self._template.fileno() not in events and not events[self._fd] & select.POLLHUP

    def _fork(self) -> None:
        """Make one fork as ordered; returns in both. Ends this process when the host is done with it."""
        data, fds, _, _ = socket.recv_fds(self._template, 16, len(ROLES))
        if not data:
            os._exit(0)
        child = os.fork()
        if child == 0:
            self._become(dict(zip(ROLES, fds, strict=True)))
        else:
            self._template.send(str(child).encode())
            _reap()
        for fd in fds:
            os.close(fd)

    def _become(self, fds: dict[str, int]) -> None:
        """Split this process into a supervisor, which stays here, and a runner, which returns."""
        die_with_parent()
        children, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        asked, asking = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        runner_pid = os.fork()
        if runner_pid:
            services = {asked.fileno(): partial(start_pump, asked, fds["terminal"])}
            _supervise(runner_pid, fds["lifecycle"], children, services)
        os.dup2(asking.fileno(), self._pumps.fileno(), inheritable=False)
        asked.close()
        asking.close()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        die_with_parent()
        os.setsid()
        os.close(children)
        os.close(wakeup)
        for number, role in ((1, "stdout"), (2, "stderr"), (self._fd, "control")):
            _replace(number, fds[role])
        os.dup2(fds["template"], self._template.fileno(), inheritable=False)


def _supervise(
    runner_pid: int, lifecycle: int, children: int, services: Mapping[int, Callable[[], None]]
) -> NoReturn:
    try:
        supervisor.watch(runner_pid, lifecycle, children, services)
    except BrokenPipeError:  # the runner ended after the host had let go of both
        os._exit(0)
    os._exit(1)


def _reap() -> None:
    """Take leave of the supervisors that the host has killed."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        return


def _replace(number: int, new: int) -> None:
    """Put ``new`` in the place of ``number`` and of all its duplicates, such as pytest's capture keeps."""
    old = os.readlink(f"/proc/self/fd/{number}")
    for entry in os.listdir("/proc/self/fd"):
        path = Path("/proc/self/fd", entry)
        if path.is_symlink() and os.readlink(path) == old:
            os.dup2(new, int(entry), inheritable=int(entry) < 3)


def _leave_the_host_alone() -> None:
    def distinct(fresh: dict[str, Any]) -> None:
        random.seed()

    names: dict[str, tuple[tuple[ModuleType, ...], Any]] = {
        "become_distinct": ((runner, plugin), distinct),
        "drop_caches": ((runner,), lambda: None),
        "set_user": ((runner,), lambda uid, gid, groups: None),
        "as_root": ((plugin,), nullcontext),
        "take_on": ((runner,), lambda state: None),
        "set_size": ((storage,), lambda size: None),
    }
    for name, (modules, harmless) in names.items():
        for module in modules:
            assert hasattr(module, name)
            setattr(module, name, harmless)
    # There is no overlay here: files to send are looked for in the project itself.
    vars(runner)["Layer"] = SimpleNamespace(of=lambda root: Layer(os.open(root, os.O_RDONLY), root))
    Cache.set = lambda self, key, value: None  # type: ignore[method-assign]


def main(control: int, template: int) -> NoReturn:
    die_with_parent()
    _leave_the_host_alone()
    pumps, _ = socket.socketpair()  # each fork has another that leads to its supervisor
    port = ForkingPort(control, template, pumps)
    vars(runner)["Port"] = lambda fd: port
    runner.main(control, pumps)
    sys.exit("the runner came to its end")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
