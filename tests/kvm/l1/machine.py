"""L1 seen from the host: boot it, run commands in it, bring back what they wrote."""

from __future__ import annotations

import base64
import json
import os
import secrets
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from pytest_smol.engines.protocol import Hardware
from pytest_smol.engines.qemu import program
from pytest_smol.engines.qemu.accelerator import Accelerator
from pytest_smol.engines.qemu.command_line import QemuConfig
from pytest_smol.engines.qemu.vm import QemuVm
from pytest_smol.errors import AcceleratorUnusable, BootFailed, MachineDied, MachineTimeout
from pytest_smol.host.process import ChildProcess
from pytest_smol.host.run_directory import RunDirectory, sweep
from pytest_smol.virtiofs.filesystem.tree import Tree
from pytest_smol.virtiofs.server import Server
from pytest_smol.virtiofs.view import View
from tests.kvm.l1 import agent
from tests.kvm.l1.boot import kernel_for
from tests.kvm.l1.files import ROOT

__all__ = ["L1", "Done", "Job", "Output"]

#: QEMU's options for the clocks of L1: an instruction is a nanosecond, so no timeout passes early on a busy
#: host. While the processor is idle they go on with this host's; where L1 is counted they do not, so that
#: times are the same in each run.
CLOCKS = {False: ("-icount", "shift=0,sleep=on"), True: ("-icount", "shift=0,sleep=off")}

#: The module that L1 starts as PID 1.
AGENT = "tests.kvm.l1.agent"

#: How long L1 may take to boot, in seconds; it takes 6 on a quiet host.
BOOT_LIMIT = 300.0

#: How much of the console is kept, in bytes.
CONSOLE_KEPT = 20_000

Sink = Callable[[str, bytes], None]


@dataclass(frozen=True)
class Job:
    """A command for L1. ``files`` are paths there whose content is wanted when it is over."""

    argv: Sequence[str]
    cwd: str
    env: Mapping[str, str]
    files: Sequence[str] = ()


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit status as a shell gives it, the files that it left, and how many
    virtual machines KVM made meanwhile."""

    status: int
    files: Mapping[str, bytes] = field(default_factory=dict)
    machines: int = 0


class Output:
    """One stream of a command: passes on what comes before ``mark``, which ends it."""

    def __init__(self, name: str, mark: bytes, sink: Sink) -> None:
        self._name, self._mark, self._sink = name, mark, sink
        self._held = b""
        self.ended = False

    def take(self, data: bytes) -> None:
        """Take what has come. What may be the beginning of the mark is held back."""
        self._held += data
        before, found, _ = self._held.partition(self._mark)
        if found:
            self.ended, self._held = True, b""
        else:
            kept = next(n for n in range(len(self._mark) - 1, -1, -1) if before.endswith(self._mark[:n]))
            before, self._held = before[: len(before) - kept], before[len(before) - kept :]
        if before:
            self._sink(self._name, before)


def check_emulation(qemu: str) -> None:
    """Whether the program ``qemu`` can emulate a processor. Raises AcceleratorUnusable where it cannot."""
    done = subprocess.run([qemu, "-accel", "help"], capture_output=True, text=True, check=False, timeout=60)
    if "tcg" not in done.stdout.split():
        raise AcceleratorUnusable(
            f"{qemu} is built without TCG, so it emulates no processor", evidence=done.stdout + done.stderr
        )


class L1:
    """An emulated machine whose Linux has loaded ``kvm_amd``. A context manager: leaving it kills it.

    It has ``memory`` MiB and the root ``view``. Where it is ``counted``, its clocks count instructions only.
    Raises :class:`~pytest_smol.errors.HostError` where this host has not what it is made of, and another
    :class:`~pytest_smol.errors.SmolError` where it does not boot.
    """

    def __init__(self, view: View, memory: int, *, counted: bool = False) -> None:
        self._counted = counted
        self._console = b""
        self._unread = b""
        hardware = Hardware(memory, nested=True)
        emulator = program.find("qemu-system-x86_64")
        check_emulation(emulator.path)
        config = QemuConfig(emulator, Accelerator("tcg", "max", ""))
        sweep()
        with ExitStack() as stack:
            directory = stack.enter_context(RunDirectory()).path
            ram = directory / "ram"
            with ram.open("wb") as file:
                file.truncate(memory << 20)
            server = stack.enter_context(Server())
            kernel = kernel_for(directory, self._program())
            self.vm = QemuVm(config, hardware, ram, kernel=kernel, spawn=self._spawn)
            stack.callback(self.vm.close)
            self._backend = server.attach(self.vm.transport, Tree(view))
            stack.callback(self._backend.close)
            self._selector = stack.enter_context(selectors.DefaultSelector())
            for name in ("console", "control", "stdout", "stderr"):
                self._selector.register(self.vm.ports[name], selectors.EVENT_READ, name)
            begin = time.monotonic()
            self.vm.start()
            self.facts = self._boot()
            self.boot_time = time.monotonic() - begin
            self._stack = stack.pop_all()

    def _program(self) -> list[str]:
        """What L1 starts as PID 1."""
        path = os.environ.get("PATH", os.defpath)
        variables = [f"PATH={path}", f"PYTHONPATH={ROOT}"]
        more = [agent.AWAKE] if self._counted else []
        return ["/usr/bin/env", "-i", *variables, sys.executable, "-m", AGENT, *more]

    def _spawn(self, argv: Sequence[str], fds: Sequence[int]) -> ChildProcess:
        return ChildProcess([*argv, *CLOCKS[self._counted]], fds)

    def _boot(self) -> Mapping[str, str]:
        deadline = time.monotonic() + BOOT_LIMIT
        while True:
            for message in self._attend(deadline, {}):
                if "ready" in message:
                    facts: Mapping[str, str] = message["ready"]
                    if not facts["svm"]:
                        raise AcceleratorUnusable("the processor that QEMU emulates here has no SVM")
                    return facts
            if time.monotonic() >= deadline:
                raise BootFailed(
                    f"L1 was not ready after {BOOT_LIMIT:g} s",
                    evidence=self.console(),
                    remedy="see what its console says; on a busy host run it again",
                )

    def console(self) -> str:
        """The end of what L1's console has shown."""
        return self._console.decode("utf-8", "replace")

    def run(self, job: Job, sink: Sink, limit: float = float("inf")) -> Done:
        """Run a command to its end. ``sink`` is given the name of a stream and what was written to it.

        Raises :class:`~pytest_smol.errors.MachineTimeout` where it takes more than ``limit`` seconds.
        The first Ctrl-C is passed on to the command, and a second one raises KeyboardInterrupt. Raises
        :class:`~pytest_smol.errors.MachineDied` where L1 ends before the command does.
        """
        mark = f"\0{secrets.token_hex(16)}\0"
        outputs = {name: Output(name, mark.encode("ascii"), sink) for name in ("stdout", "stderr")}
        self._send({**vars(job), "env": dict(job.env), "mark": mark, "time_ns": time.time_ns()})
        done: Done | None = None
        interrupted = False
        end = time.monotonic() + limit
        while done is None or not all(output.ended for output in outputs.values()):
            try:
                if time.monotonic() >= end:
                    raise MachineTimeout(f"the command took more than {limit:g} s", evidence=self.console())
                for message in self._attend(min(end, time.monotonic() + 60), outputs):
                    files = {path: base64.b64decode(text) for path, text in message["files"].items()}
                    done = Done(message["status"], files, message["machines"])
            except KeyboardInterrupt:
                if interrupted:
                    raise
                interrupted = True
                self._send({"signal": 2})
        return done

    def _send(self, message: Mapping[str, object]) -> None:
        self.vm.ports["control"].sendall(json.dumps(message).encode("ascii") + b"\n")

    def _attend(self, deadline: float, outputs: Mapping[str, Output]) -> list[dict[str, Any]]:
        """Take what has come by ``deadline`` at the latest; gives the messages among it."""
        for key, _ in self._selector.select(max(0.0, deadline - time.monotonic())):
            data = self.vm.ports[key.data].recv(65536)
            if not data:
                self._died()
            if key.data == "console":
                self._console = (self._console + data)[-CONSOLE_KEPT:]
            elif key.data == "control":
                self._unread += data
            elif key.data in outputs:
                outputs[key.data].take(data)
        *lines, self._unread = self._unread.split(b"\n")
        return [json.loads(line) for line in lines]

    def _died(self) -> None:
        self.vm.wait_ended(5)
        self.vm.running()
        evidence = self.vm.exit_evidence()
        raise MachineDied(f"L1 has ended: {evidence.reason}", evidence=f"{evidence.stderr}\n{self.console()}")

    def __enter__(self) -> L1:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
