"""A pytest session in a guest, from its start to the snapshot that all its tests are forked from."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pytest_smol.errors import MachineError, ProtocolError
from pytest_smol.guest_os.host_view import project_view
from pytest_smol.machine.machine import Machine
from pytest_smol.machine.user_terminal import TALK, Terminal
from pytest_smol.pool.factory import MachineFactory, fresh_identity
from pytest_smol.protocol.wire import FROM_GUEST, Decoder, Message, WireError, encode
from pytest_smol.reports.budget import MessageBudget
from pytest_smol.reports.builder import ReportBuilder
from pytest_smol.reports.nodes import NodeTable
from pytest_smol.reports.screen import Screen
from pytest_smol.session.group_run import Stop
from pytest_smol.session.placement import MachineSpec
from pytest_smol.session.xdist.shared_sessions import SharedSession, SharedSessions
from pytest_smol.snapshots.base_cache import Origin
from pytest_smol.snapshots.key import key_of
from pytest_smol.snapshots.snapshot import Snapshot, seal
from pytest_smol.virtiofs.view import View

__all__ = ["Collected", "GuestSession", "Project", "SessionEnded"]

#: The least time that collection may take, in seconds, however short a test's own limit is.
MIN_COLLECTION_TIME = 600.0

#: The most that is kept of what a guest collected, in bytes; a test takes about one or two kilobytes.
MAX_COLLECTED = 1 << 30


@dataclass(frozen=True)
class Project:
    """What a guest needs to know of the host's run of pytest.

    ``options`` are those that the host's plugins drew at random, ``dist`` is the way in which
    pytest-xdist distributes its tests (``no``: it does not), ``files``
    what a guest is to send home beside reports, ``screen`` what its plugins write to,
    ``uncaptured`` that what tests print is shown as it comes, and ``plugins`` the modules
    of the host's plugins. ``output_limit`` is the most output of one test in bytes, and ``seed``
    what its random numbers come of, None for anything.
    """

    args: tuple[str, ...]
    argv: tuple[str, ...]
    rootdir: Path
    cwd: Path
    sys_path: tuple[str, ...]
    env: dict[str, str]
    options: dict[str, int | str] = field(default_factory=dict)
    dist: str = "no"
    files: Message = field(default_factory=dict)
    screen: Message = field(default_factory=dict)
    uncaptured: bool = False
    plugins: tuple[str, ...] = ()
    output_limit: int = 16 << 20
    seed: int | None = None

    def view(self, base: View) -> View:
        """What this project adds to what a guest sees."""
        named = [self.cwd / arg.split("::")[0] for arg in self.args if not arg.startswith("-")]
        return project_view(
            base,
            rootdir=self.rootdir,
            cwd=self.cwd,
            sys_path=self.sys_path,
            extra=[path for path in named if path.exists()],
        )

    def order(self, user: str) -> Message:
        """The ``session`` message for tests that run as ``user`` (``host`` or ``root``)."""
        root = user == "root" and os.getuid() != 0
        umask = os.umask(0)
        os.umask(umask)
        return {
            "type": "session",
            "args": list(self.args),
            "argv": list(self.argv),
            "options": self.options,
            "cwd": str(self.cwd),
            "env": self.env,
            "sys_path": list(self.sys_path),
            "uid": 0 if root else os.getuid(),
            "gid": 0 if root else os.getgid(),
            "groups": [0] if root else os.getgroups(),
            "umask": umask,
            "drop_caches": False,
            "screen": self.screen,
            "uncaptured": self.uncaptured,
            "plugins": list(self.plugins),
            "dist": self.dist,
            "files": self.files,
            "output_limit": self.output_limit,
            "seed": self.seed,
            "fresh": fresh_identity(),
        }


class SessionEnded(Exception):
    """The guest's pytest ended before it ran tests: a wrong option, a broken conftest.

    ``status`` is its exit status, ``lines`` the usage errors it raised while it
    collected, ``stop`` what else stopped it then, and ``output`` what it printed
    on standard error.
    """

    def __init__(self, status: int, collected: Collected, output: str) -> None:
        super().__init__(f"pytest in the guest ended with status {status}")
        self.status = status
        self.lines = collected.usage
        self.stop = collected.stop
        self.output = output


@dataclass
class Collected:
    """What a guest collected, as messages; :meth:`build` makes the host's nodes of it."""

    nodes: NodeTable
    order: list[int] = field(default_factory=list)
    deselected: list[int] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)
    asides: list[Message] = field(default_factory=list)
    header: list[str] = field(default_factory=list)
    closing: bool = False
    collecting: str = ""
    usage: list[str] = field(default_factory=list)
    stop: Stop | None = None

    def take(self, message: Message) -> bool:
        """Take one message in; True when it was the last."""
        kind = message["type"]
        if kind == "nodes":
            self.nodes.add(message["rows"])
        elif kind == "collecting":
            self.collecting = message["nodeid"]
        elif kind == "collect_report":
            self.reports.append(message["data"])
        elif kind in ("warning", "suite_property"):
            self.asides.append(message)
        elif kind == "header":
            self.header = [str(line) for line in message["lines"]]
        elif kind == "usage_error":
            self.usage = [str(line) for line in message["lines"]]
        elif kind == "stop":
            self.stop = Stop.of(message, self.nodes.clean)
        elif kind == "collected":
            self.order, self.deselected = message["items"], message["deselected"]
            self.lines = [str(line) for line in message["lines"]]
            self.closing = message["closing"]
        elif kind == "screen":
            return False  # it was shown when it came
        else:
            raise ProtocolError(f"the guest sent a {kind!r} message while it collected")
        return bool(kind == "collected")


def _show(message: Message, screen: Screen) -> None:
    """Show what a plugin writes; what follows the lines for the header is held back until it was shown."""
    if message["type"] == "screen":
        screen.report(message)
    elif message["type"] == "header":
        screen.hold()


class GuestSession:
    """A guest with pytest configured and the tests collected; frozen once :meth:`start` is through.

    With a ``share`` it is made once for all processes that have the same one.
    """

    snapshot: Snapshot
    origin: Origin

    def __init__(
        self,
        factory: MachineFactory,
        project: Project,
        spec: MachineSpec,
        reports: ReportBuilder,
        share: SharedSessions | None = None,
        terminal: Terminal | None = None,
    ) -> None:
        self._factory = factory
        self._project = project
        self._spec = spec
        self._share = share
        self._terminal = terminal
        self._said: list[bytes] = []
        self.collected = Collected(NodeTable(reports.clean))

    def start(self, timeout: float, screen: Screen | None = None) -> None:
        """Bring the guest from the base snapshot to the one that forks are made of.

        Raises :class:`SessionEnded` when the guest's pytest gives up, and
        :class:`MachineError` (with the console as evidence) when the machine does.
        """
        if self._share is not None:
            self._start_shared(self._share, timeout, screen)
            return
        directory = self._factory.directory / f"session-{self._spec.memory}-{self._spec.user}"
        directory.mkdir()
        self.snapshot = self._make(directory, timeout, screen)

    def _start_shared(self, share: SharedSessions, timeout: float, screen: Screen | None) -> None:
        def build(directory: Path) -> SharedSession:
            try:
                snapshot = self._make(directory, timeout, screen)
            except MachineError as error:
                return SharedSession(b"".join(self._said), failure=error)
            except SessionEnded as ended:
                return SharedSession(b"".join(self._said), ended=(ended.status, ended.output))
            return SharedSession(b"".join(self._said), snapshot)

        view = self._project.view(self._factory.view)
        hardware = self._factory.hardware(self._spec.memory)
        shared, made = share.obtain(self._key(view), hardware, view, build)
        if not made:
            self.origin = Origin()
            self._replay(shared.said)
        if shared.failure is not None:
            raise shared.failure
        if shared.ended is not None:
            status, output = shared.ended
            raise SessionEnded(status, self.collected, output)
        assert shared.snapshot is not None
        self.snapshot = shared.snapshot

    def _key(self, view: View) -> str:
        """The key of all that can make one guest session differ from another."""
        order = self._project.order(self._spec.user)
        del order["fresh"]
        return key_of({**self._factory.facts(self._spec.memory), "shown": view.to_json(), "order": order})

    def _replay(self, said: bytes) -> None:
        """Take what the guest ``said`` to another process while it collected."""
        try:
            for message in Decoder(FROM_GUEST).feed(said):
                self.collected.take(message)
        except WireError as error:
            raise ProtocolError(f"what the guest said cannot be read again: {error}") from error

    def _make(self, directory: Path, timeout: float, screen: Screen | None) -> Snapshot:
        """Make the snapshot in ``directory``."""
        base, self.origin = self._factory.base(self._spec.memory, directory)
        view = self._project.view(self._factory.view)
        order = self._project.order(self._spec.user)
        order["drop_caches"] = base.tree.outdated(self._factory.view, view)
        machine = self._factory.resume(base, view, screen.output if screen is not None else None)
        try:
            self._factory.keep_console(machine, f"session {self._spec.memory} {self._spec.user}")
            machine.send(order)
            self._collect(machine, time.monotonic() + max(timeout, MIN_COLLECTION_TIME), screen)
            base.state.unlink()
            tree = machine.freeze(base.state)
        except MachineError as error:
            machine.drain()
            error.evidence = "\n".join(filter(None, (error.evidence, machine.last_words())))
            raise
        finally:
            self._factory.retire(machine)
        return seal(Snapshot(base.hardware, view, base.ram, base.state, tree))

    def _collect(self, machine: Machine, deadline: float, screen: Screen | None) -> None:
        budget = MessageBudget("collection", MAX_COLLECTED)
        while True:
            message = machine.receive(deadline)
            if message["type"] in TALK and self._terminal is not None:
                deadline += self._terminal.serve(machine, message)
                continue
            if message["type"] == "exit":
                machine.drain()
                output = machine.output["stderr"].text(1000)
                raise SessionEnded(message["status"], self.collected, output)
            if screen is not None:
                _show(message, screen)
            budget.take(message)
            if self._share is not None:
                self._note(message)
            if self.collected.take(message):
                return

    def _note(self, message: Message) -> None:
        try:
            self._said.append(encode(message))
        except WireError as error:
            raise ProtocolError(f"the guest said what cannot be kept: {error}") from error

    def match(self, items: Sequence[pytest.Item]) -> list[int | None]:
        """The guest's number of each of ``items``, None where it has none.

        Tests are found by node id, and by their turn where an id repeats.
        """
        numbers: dict[str, list[int]] = defaultdict(list)
        for number, nodeid in enumerate(self.collected.nodes.item_ids()):
            numbers[nodeid].append(number)
        turns: dict[str, Iterator[int]] = {nodeid: iter(found) for nodeid, found in numbers.items()}
        return [next(turns.get(item.nodeid, iter(())), None) for item in items]
