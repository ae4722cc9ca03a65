"""A pytest session in a guest, from its start to the snapshot that all its tests are forked from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import pytest

from pytest_smol.engines.protocol import Hardware
from pytest_smol.errors import MachineError, ProtocolError
from pytest_smol.guest_os.host_view import project_view
from pytest_smol.machine.dispatcher import Phase, Rule, finish, last_words_as_evidence
from pytest_smol.machine.machine import Machine
from pytest_smol.machine.user_terminal import Terminal
from pytest_smol.pool.factory import MachineFactory, fresh_identity
from pytest_smol.protocol.wire import FROM_GUEST, Decoder, Message, WireError, encode
from pytest_smol.reports.budget import MessageBudget
from pytest_smol.reports.nodes import NodeTable
from pytest_smol.reports.screen import Screen
from pytest_smol.session.guests.collected import Collected, SessionEnded
from pytest_smol.session.guests.collection_deadline import CollectionDeadline
from pytest_smol.session.guests.module_collection import ModuleCollection
from pytest_smol.session.guests.request import SessionRequest
from pytest_smol.session.placement import MachineSpec
from pytest_smol.session.xdist.shared_sessions import SharedSession, SharedSessions
from pytest_smol.snapshots.base_cache import Origin
from pytest_smol.snapshots.disk_files import kept, make_files
from pytest_smol.snapshots.key import key_of
from pytest_smol.snapshots.snapshot import Snapshot, seal
from pytest_smol.virtiofs.view import View

__all__ = ["GuestSession", "collection_budget"]

#: The messages by which a guest shows that collection goes on.
PROGRESS = ("collecting", "nodes")

#: The most that is kept of what a guest collected, in bytes; a test takes about one or two kilobytes.
MAX_COLLECTED = 1 << 30


def collection_budget() -> MessageBudget:
    """What all sessions of one run may collect together."""
    return MessageBudget("collection", MAX_COLLECTED)


class GuestSession:
    """A guest with pytest configured and the tests collected; frozen when :meth:`start` is through.

    ``clean`` makes guest text safe to show. What the guest collects counts towards
    ``budget``. With ``shared`` the session is made once for all processes that have
    the same one.
    """

    snapshot: Snapshot
    origin: Origin

    def __init__(
        self,
        factory: MachineFactory,
        request: SessionRequest,
        spec: MachineSpec,
        clean: Callable[[str], str],
        budget: MessageBudget,
        shared: SharedSessions | None = None,
        terminal: Terminal | None = None,
    ) -> None:
        self._factory = factory
        self._request = request
        self._spec = spec
        self._shared = shared
        self._terminal = terminal
        self._budget = budget
        self._modules: ModuleCollection | None = None
        #: The messages of the guest, encoded, for the other processes of a distributed run.
        self._said: list[bytes] = []
        self.collected = Collected(NodeTable(clean))

    def start(
        self, timeout: float, screen: Screen | None = None, modules: ModuleCollection | None = None
    ) -> None:
        """Bring the guest from the base snapshot to the one that forks are made of.

        Collection may take as long as a :class:`CollectionDeadline` of ``timeout`` seconds
        says; what is written meanwhile is shown on ``screen``. With ``modules`` these collect
        what the session itself leaves out.
        Raises :class:`SessionEnded` when the guest's pytest ends, and
        :class:`MachineError` (with the console as evidence) when the machine does.
        """
        self._modules = modules
        if self._shared is not None:
            self._start_shared(self._shared, timeout, screen)
            return
        directory = self._factory.directory / f"session-{self._title.replace(' ', '-')}"
        directory.mkdir()
        self.snapshot = self._make(directory, timeout, screen)

    @cached_property
    def _hardware(self) -> Hardware:
        spec = self._spec
        return self._factory.hardware(spec.memory, spec.cpus, spec.disks, nested=spec.nested)

    @property
    def _title(self) -> str:
        """The memory in MiB, the user, and what of the spec is not the default."""
        spec = self._spec
        more = [f"{spec.cpus} cpus"] if spec.cpus else []
        more += ["disks", *map(str, spec.disks)] if spec.disks else []
        more += ["nested"] if spec.nested else []
        return " ".join([str(spec.memory), spec.user, *more])

    def _view(self) -> View:
        """What the guest sees; the boot files as well where it runs machines itself, as it has no network."""
        more = [self._factory.boot_files.initramfs.parent] if self._spec.nested else []
        return _view_of(self._request, self._factory.view, more)

    # --- one session for several processes ------------------------------------------------

    def _start_shared(self, shared: SharedSessions, timeout: float, screen: Screen | None) -> None:
        def build(directory: Path) -> SharedSession:
            try:
                snapshot = self._make(directory, timeout, screen)
            except MachineError as error:
                return SharedSession(b"".join(self._said), failure=error)
            except SessionEnded as ended:
                return SharedSession(b"".join(self._said), ended=(ended.status, ended.output))
            return SharedSession(b"".join(self._said), snapshot)

        view = self._view()
        session, made = shared.obtain(self._key(view), self._hardware, view, build)
        if not made:
            self.origin = Origin()
            self._replay(session.said)
        if session.failure is not None:
            raise session.failure
        if session.ended is not None:
            status, output = session.ended
            raise SessionEnded(status, self.collected, output)
        assert session.snapshot is not None
        self.snapshot = session.snapshot

    def _key(self, view: View) -> str:
        """The key of all that can make one guest session differ from another."""
        fields = self._factory.base_key_fields(self._hardware)
        return key_of({**fields, "shown": view.to_json(), "request": self._request.content(self._spec.user)})

    def _replay(self, said: bytes) -> None:
        """Take the messages that the guest sent to another process while it collected."""
        handlers = self.collected.handlers
        try:
            for message in Decoder(FROM_GUEST).feed(said):
                self._budget.take(message)
                handlers[message["type"]](message)
        except (KeyError, WireError) as error:
            raise ProtocolError(f"what the guest said cannot be read again: {error}") from error

    def _noting(self, handle: Callable[[Message], None]) -> Callable[[Message], None]:
        """``handle``, which keeps the message for other processes as well."""

        def noted(message: Message) -> None:
            try:
                said = encode(message)
            except WireError as error:
                raise ProtocolError(f"the guest said what cannot be kept: {error}") from error
            self._budget.add(len(said))
            self._said.append(said)
            handle(message)

        return handle if self._shared is None else noted

    # --- making the session ---------------------------------------------------------------

    def _make(self, directory: Path, timeout: float, screen: Screen | None) -> Snapshot:
        """Make the snapshot in ``directory``."""
        base, self.origin = self._factory.base(self._hardware, directory)
        disks = make_files(directory, base.hardware.disks)
        base = replace(base, disks=tuple(disks))
        view = self._view()
        outdated = base.tree.outdated(self._factory.view, view)
        machine = self._factory.resume(base, view, screen.output if screen is not None else None)
        try:
            with last_words_as_evidence(machine):
                self._factory.keep_console(machine, f"session {self._title}")
                machine.send(self._request.message(self._spec.user, fresh_identity(), drop_caches=outdated))
                deadline = CollectionDeadline(timeout)
                rules = self._rules(machine, screen, deadline)
                finish(machine, Phase("while it collected", rules, deadline, self._terminal, "collection"))
                base.state.unlink()
                tree = machine.freeze(base.state)
        finally:
            self._factory.retire(machine)
        snapshot = seal(Snapshot(base.hardware, view, base.ram, base.state, tree, kept(disks)))
        if self._modules is not None:
            self._collect_modules(self._modules, snapshot)
        return snapshot

    def _collect_modules(self, modules: ModuleCollection, snapshot: Snapshot) -> None:
        """Collect in forks of ``snapshot``. Raises :class:`SessionEnded` where pytest ended in one."""
        handlers = self.collected.handlers

        def take(message: Message) -> None:
            self._budget.take(message)
            self._noting(handlers[message["type"]])(message)

        ended = modules.collect(snapshot, take)
        if ended is not None:
            status, output = ended
            raise SessionEnded(status, self.collected, output)

    def _rules(
        self, machine: Machine, screen: Screen | None, deadline: CollectionDeadline
    ) -> Mapping[str, Rule]:
        """What the guest may say while it collects."""

        def take_header(message: Message) -> None:
            if screen is not None:  # what follows is held back until the header was shown
                screen.hold()
            self.collected.handlers["header"](message)

        def end(message: Message) -> None:
            machine.drain()
            raise SessionEnded(message["status"], self.collected, machine.output["stderr"].text(1000))

        def take_progress(message: Message) -> None:
            deadline.progress()
            self.collected.handlers[message["type"]](message)

        handlers = {**self.collected.handlers, "header": take_header}
        handlers |= dict.fromkeys(PROGRESS, take_progress)
        rules = {
            kind: Rule(self._noting(handle), self._budget, ends=kind == "collected")
            for kind, handle in handlers.items()
        }
        rules["screen"] = Rule(screen.report) if screen is not None else Rule()
        rules["exit"] = Rule(end)
        return rules

    # --- afterwards -----------------------------------------------------------------------

    def match(self, items: Sequence[pytest.Item]) -> list[int | None]:
        """The guest's number of each of ``items``, None where it has none.

        Tests are found by node id, and by their turn where an id repeats.
        """
        numbers: dict[str, list[int]] = defaultdict(list)
        for number, nodeid in enumerate(self.collected.nodes.item_ids()):
            numbers[nodeid].append(number)
        turns: dict[str, Iterator[int]] = {nodeid: iter(found) for nodeid, found in numbers.items()}
        return [next(turns.get(item.nodeid, iter(())), None) for item in items]


def _view_of(request: SessionRequest, base: View, more: Sequence[Path]) -> View:
    """What a guest with this ``request`` sees: ``base``, the project, and ``more``."""
    named = [request.cwd / arg.split("::")[0] for arg in request.args if not arg.startswith("-")]
    return project_view(
        base,
        rootdir=request.rootdir,
        cwd=request.cwd,
        sys_path=request.sys_path,
        extra=[path for path in (*named, *more) if path.exists()],
    )
