"""Groups, snapshots and machines joined for one run of pytest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import NoReturn

import pytest

from pytest_smol.artifacts.collector import ArtifactCollector
from pytest_smol.errors import MachineError, ProtocolError, SmolError, SnapshotError
from pytest_smol.host.resources import require_part
from pytest_smol.machine.user_terminal import Terminal
from pytest_smol.marker import Mark, marker_arguments, marks_of, place
from pytest_smol.pool.factory import MachineFactory
from pytest_smol.pool.pool import Pool, forks_ahead
from pytest_smol.protocol.wire import Message
from pytest_smol.reports.builder import ReportBuilder
from pytest_smol.reports.nodes import GuestCollector, GuestItem, stand_in
from pytest_smol.reports.screen import Screen
from pytest_smol.session.group_run import GroupRun, Stop
from pytest_smol.session.guest_session import Collected, GuestSession, Project, SessionEnded
from pytest_smol.session.placement import MachineSpec, Placement, Step, placement, spec_of, steps
from pytest_smol.session.relay import Relay
from pytest_smol.session.run_end import Closing, plugin_modules
from pytest_smol.session.xdist.shared_sessions import Part
from pytest_smol.settings import Settings

__all__ = ["SmolSession", "VmTest"]


class VmTest:
    """A test that runs in a VM: where it belongs and how long it may take, in seconds."""

    def __init__(self, item: pytest.Item, settings: Settings, least: str = "test") -> None:
        marks = _marks(item)
        arguments = marker_arguments(item.nodeid, marks)
        boundaries = _boundaries(item)
        if marks:
            boundaries[marks[0].place] = marks[0].nodeid
        self.item = item
        self.placement = placement(boundaries, marks[0].place if marks else None, arguments, settings, least)
        self.timeout = arguments.timeout or settings.timeout


def _marks(item: pytest.Item) -> Sequence[Mark]:
    return item.marks if isinstance(item, GuestItem) else marks_of(item)


def _boundaries(item: pytest.Item) -> dict[str, str]:
    """The node id of the test's boundary in each scope. A function outside classes is its own class."""
    places = (
        (node, node.place if isinstance(node, GuestCollector) else place(node)) for node in item.listchain()
    )
    classes = [node.nodeid for node, scope in places if scope == "class"]
    return {
        "test": item.nodeid,
        "class": classes[-1] if classes else item.nodeid,
        "module": item.nodeid.split("::")[0],
        "session": "",
    }


class SmolSession:
    """One run: guest sessions by spec, and the groups that run in their forks.

    Close it to leave nothing behind. Raises :class:`HostError` where the host
    cannot run machines.
    """

    def __init__(
        self,
        config: pytest.Config,
        settings: Settings,
        project: Project,
        progress: Callable[[str], None],
        part: Part | None = None,
    ) -> None:
        self._config = config
        self._settings = settings
        self._part = part or Part()
        self._reports = ReportBuilder(config, self._part.colour)
        self.artifacts = ArtifactCollector(config, settings, project.rootdir, self._reports.clean)
        self.screen = Screen(config, self._reports.clean, settings.output_limit)
        told = replace(
            project,
            files=self.artifacts.order(),
            screen=self.screen.facts(),
            uncaptured=self.screen.uncaptured,
            plugins=plugin_modules(config),
            output_limit=settings.output_limit,
            seed=settings.seed,
        )
        self._project: Project = self._part.agree(told)
        self._terminal = Terminal(config)
        self._relay = Relay(self._reports, self.screen)
        try:
            self.factory = MachineFactory(settings, progress, self._part.directory)
            self.factory.hidden = self._part.hidden
        except BaseException:
            self.artifacts.close()
            raise
        self._pool = Pool(self.factory, forks_ahead(os.environ))
        self._guests: dict[MachineSpec, GuestSession] = {}
        self._failures: dict[MachineSpec, SmolError] = {}
        self._items: list[pytest.Item] = []
        self._tests: dict[pytest.Item, VmTest] = {}
        self._numbers: dict[MachineSpec, dict[pytest.Item, int | None]] = {}
        self._members: dict[Placement, list[pytest.Item]] = {}
        self._runs: dict[Placement, GroupRun] = {}

    # --- start ----------------------------------------------------------------------------

    def describe(self) -> str:
        """One line for pytest's header."""
        accelerator = self.factory.accelerator
        reason = f" ({accelerator.reason})" if accelerator.reason else ""
        boundary = ["emulation is no security boundary"] if accelerator.name == "tcg" else []
        parts = [
            f"{accelerator.name}{reason}",
            *boundary,
            f"QEMU {self.factory.emulator.version_text}",
            "image host",
        ]
        parts += [] if self._settings.seed is None else [f"seed {self._settings.seed}"]
        started = [guest for spec, guest in self._guests.items() if spec not in self._failures]
        parts += [guest.origin.describe() for guest in started]
        return "smol: " + ", ".join(parts)

    def open_guest(self, spec: MachineSpec) -> GuestSession:
        """The started guest session for ``spec``. Raises :class:`SmolError`, and again if it has."""
        if spec in self._failures:
            raise self._failures[spec]
        if spec not in self._guests:
            guest = GuestSession(
                self.factory, self._project, spec, self._reports, self._part.share, self._terminal
            )
            self._guests[spec] = guest
            require_part(spec.memory, self._part.memory)
            try:
                guest.start(self._settings.timeout, self._screen_of(spec))
            except SessionEnded as ended:
                if not (ended.lines or ended.stop):  # else its output comes after the header
                    self.screen.release()
                raise
            except (MachineError, SnapshotError) as error:
                self._failures[spec] = error
                raise
        return self._guests[spec]

    def start(self) -> None:
        """Start the guests that the run is known to need. Raises :class:`SmolError`.

        A machine that goes wrong is not raised here: it is what collection, or
        each test that needs it, reports.
        """
        specs = {where.spec for where in self._members} or {self._default_spec}
        for spec in specs:  # what is refused at all is refused before anything is begun
            require_part(spec.memory, self._part.memory)
        for spec in specs:
            try:
                self.open_guest(spec)
            except (MachineError, SnapshotError):
                continue

    @property
    def _default_spec(self) -> MachineSpec:
        return spec_of(self._settings)

    def _screen_of(self, spec: MachineSpec) -> Screen | None:
        """Where is shown what a guest of ``spec`` writes while it collects: only the first to do so."""
        return self.screen if self._settings.everything and spec == self._default_spec else None

    # --- collect --------------------------------------------------------------------------

    def collect(self, session: pytest.Session) -> None:
        """Fill ``session`` with what the guest collects, and tell pytest as if the host had.

        A machine that goes wrong meanwhile is one collection error.
        """
        self.screen.release()
        try:
            collected = self.open_guest(self._default_spec).collected
        except MachineError as error:
            where = self._guests[self._default_spec].collected.collecting
            self._report_failed_collection(session, where, error)
            return
        self._report_collected(session, collected)

    def _report_collected(self, session: pytest.Session, collected: Collected) -> None:
        """Report to ``session`` what was ``collected``."""
        items, collectors = collected.nodes.build(session)
        for message in collected.asides:
            self._relay.take(message)
        for report in _collector_reports(items, collectors):
            session.config.hook.pytest_collectreport(report=report)
        for data in collected.reports:
            session.config.hook.pytest_collectreport(report=self._reports.collect_report(data))
        if collected.deselected:
            session.config.hook.pytest_deselected(items=_picked(items, collected.deselected))
        session.items = list(_picked(items, collected.order))

    def end_collection(self, session: pytest.Session, ended: SessionEnded) -> NoReturn:
        """Report what the guest collected before it ``ended``, and end ``session`` likewise."""
        self.screen.release()
        self._report_collected(session, self._guests[self._default_spec].collected)
        session.testscollected = len(session.items)
        session.config.hook.pytest_collection_finish(session=session)
        if ended.stop is not None:
            _obey(ended.stop, session)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        raise pytest.UsageError(*map(self._reports.clean, ended.lines))

    @property
    def collection_lines(self) -> list[str]:
        """What the guest's plugins say when collection is over."""
        guest = self._guests.get(self._default_spec)
        return [self._reports.clean(line) for line in guest.collected.lines] if guest is not None else []

    @property
    def header_lines(self) -> list[str]:
        """What the guest's own plugins have for pytest's header."""
        guest = self._guests.get(self._default_spec) if self._settings.everything else None
        return [self._reports.clean(line) for line in guest.collected.header] if guest is not None else []

    def _report_failed_collection(self, session: pytest.Session, where: str, error: SmolError) -> None:
        report = pytest.CollectReport(
            self._reports.clean(where), "failed", self._reports.clean(str(error)), None
        )
        session.config.hook.pytest_collectreport(report=report)
        session.items = []

    def adopt(self, items: Sequence[pytest.Item], chosen: Callable[[pytest.Item], bool]) -> None:
        """Take charge of those of the run's ``items`` that are ``chosen``.

        Raises :class:`SettingError` for a wrong marker.
        """
        self._items = list(items)
        for item in filter(chosen, items):
            test = self._tests[item] = VmTest(item, self._settings, self.artifacts.boundary)
            self._members.setdefault(test.placement, []).append(item)

    # --- run ------------------------------------------------------------------------------

    def owns(self, item: pytest.Item) -> bool:
        """Whether ``item`` is to run in a VM."""
        return item in self._tests

    def next_at_home(self, item: pytest.Item | None) -> pytest.Item | None:
        """``item`` or the first after it that runs on the host."""
        if item is None or not self.owns(item):
            return item
        if self._part.workerinput is not None:  # which test comes here next is known only to the controller
            return stand_in(item.session)
        rest = self._items[self._items.index(item) :]
        return next((each for each in rest if not self.owns(each)), None)

    def run(self, item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[pytest.TestReport]:
        """The reports of ``item``, as they come from its VM."""
        test = self._tests[item]
        try:
            group = self._group_of(test)
            if self._part.workerinput is not None:
                group.add(self._step(test, nextitem))
        except SmolError as error:
            yield self._reports.crash_report(item, "setup", error, [], 0.0)
            yield self._reports.passed_teardown(item)
            return
        self.screen.limit.begin()
        yield from group.run(item, test.timeout)
        if group.stop is not None:
            _obey(group.stop, item.session)

    def _group_of(self, test: VmTest) -> GroupRun:
        """The run of the group that ``test`` belongs to. Raises :class:`SmolError`."""
        where = test.placement
        numbers = self._numbers_in(where.spec)
        if numbers[test.item] is None:
            raise ProtocolError(
                "the guest did not collect this test",
                remedy="what is collected must not depend on what a guest lacks, such as the network",
            )
        if where not in self._runs:
            guest = self.open_guest(where.spec)
            self._pool.plan(guest.snapshot, self._groups_to_come(where))
            worker = self._worker()
            self._runs[where] = GroupRun(
                self._pool,
                guest.snapshot,
                steps(self._members[where], self._items, numbers) if worker is None else [],
                self._reports,
                self.screen.output,
                self._relay,
                worker,
                artifacts=self.artifacts,
                terminal=self._terminal,
            )
        return self._runs[where]

    def _worker(self) -> Message | None:
        """What tells machines of the worker of pytest-xdist that this is, and of its screen."""
        part = self._part
        if part.workerinput is None:
            return None
        env, screen = dict(part.env), self.screen.facts()
        return {"type": "worker", "input": part.workerinput, "env": env, "screen": screen}

    def _groups_to_come(self, where: Placement) -> int:
        """How many groups but ``where`` have not begun that need a machine of its spec."""
        others = self._members.keys() - self._runs.keys() - {where}
        return sum(other.spec == where.spec for other in others)

    def _step(self, test: VmTest, nextitem: pytest.Item | None) -> Step:
        """The step of a test whose followers in the machine are not known but for the next."""
        where = test.placement
        numbers = self._numbers_in(where.spec)
        number = numbers[test.item]
        assert number is not None
        follows = nextitem is not None and self.owns(nextitem) and self._tests[nextitem].placement == where
        return number, numbers[nextitem] if follows and nextitem is not None else None

    def _numbers_in(self, spec: MachineSpec) -> dict[pytest.Item, int | None]:
        if spec not in self._numbers:
            matched = self.open_guest(spec).match(self._items)
            self._numbers[spec] = dict(zip(self._items, matched, strict=True))
        return self._numbers[spec]

    # --- end ------------------------------------------------------------------------------

    def knows(self, nodeid: str) -> bool:
        """Whether the test ``nodeid`` runs in a VM."""
        return nodeid in self._nodeids

    @cached_property
    def _nodeids(self) -> set[str]:
        return {item.nodeid for item in self._tests}

    @cached_property
    def closing(self) -> Closing | None:
        """Where the run ends for plugins that only the guest has, None where it has none with an end.

        A distributed run ends in the controller, which has all reports.
        """
        if self._part.workerinput is not None:
            return None
        guest = self._guests.get(self._default_spec)
        if guest is None or not self._settings.everything or not guest.collected.closing:
            return None
        return Closing(
            self._config, self._pool, guest.snapshot, self._relay, self.screen, self._settings.timeout
        )

    def close(self) -> None:
        """Kill every machine and remove every file of the run; idempotent."""
        self._pool.close()
        self.factory.close()
        self.artifacts.close()


def _collector_reports(
    items: Sequence[GuestItem], collectors: Sequence[GuestCollector]
) -> Iterator[pytest.CollectReport]:
    """A passed report for each collector, with what it collected."""
    children: dict[object, list[pytest.Item | pytest.Collector]] = {each: [] for each in collectors}
    nodes: list[GuestItem | GuestCollector] = [*collectors, *items]
    for node in nodes:
        children.get(node.parent, []).append(node)
    for collector in collectors:
        yield pytest.CollectReport(collector.nodeid, "passed", None, children[collector])


def _picked(items: Sequence[GuestItem], numbers: Sequence[int]) -> list[GuestItem]:
    try:
        return [items[number] for number in numbers if number >= 0]
    except (IndexError, TypeError) as error:
        raise ProtocolError("the guest selected tests that it did not collect") from error


def _obey(stop: Stop, session: pytest.Session) -> None:
    """Stop the host's session as the guest's was stopped."""
    if stop.kind == "exit":
        pytest.exit(stop.reason, returncode=stop.returncode)
    if stop.kind == "interrupt":
        interrupt = KeyboardInterrupt(*filter(None, [stop.reason]))
        vars(interrupt)["smol_place"] = stop.place
        raise interrupt
    if stop.kind == "fail":
        session.shouldfail = stop.reason
    else:
        session.shouldstop = stop.reason
