"""PID 1 of the guest: starts the runner, reaps what is orphaned, reports how the runner died.

It does nothing else but start what serves a terminal (guest/terminal/pump.py), and
holds nothing that a test could need: whatever the test process does to itself
or to every other process (``kill -9 -1``), the kernel protects PID 1, so that
the host always hears of it.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

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
    """Fork the process that will run pytest; give its pid. It asks for pumps over the socket ``pumps``."""
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
    """Serve for ever: reap children, and do the one thing that the host may ask for.

    ``children`` becomes readable when a child has ended. Any byte on
    ``lifecycle`` asks for the runner to be aborted, which makes its
    faulthandler say where it hangs. ``services`` says what else to do when a
    file descriptor is readable.
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
    """Reap all children that have ended; tell the host if the runner is one of them."""
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
    """The ``died`` message for a wait status."""
    if os.WIFSIGNALED(status):
        return {"type": "died", "status": None, "signal": os.WTERMSIG(status)}
    return {"type": "died", "status": os.WEXITSTATUS(status), "signal": None}


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # PID 1 ignores what it has no handler for
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
