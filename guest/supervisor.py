"""PID 1 of the guest: starts the runner, reaps what is orphaned, reports how the runner died.

It does nothing else, and holds nothing that a test could need: whatever the
test process does to itself or to every other process (``kill -9 -1``), the
kernel protects PID 1, so that the host always hears of it.
"""

from __future__ import annotations

import os
import signal
import sys

from pytest_smol.wire import encode

_PORTS = "/sys/class/virtio-ports"


def open_port(name: str) -> int:
    """The file descriptor of the virtio-serial port ``smol.<name>``. Raises LookupError."""
    for device in os.listdir(_PORTS):
        with open(f"{_PORTS}/{device}/name", encoding="ascii") as file:
            if file.read().strip() == f"smol.{name}":
                return os.open(f"/dev/{device}", os.O_RDWR | os.O_CLOEXEC)
    raise LookupError(f"the machine has no virtio-serial port smol.{name}")


def start_runner(control: int, stdio: int) -> int:
    """Fork the process that will run pytest; give its pid."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    null = os.open("/dev/null", os.O_RDONLY)
    for source, target in ((null, 0), (stdio, 1), (stdio, 2)):
        os.dup2(source, target)
    from pytest_smol.guest import runner

    runner.main(control)
    os._exit(0)


def reap(runner: int, lifecycle: int) -> None:
    """Wait for children for ever; tell the host once when the runner is gone."""
    while True:
        try:
            pid, status = os.waitpid(-1, 0)
        except ChildProcessError:
            signal.pause()
            continue
        if pid == runner:
            os.write(lifecycle, encode(death(status)))


def death(status: int) -> dict[str, object]:
    """The ``died`` message for a wait status."""
    if os.WIFSIGNALED(status):
        return {"type": "died", "status": None, "signal": os.WTERMSIG(status)}
    return {"type": "died", "status": os.WEXITSTATUS(status), "signal": None}


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # PID 1 ignores what it has no handler for
    sys.stdout.flush()
    lifecycle = open_port("lifecycle")
    reap(start_runner(open_port("control"), open_port("stdio")), lifecycle)


if __name__ == "__main__":
    main()
