"""One QEMU process: spawned with inherited sockets, told by QMP to restore, run and freeze a guest."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pytest_smol.engines.protocol import ExitEvidence, Hardware, Kernel
from pytest_smol.engines.qemu.command_line import CHARDEVS, QemuConfig, command_line
from pytest_smol.engines.qemu.disks import DiskFds
from pytest_smol.engines.qemu.exit_reasons import disk_error, exit_evidence
from pytest_smol.engines.qemu.qmp import QmpClient
from pytest_smol.errors import MachineDied, MachineTimeout, SmolError
from pytest_smol.host.process import ChildProcess
from pytest_smol.virtiofs.vhost_user.transport import VhostUserTransport

__all__ = ["QemuVm", "Spawn"]

_CAPABILITIES = [
    {"capability": "x-ignore-shared", "state": True},
    {"capability": "events", "state": True},
]

#: How long QEMU may take for one step, in seconds; generous, for a busy host.
_STEP_TIMEOUT = 60.0

#: How long to wait for QEMU to end after its QMP connection did, or to say why it paused a guest, in seconds.
_EXIT_TIMEOUT = 5.0

#: Starts QEMU, given its command line and the file descriptors to inherit.
Spawn = Callable[[Sequence[str], Sequence[int]], ChildProcess]


class QemuVm:
    """A QEMU process and the host's ends of its sockets; implements ``VirtualMachine``.

    ``ram`` is the memory file; ``private`` maps it copy-on-write. With ``kernel`` the
    guest boots at once; without, it waits for :meth:`start`. ``spawn`` starts QEMU.
    ``disks`` are open while QEMU is started, and then it has them.
    Raises :class:`~pytest_smol.errors.HostError` where QEMU cannot be started.
    """

    def __init__(
        self,
        config: QemuConfig,
        hardware: Hardware,
        ram: Path,
        *,
        private: bool = False,
        kernel: Kernel | None = None,
        spawn: Spawn = ChildProcess,
        disks: Sequence[DiskFds] = (),
    ) -> None:
        #: The run state of a guest that QEMU has paused by itself.
        self._paused: str | None = None
        #: How many of the QMP events :meth:`running` has seen.
        self._seen_events = 0
        with ExitStack() as stack:
            ours, theirs = {}, []
            with ExitStack() as child_ends:
                for name in CHARDEVS:
                    mine, other = socket.socketpair()
                    ours[name] = stack.enter_context(mine)
                    theirs.append(child_ends.enter_context(other).fileno())
                argv = command_line(
                    config, hardware, ram, theirs, private=private, kernel=kernel, disks=disks
                )
                self.process = spawn(argv, [*theirs, *(fd for disk in disks for fd in disk.fds)])
            stack.callback(self.process.kill)
            self.pid = self.process.pid
            self.transport = VhostUserTransport(ours.pop("fs"), self.pid)
            self.qmp = QmpClient(ours.pop("qmp"))
            self.ports = ours
            self.event_fds = (self.qmp.fileno(),)
            self._stack = stack.pop_all()

    @property
    def disk_error(self) -> str:
        """As :attr:`VirtualMachine.disk_error`."""
        self.qmp.receive()
        return disk_error(self.qmp.events)

    @property
    def stopped(self) -> bool:
        """As :attr:`VirtualMachine.stopped`."""
        return self.process.stopped

    def start(self, state: Path | None = None) -> None:
        """As :meth:`VirtualMachine.start`."""
        deadline = time.monotonic() + _STEP_TIMEOUT
        try:
            self._negotiate(deadline)
            if state is not None:
                self.qmp.execute("migrate-set-capabilities", deadline, capabilities=_CAPABILITIES)
                self.qmp.execute("migrate-incoming", deadline, channels=_file_channel(state))
                self.qmp.wait_migrated(deadline)
                self._seen_events = len(self.qmp.events)
                self.qmp.execute("cont", deadline)
                self._look_for_pause()  # an event that came with the answer makes no descriptor readable
        except SmolError as error:
            raise self._with_stderr(error) from error
        if self._paused is not None:
            evidence = self.exit_evidence()
            raise MachineDied(evidence.reason, evidence=evidence.stderr, remedy=evidence.remedy)

    def running(self) -> bool:
        """As :meth:`VirtualMachine.running`."""
        connected = self.qmp.receive()
        self._look_for_pause()
        return connected and self._paused is None

    def freeze(self, state: Path) -> None:
        """As :meth:`VirtualMachine.freeze`."""
        deadline = time.monotonic() + _STEP_TIMEOUT
        try:
            self._negotiate(deadline)
            self.qmp.execute("stop", deadline)
            self.qmp.execute("migrate-set-capabilities", deadline, capabilities=_CAPABILITIES)
            self.qmp.events.clear()
            self._seen_events = 0
            self.qmp.execute("migrate", deadline, channels=_file_channel(state))
            self.qmp.wait_migrated(deadline)
            self.qmp.execute("quit", deadline)
        except SmolError as error:
            raise self._with_stderr(error) from error
        if self.process.wait(_STEP_TIMEOUT) is None:
            raise MachineTimeout("QEMU did not quit after it was frozen")

    def wait_ended(self, timeout: float) -> None:
        """As :meth:`VirtualMachine.wait_ended`."""
        if self._paused is None:
            self.process.wait(timeout)

    def exit_evidence(self) -> ExitEvidence:
        """As :meth:`VirtualMachine.exit_evidence`."""
        return exit_evidence(self.qmp.events, self._paused, self.process.returncode, self.process.stderr())

    def kill(self) -> None:
        """As :meth:`VirtualMachine.kill`."""
        self.process.send_kill()

    def close(self) -> None:
        """As :meth:`VirtualMachine.close`."""
        self._stack.close()

    def _negotiate(self, deadline: float) -> None:
        """Leave QMP's negotiation mode, in which there are no events and no other commands."""
        if not self.qmp.commands:
            self.qmp.negotiate(deadline)

    def _look_for_pause(self) -> None:
        """Look at the events that have come: a STOP that no command asked for needs a reason."""
        while self._paused is None and self._seen_events < len(self.qmp.events):
            events = self.qmp.events[self._seen_events :]
            self._seen_events = len(self.qmp.events)
            if any(event.get("event") == "STOP" for event in events):
                self._ask_why_paused()

    def _ask_why_paused(self) -> None:
        """Note the guest's run state: nothing here stops a guest that is listened to, so QEMU did."""
        deadline = time.monotonic() + _EXIT_TIMEOUT
        try:
            self._negotiate(deadline)
            answer = self.qmp.execute("query-status", deadline)
        except MachineTimeout:
            self._paused = "it does not say why"
            return
        except SmolError:  # it ends, and its exit status says why
            return
        status = answer if isinstance(answer, dict) else {}
        if status.get("running") is not True:
            self._paused = str(status.get("status"))

    def _with_stderr(self, error: SmolError) -> SmolError:
        """``error``, with what QEMU wrote to standard error as evidence."""
        self.process.wait(_EXIT_TIMEOUT if isinstance(error, MachineDied) else 0)
        error.evidence = "\n".join(text for text in (error.evidence, self.process.stderr()) if text)
        return error


def _file_channel(path: Path) -> list[dict[str, Any]]:
    address = {"transport": "file", "filename": str(path), "offset": 0}
    return [{"channel-type": "main", "addr": address}]
