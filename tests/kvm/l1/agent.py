"""PID 1 of L1: prepares it as a host, then runs the commands that arrive on its control port, one at a time.

It imports little: L1 is slow. Messages are JSON, one a line:

- from the host ``{"argv", "cwd", "env", "files", "mark", "time_ns"}`` starts a command, and
  ``{"signal": NUMBER}`` sends a signal to its process group;
- to the host ``{"ready": FACTS}`` comes once, and ``{"status", "files", "machines"}`` when a command is done:
  its exit status, files by path in base64, and the number of virtual machines made. Before that the agent
  writes the bytes ``mark`` to both ports of output, as QEMU serves the ports in any order.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from tests.kvm.l1.uevents import VmCounter

#: Where Linux tells the names of virtio-serial ports; there is no udev here that makes links by these names.
PORTS = Path("/sys/class/virtio-ports")

#: The directory for temporary files: a tmpfs of its own, below /tmp as the checkout may be in /tmp as well.
TEMPORARY = "/tmp/l1"

#: The argument with which this keeps the processor busy.
AWAKE = "--awake"

#: File systems that a host has and the guest's init does not mount. Without ``favordynmods`` Linux 6.1
#: waits for an RCU grace period in each KVM_CREATE_VM, as it moves a thread between control groups.
MOUNTS = (
    ("tmpfs", TEMPORARY, "size=85%,mode=1777"),
    ("cgroup2", "/sys/fs/cgroup", "favordynmods"),
    ("debugfs", "/sys/kernel/debug", ""),
)


def mount_all() -> None:
    """Mount what a host has. A file system that this kernel does not have is left out."""
    for kind, place, options in MOUNTS:
        os.makedirs(place, exist_ok=True)
        command = ["mount", "-t", kind, *(["-o", options] if options else []), kind, place]
        subprocess.run(command, check=False, capture_output=True)


def keep_awake() -> int:
    """Start a process that runs whenever nothing else does, so that the processor is never idle; its pid.

    QEMU lets a clock that counts instructions go to the next timer where the processor is idle
    (``-icount sleep=off``), so timeouts would pass at once while this host waits for a file.
    """
    pid = os.fork()
    if pid == 0:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        while True:
            pass
    return pid


def facts() -> dict[str, str]:
    """The release of this kernel, and ``yes`` where the processor has SVM, else an empty text."""
    flags = Path("/proc/cpuinfo").read_text().partition("\nflags")[2].partition("\n")[0].split()
    return {"kernel": os.uname().release, "svm": "yes" if "svm" in flags else ""}


def open_port(name: str, flags: int) -> int:
    """Open the virtio-serial port ``smol.NAME``."""
    (port,) = (path for path in PORTS.iterdir() if (path / "name").read_text().strip() == f"smol.{name}")
    return os.open(f"/dev/{port.name}", flags)


class Agent:
    """The ports, and the command that runs."""

    def __init__(self) -> None:
        self.control = open_port("control", os.O_RDWR)
        self.output = [open_port(name, os.O_WRONLY) for name in ("stdout", "stderr")]
        self.counter = VmCounter()
        self.unread = bytearray()
        self.process: subprocess.Popen[bytes] | None = None
        #: The process that keeps the processor busy while a command runs; 0 for none.
        self.awake = 0

    def send(self, message: object) -> None:
        """Send one message."""
        write_all(self.control, json.dumps(message).encode("ascii") + b"\n")

    def receive(self) -> dict[str, object]:
        """Wait for the next message."""
        while b"\n" not in self.unread:
            data = os.read(self.control, 65536)
            if not data:
                time.sleep(0.1)  # the host has closed the port, and ends this machine
            self.unread += data
        line, _, self.unread = self.unread.partition(b"\n")
        found = json.loads(line)
        assert isinstance(found, dict)
        return found

    def start(self, job: dict[str, object]) -> None:
        """Start the command of ``job``, and a thread that waits for it."""
        time.clock_settime_ns(time.CLOCK_REALTIME, int(str(job["time_ns"])))
        self.awake = keep_awake() if AWAKE in sys.argv else 0
        try:
            self.process = subprocess.Popen(
                job["argv"],  # type: ignore[call-overload]
                cwd=job["cwd"],
                env=job["env"],
                stdin=subprocess.DEVNULL,
                stdout=self.output[0],
                stderr=self.output[1],
                start_new_session=True,
            )
        except OSError as error:
            write_all(self.output[1], f"{error}\n".encode())
            self.finish(job, 127)
            return
        threading.Thread(target=self.wait, args=(job, self.process.pid), daemon=True).start()

    def wait(self, job: dict[str, object], pid: int) -> None:
        """Reap every process that ends, until the command did; then kill what it left, and report."""
        while True:
            ended, status = os.waitpid(-1, 0)
            if ended == pid:
                break
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(status)
        self.finish(job, code if code >= 0 else 128 - code)

    def finish(self, job: dict[str, object], status: int) -> None:
        """Send the end of the output, the exit status and the files that were asked for."""
        self.process = None
        if self.awake:
            os.kill(self.awake, signal.SIGKILL)
        machines = self.counter.count()
        self.counter.close()
        self.counter = VmCounter()
        for fd in self.output:
            write_all(fd, str(job["mark"]).encode("ascii"))
        files = {}
        for path in job["files"]:  # type: ignore[attr-defined]
            if os.path.isfile(path):
                files[path] = base64.b64encode(Path(path).read_bytes()).decode("ascii")
        self.send({"status": status, "files": files, "machines": machines})

    def signal(self, number: int) -> None:
        """Send a signal to the command's process group; nothing happens where there is none."""
        process = self.process
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data`` to ``fd``."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def main() -> None:
    """Serve commands; does not return."""
    mount_all()
    agent = Agent()
    agent.send({"ready": facts()})
    while True:
        message = agent.receive()
        if "signal" in message:
            agent.signal(int(str(message["signal"])))
        else:
            agent.start(message)


if __name__ == "__main__":
    try:
        main()
    except BaseException as error:
        sys.stderr.write(f"the agent of L1 ended: {error!r}\n")
        raise
