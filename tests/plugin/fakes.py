"""A factory of machines that are none: processes that can be forked, or scripts that only talk.

:class:`FakeFactory` takes the place of :class:`pytest_smol.pool.factory.MachineFactory`, and
:class:`FakeEngine` that of an engine; the machines' talk and their file server are real.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, cast

from pytest_smol.engines.protocol import PORTS, Hardware, Kernel, VirtualMachine
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
from pytest_smol.virtiofs.server import Server
from pytest_smol.virtiofs.view import View
from tests.plugin.guest_process import ROLES
from tests.unit.fake_vm import FakeVm

CHECKOUT = Path(__file__).resolve().parents[2]

EMULATOR = Emulator("/fake/qemu-system-x86_64", (10, 0), "fake")

#: The guest's ends of a machine's sockets, by name; the caller of :meth:`Guest.start` closes them.
Ends = Mapping[str, socket.socket]


class Guest(Protocol):
    """The other end of a fake machine's sockets."""

    def start(self, ends: Ends) -> Callable[[], None]:
        """Start; returns a function that ends the guest at once."""


class Process:
    """A waiting guest process, which each start forks a guest of."""

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


class GuestVm(FakeVm):
    """A machine of the fake engine: the other ends of its sockets are those of ``guest``.

    To freeze it keeps the guest process in ``frozen``, by state file, as the one to fork from.
    """

    def __init__(self, guest: Guest, frozen: dict[Path, Process]) -> None:
        super().__init__()
        self._frozen_guests = frozen
        template, its_template = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._template: Process | None = Process(template)
        self.stack.callback(self._close_template)
        self._kill = guest.start({**self.guest_ports, "template": its_template})
        self.stack.callback(self._end_guest)
        its_template.close()
        for name in PORTS:  # the console is the engine's own, and stays open while the machine lives
            self.guest_ports[name].close()

    def _close_template(self) -> None:
        if self._template is not None:
            self._template.close()

    def _end_guest(self) -> None:
        if self._template is not None:  # else it was frozen, and goes on
            self._kill()

    def freeze(self, state: Path) -> None:
        assert self._template is not None
        state.write_text("a process stands for it")
        self._frozen_guests[state] = self._template
        self._template = None


class FakeEngine:
    """Implements ``Engine`` without QEMU.

    ``session`` is the guest of machines that are resumed, ``forks`` the guests of the
    first forks; later forks are of the guest that was frozen in their state file.
    """

    def __init__(self, session: Guest, forks: Iterable[Guest]) -> None:
        self._session_guest = session
        self._fork_guests = list(forks)
        self._frozen: dict[Path, Process] = {}

    def describe(self) -> str:
        return "tcg (fake), emulation is no security boundary, QEMU 10.0"

    def require(self, hardware: Hardware) -> None:
        pass

    def describe_confinement(self) -> str:
        return "not at all"

    def identity(self, hardware: Hardware) -> dict[str, Any]:
        return {"fake": hardware.memory}

    def default_cpus(self) -> int:
        return 1

    def boot(self, hardware: Hardware, kernel: Kernel, ram: Path) -> GuestVm:
        raise AssertionError("the fake factory has a base")

    def resume(self, hardware: Hardware, ram: Path, disks: Sequence[Path] = ()) -> GuestVm:
        return GuestVm(self._session_guest, self._frozen)

    def fork(self, hardware: Hardware, ram: Path, state: Path, disks: Sequence[Path | None] = ()) -> GuestVm:
        guest = self._fork_guests.pop(0) if self._fork_guests else self._frozen[state]
        return GuestVm(guest, self._frozen)

    def __enter__(self) -> FakeEngine:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._frozen.values():
            process.close()


class FakeMachine(Machine):
    """A machine that notes what it is sent and what is received from it."""

    def __init__(self, vm: VirtualMachine, server: Server, tree: Tree, on_output: OutputSink | None) -> None:
        super().__init__(vm, server, tree, on_output)
        self.sent: list[Message] = []
        self.received: list[Message] = []
        #: When it was first told to run tests or the end of the run, on time.monotonic()'s clock.
        self.first_used = math.inf

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
            [ids[said["index"]] for said in fork.received if said["type"] == "start"]
            for fork in self.forks
            for ids in [_node_ids(fork) or self.node_ids]  # a fork may have collected itself
        ]

    @property
    def orders(self) -> list[Message]:
        """The ``session`` messages."""
        return [sent for machine in self.sessions for sent in machine.sent]

    def learn(self, machine: FakeMachine) -> None:
        """Note the node ids that a session's machine told."""
        self.node_ids.update(_node_ids(machine))


def _node_ids(machine: FakeMachine) -> dict[int, str]:
    """The node ids of the tests that ``machine`` collected, by its number."""
    rows = (row for said in machine.received if said["type"] == "nodes" for row in said["rows"])
    try:
        return {row["item"]["number"]: row["nodeid"] for row in rows if "item" in row}
    except (KeyError, TypeError):  # of a guest that sends nonsense
        return {}


class FakeFactory(MachineFactory):
    """Makes fake machines with ``engine``, and notes them in ``record``. It needs no kernel and no cache."""

    def __init__(self, engine: FakeEngine, record: Record, hidden: set[str] | None) -> None:
        self._record = record
        record.factories += 1
        self.engine = engine
        self._machines = set()
        with ExitStack() as stack:
            stack.callback(self._note_closed)
            self.directory = stack.enter_context(RunDirectory()).path
            self._server = stack.enter_context(Server())
            self.ledger = Ledger(self.directory / "machines")
            stack.enter_context(engine)
            stack.callback(self._close_all)
            self._stack = stack.pop_all()
        self.view = _base_view()
        self.hidden = set() if hidden is None else hidden
        self.consoles = Consoles(None)
        self.usage = Usage()

    def _note_closed(self) -> None:
        self._record.closed += 1

    def base(self, hardware: Hardware, target: Path) -> tuple[Snapshot, Origin]:
        for name in ("ram", "state"):
            (target / name).write_text("a process stands for it")
        return Snapshot(hardware, self.view, target / "ram", target / "state", TreeState()), Origin()

    def _machine(self, vm: VirtualMachine, tree: Tree, on_output: OutputSink | None) -> FakeMachine:
        return FakeMachine(vm, self._server, tree, on_output)

    def resume(self, snapshot: Snapshot, view: View, on_output: OutputSink | None = None) -> Machine:
        machine = super().resume(snapshot, view, on_output)
        self._record.sessions.append(cast(FakeMachine, machine))
        return machine

    def fork(self, snapshot: Snapshot, on_output: OutputSink | None = None) -> Machine:
        machine = super().fork(snapshot, on_output)
        self._record.made.append((cast(FakeMachine, machine), snapshot))
        return machine

    def retire(self, machine: Machine) -> None:
        self._record.learn(cast(FakeMachine, machine))
        super().retire(machine)


def factory_of(
    session: Guest, forks: Iterable[Guest], record: Record
) -> Callable[[Settings, Callable[[str], None], Path | None, set[str] | None], FakeFactory]:
    """What to put in the place of MachineFactory."""
    return lambda settings, progress, parent=None, hidden=None: FakeFactory(
        FakeEngine(session, forks), record, hidden
    )
