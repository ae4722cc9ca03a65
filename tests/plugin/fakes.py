"""A factory of machines that are none: processes that can be forked, or scripts that only talk.

:class:`FakeFactory` takes the place of :class:`pytest_smol.pool.factory.MachineFactory`,
and all of the host's side but QEMU and the file server is real: a
:class:`FakeMachine` is a :class:`pytest_smol.machine.machine.Machine` whose sockets
lead to a :class:`Process` or to a :class:`Script`.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock
from types import SimpleNamespace
from typing import Any, Protocol, cast

from pytest_smol.engines.qemu.accelerator import Accelerator
from pytest_smol.engines.qemu.command_line import PORTS, Hardware
from pytest_smol.engines.qemu.program import Emulator
from pytest_smol.guest_os.host_view import base_view
from pytest_smol.guest_os.interpreter import start_variables
from pytest_smol.host.run_directory import RunDirectory
from pytest_smol.machine.consoles import Consoles
from pytest_smol.machine.machine import Machine, OutputSink
from pytest_smol.pool.admission import Ledger
from pytest_smol.pool.factory import MachineFactory
from pytest_smol.pool.usage import Usage
from pytest_smol.protocol.wire import FROM_GUEST, Decoder, Message, encode
from pytest_smol.settings import Settings
from pytest_smol.snapshots.base_cache import Origin
from pytest_smol.snapshots.snapshot import Snapshot
from pytest_smol.virtiofs.filesystem.state import TreeState
from pytest_smol.virtiofs.filesystem.tree import Tree
from pytest_smol.virtiofs.view import View
from tests.plugin.guest_process import ROLES

CHECKOUT = Path(__file__).resolve().parents[2]

EMULATOR = Emulator("/fake/qemu-system-x86_64", (10, 0), "fake")
ACCELERATOR = Accelerator("tcg", "max", "fake")

#: The guest's ends of a machine's sockets, by name; who is given them closes them.
Ends = Mapping[str, socket.socket]


class Guest(Protocol):
    """What is at the other end of a fake machine's sockets."""

    def start(self, ends: Ends) -> Callable[[], None]:
        """Come to life; gives what ends that life at once."""


class Process:
    """A waiting guest process, as many guests as are forked from it."""

    def __init__(self, template: socket.socket) -> None:
        self._template = template
        self._lock = Lock()

    def fork(self, ends: Ends) -> int:
        """Fork the process; gives the pid of the new guest's supervisor."""
        with self._lock:
            socket.send_fds(self._template, [b"fork"], [ends[role].fileno() for role in ROLES])
            return int(self._template.recv(16))

    def start(self, ends: Ends) -> Callable[[], None]:
        pid = self.fork(ends)
        return lambda: os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        self._template.close()


class FirstProcess(Process):
    """The guest process that all others descend from: pytest is warm in it, no session has begun."""

    def __init__(self) -> None:
        template, its_template = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control, its_control = socket.socketpair()
        fds = [end.fileno() for end in (its_control, its_template)]
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("guest_process.py")), *map(str, fds)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=fds,
            cwd="/",
            env={**start_variables(), "PYTHONPATH": str(CHECKOUT)},
        )
        its_template.close()
        its_control.close()
        self._control = control
        self._wait_ready()
        super().__init__(template)

    def _wait_ready(self) -> None:
        decoder = Decoder(FROM_GUEST)
        types: list[str] = []
        while "ready" not in types:
            data = self._control.recv(1 << 16)
            assert data, "the first guest process died"
            types += [message["type"] for message in decoder.feed(data)]

    def close(self) -> None:
        super().close()
        self._control.close()
        self._process.kill()
        self._process.wait()


@dataclass(frozen=True)
class Script:
    """A guest that says what it says, whatever it is told, and then is silent or, ``gone``, no more.

    ``says`` holds messages and raw bytes for the control channel; a ``died``
    message goes where PID 1 sends it. ``console`` is shown first.
    """

    says: Iterable[Message | bytes]
    console: bytes = b""
    gone: bool = False

    def start(self, ends: Ends) -> Callable[[], None]:
        kept = [end.dup() for end in ends.values()]
        ends["console"].sendall(self.console)
        for each in self.says:
            died = isinstance(each, dict) and each["type"] == "died"
            data = encode(each) if isinstance(each, dict) else each
            ends["lifecycle" if died else "control"].sendall(data)

        def close() -> None:
            for end in kept:
                end.close()

        if self.gone:  # what it is sent is lost, as with a machine that dies meanwhile
            for end in kept:
                end.shutdown(socket.SHUT_WR)
        return close


class FakeMachine(Machine):
    """A machine without QEMU, memory and files; its talk is that of a real one."""

    def __init__(
        self, guest: Guest, snapshot: Snapshot, frozen: dict[Path, Process], on_output: OutputSink | None
    ) -> None:
        self._guest = guest
        self._frozen_guests = frozen
        self.sent: list[Message] = []
        self.received: list[Message] = []
        #: When it was first told to run tests or the end of the run, on time.monotonic()'s clock.
        self.first_used = math.inf
        nothing = cast(Any, None)
        tree = Tree(snapshot.view, snapshot.tree)
        super().__init__(snapshot.hardware, snapshot.ram, nothing, tree, on_output=on_output)

    def _start(self, stack: ExitStack, *_: object) -> None:
        names = ("console", *PORTS)
        pairs = {name: socket.socketpair() for name in names}
        template, its_template = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._template: Process | None = Process(template)
        stack.callback(self._close_template)
        self._sockets = {name: stack.enter_context(mine) for name, (mine, _) in pairs.items()}
        ends = {name: other for name, (_, other) in pairs.items()}
        self._kill = self._guest.start({**ends, "template": its_template})
        stack.callback(self._end_guest)
        stack.enter_context(ends.pop("console"))  # it is QEMU's, and stays open while that lives
        for end in (*ends.values(), its_template):
            end.close()
        self._pretend(stack)
        for sock in self._sockets.values():
            sock.setblocking(False)
        self._poll = self._make_poll()

    def _close_template(self) -> None:
        if self._template is not None:
            self._template.close()

    def _end_guest(self) -> None:
        if self._template is not None:  # else it was frozen, and goes on
            self._kill()

    def _pretend(self, stack: ExitStack) -> None:
        """Stand-ins for QEMU and the file server, both in good health and with nothing to say."""
        silent, other = map(stack.enter_context, socket.socketpair())
        stack.enter_context(other)
        fake: Any = self
        fake.process = SimpleNamespace(
            stopped=False,
            pid=0,
            returncode=None,
            stderr=lambda: "",
            wait=lambda timeout: None,
            kill=lambda: None,
            send_kill=lambda: None,
        )
        fake.mount = SimpleNamespace(failed_fd=silent.fileno(), failure=None, close=lambda: None)
        fake.qmp = SimpleNamespace(fileno=silent.fileno, receive=lambda: True, events=[])

    def freeze(self, state: Path) -> TreeState:
        """Keep the guest process as the one to fork from in the name of ``state``."""
        assert self._template is not None
        state.write_text("a process stands for it")
        self._frozen_guests[state] = self._template
        self._template = None
        return TreeState()

    def send(self, message: Message) -> None:
        self.sent.append(message)
        if message["type"] in ("run", "close"):
            self.first_used = min(self.first_used, time.monotonic())
        super().send(message)

    def receive(self, deadline: float) -> Message:
        message = super().receive(deadline)
        self.received.append(message)
        return message


@lru_cache(maxsize=1)
def _base_view() -> View:
    return base_view()


@dataclass
class Record:
    """What was asked of the factories of a test, and what came of it."""

    factories: int = 0
    closed: int = 0
    sessions: list[FakeMachine] = field(default_factory=list)
    made: list[tuple[FakeMachine, Snapshot]] = field(default_factory=list)
    node_ids: dict[int, str] = field(default_factory=dict)

    @property
    def forks(self) -> list[FakeMachine]:
        """The forks in the order in which they were used, then those that were not.

        Threads of the pool make forks ahead of need, and finish in any order.
        """
        return [fork for fork, _ in self._in_order_of_use()]

    @property
    def snapshots(self) -> list[Snapshot]:
        """The snapshots of :attr:`forks`."""
        return [snapshot for _, snapshot in self._in_order_of_use()]

    def _in_order_of_use(self) -> list[tuple[FakeMachine, Snapshot]]:
        return sorted(self.made, key=lambda pair: pair[0].first_used)

    @property
    def ran(self) -> list[list[str]]:
        """The node ids of the tests that each fork began, fork by fork."""
        return [
            [self.node_ids[said["index"]] for said in fork.received if said["type"] == "start"]
            for fork in self.forks
        ]

    @property
    def orders(self) -> list[Message]:
        """The ``session`` messages."""
        return [sent for machine in self.sessions for sent in machine.sent]

    def learn(self, machine: FakeMachine) -> None:
        """Note the node ids that a session's machine told."""
        rows = (row for said in machine.received if said["type"] == "nodes" for row in said["rows"])
        with suppress(KeyError, TypeError):  # of a guest that sends nonsense
            self.node_ids.update({row["item"]["number"]: row["nodeid"] for row in rows if "item" in row})


class FakeFactory(MachineFactory):
    """Makes fake machines.

    ``session`` is the guest for guest sessions, ``forks`` the guests for the
    first forks; later forks are of the session's guest.
    """

    def __init__(self, session: Guest, forks: Iterable[Guest], record: Record) -> None:
        self._session_guest = session
        self._fork_guests = list(forks)
        self._record = record
        record.factories += 1
        self.emulator, self.accelerator = EMULATOR, ACCELERATOR
        self._machines = set()
        self._frozen: dict[Path, Process] = {}
        with ExitStack() as stack:
            stack.callback(self._note_closed)
            self.directory = stack.enter_context(RunDirectory()).path
            self.ledger = Ledger(self.directory / "machines")
            stack.callback(self._end_frozen)
            stack.callback(self._close_all)
            self._stack = stack.pop_all()
        self.view = _base_view()
        self.consoles = Consoles(None)
        self.usage = Usage()

    def _note_closed(self) -> None:
        self._record.closed += 1

    def _end_frozen(self) -> None:
        for process in self._frozen.values():
            process.close()

    def base(self, memory: int, target: Path) -> tuple[Snapshot, Origin]:
        for name in ("ram", "state"):
            (target / name).write_text("a process stands for it")
        hardware = Hardware(self.emulator, self.accelerator, memory)
        return Snapshot(hardware, self.view, target / "ram", target / "state", TreeState()), Origin()

    def resume(self, snapshot: Snapshot, view: View, on_output: OutputSink | None = None) -> FakeMachine:
        machine = self._made(self._session_guest, snapshot, on_output)
        self._record.sessions.append(machine)
        return machine

    def fork(self, snapshot: Snapshot, on_output: OutputSink | None = None) -> FakeMachine:
        guest = self._fork_guests.pop(0) if self._fork_guests else self._frozen[snapshot.state]
        begin = time.monotonic()
        machine = self._made(guest, snapshot, on_output)
        self.usage.forked(machine, begin)
        self._record.made.append((machine, snapshot))
        return machine

    def _made(self, guest: Guest, snapshot: Snapshot, on_output: OutputSink | None) -> FakeMachine:
        machine = FakeMachine(guest, snapshot, self._frozen, on_output)
        self._machines.add(machine)
        return machine

    def retire(self, machine: Machine) -> None:
        self._record.learn(cast(FakeMachine, machine))
        super().retire(machine)


def factory_of(
    session: Guest, forks: Iterable[Guest], record: Record
) -> Callable[[Settings, Callable[[str], None], Path | None], FakeFactory]:
    """What to put in the place of MachineFactory."""
    return lambda settings, progress, parent: FakeFactory(session, forks, record)
