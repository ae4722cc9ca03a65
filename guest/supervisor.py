"""PID 1 of the guest: starts the runner, reaps orphaned processes, reports how the runner ended.

Before that it sets up what tests may expect of a Linux system (guest/surroundings.py). The only
other thing that it does is to start the process that serves a terminal (guest/terminal/pump.py).
Whatever a test does to its own process or to all others
(``kill -9 -1``), the kernel protects PID 1 from signals, so the host is always told.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from pytest_smol.guest.surroundings import set_up
from pytest_smol.guest.terminal.pump import start_pump
from pytest_smol.protocol.wire import encode

_PORTS = "/sys/class/virtio-ports"


def open_port(name: str) -> int:
    """The file descriptor of the virtio-serial port ``smol.<name>``. Raises LookupError."""
    for device in os.listdir(_PORTS):
        with open(f"{_PORTS}/{device}/name", encoding="ascii") as file:
            if file.read().strip() == f"smol.{name}":
                return os.open(f"/dev/{device}", os.O_RDWR | os.O_CLOEXEC)
    raise LookupError(f"the machine has no virtio-serial port smol.{name}")


def start_runner(control: int, stdout: int, stderr: int, pumps: socket.socket) -> int:
    """Fork the process that runs pytest, with these fds as its port and output; returns its pid.

    Over the socket ``pumps`` it asks for pumps of a terminal.
    """
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    null = os.open("/dev/null", os.O_RDONLY)
    for source, target in ((null, 0), (stdout, 1), (stderr, 2)):
        os.dup2(source, target)
    from pytest_smol.guest import runner

    runner.main(control, pumps)
    os._exit(0)


def watch(
    runner: int,
    lifecycle: int,
    children: int,
    services: Mapping[int, Callable[[], None]] = MappingProxyType({}),
) -> None:
    """Poll for ever: reap children, and abort the process ``runner`` where the host asks for it.

    The fd ``children`` becomes readable when a child has ended. Any byte on the fd
    ``lifecycle`` is a request to send SIGABRT to the runner, whose faulthandler then
    writes a traceback of where it hangs. ``services`` maps further fds to what is
    called when they are readable.
    """
    poll = select.poll()
    poll.register(children, select.POLLIN)
    poll.register(lifecycle, select.POLLIN)
    for fd in services:
        poll.register(fd, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if lifecycle in ready and os.read(lifecycle, 64):
            os.kill(runner, signal.SIGABRT)
        if children in ready:
            os.read(children, 4096)
            reap(runner, lifecycle)
        for fd in ready & services.keys():
            services[fd]()


def reap(runner: int, lifecycle: int) -> None:
    """Reap all children that have ended; send ``died`` if the runner is one of them."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid == runner:
            os.write(lifecycle, encode(death(status)))


def death(status: int) -> dict[str, object]:
    """The ``died`` message for ``status``, a wait status as of waitpid(2)."""
    if os.WIFSIGNALED(status):
        return {"type": "died", "status": None, "signal": os.WTERMSIG(status)}
    return {"type": "died", "status": os.WEXITSTATUS(status), "signal": None}


def main() -> None:
    """Be PID 1: open the ports, start the runner, and watch it. Raises LookupError for a missing port."""
    set_up()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the kernel discards it then: kill(2)
    children, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakeup)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    control, lifecycle, stdout, stderr, terminal = map(
        open_port, ("control", "lifecycle", "stdout", "stderr", "terminal")
    )
    asked, asking = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    services = {asked.fileno(): partial(start_pump, asked, terminal)}
    watch(start_runner(control, stdout, stderr, asking), lifecycle, children, services)


if __name__ == "__main__":
    main()
