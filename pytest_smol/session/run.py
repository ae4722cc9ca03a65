"""One run of pytest with machines: the plan, the guest sessions, and the groups that run in their forks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import pytest

from pytest_smol.artifacts.collector import ArtifactCollector
from pytest_smol.errors import SmolError
from pytest_smol.machine.terminal_permission import TerminalPermission
from pytest_smol.machine.user_terminal import Terminal
from pytest_smol.pool.factory import MachineFactory
from pytest_smol.pool.pool import Pool, forks_ahead
from pytest_smol.protocol.wire import Message
from pytest_smol.pytest_private import parser_of
from pytest_smol.reports.budget import RunBudget
from pytest_smol.reports.builder import ReportBuilder
from pytest_smol.reports.nodes import stand_in
from pytest_smol.reports.screen import Screen
from pytest_smol.session.collection import GuestCollection
from pytest_smol.session.group_files import GroupFiles
from pytest_smol.session.group_run import GroupContext, GroupRun, not_collected
from pytest_smol.session.guests.guest_sessions import GuestSessions
from pytest_smol.session.guests.request import SessionRequest
from pytest_smol.session.placement import MachineSpec, Placement, planned_test
from pytest_smol.session.plan import GuestNumbers, Plan, Step
from pytest_smol.session.run_end import GuestRunEnd
from pytest_smol.session.run_messages import RunMessages, stop_session
from pytest_smol.session.xdist.shared_sessions import ProcessContext
from pytest_smol.settings import Settings
from pytest_smol.trust.settings_origin import UserArguments

__all__ = ["SmolSession"]


class SmolSession:
    """One run of pytest in this process, which began with ``sys_path``.

    ``progress`` is told in a few words what takes long. Close it to leave
    nothing behind. Raises :class:`HostError` where the host cannot run machines.
    """

    def __init__(
        self,
        config: pytest.Config,
        settings: Settings,
        sys_path: Sequence[str],
        progress: Callable[[str], None],
        context: ProcessContext | None = None,
    ) -> None:
        self._config = config
        self._settings = settings
        self._context = context or ProcessContext()
        self._reports = ReportBuilder(config, self._context.colour)
        self.artifacts = ArtifactCollector(config, settings, config.rootpath, self._reports.clean)
        self.screen = Screen(config, self._reports.clean, settings.output_limit)
        self._terminal = Terminal(config, TerminalPermission(UserArguments(config, parser_of(config))))
        self._budget = RunBudget(
            settings.report_limit, "the tests of this run", "if they are to be kept, raise smol_report_limit"
        )
        self._messages = RunMessages(self._reports, self.screen)
        try:
            self.factory = MachineFactory(settings, progress, self._context.directory, self._context.hidden)
        except BaseException:
            self.artifacts.close()
            raise
        self._pool = Pool(self.factory, forks_ahead(os.environ))
        self._guests = self._guest_sessions(sys_path)
        self.collection = GuestCollection(self._guests, self._reports, self._messages, self.screen)
        self._plan: Plan[pytest.Item] = Plan()
        self._numbers: dict[MachineSpec, GuestNumbers[pytest.Item]] = {}
        self._groups: dict[Placement, GroupRun] = {}
        #: Whether each module is collected in a machine of its own.
        self.by_module = settings.collect == "module"
        self._files: GroupFiles | None = None

    def _guest_sessions(self, sys_path: Sequence[str]) -> GuestSessions:
        request = SessionRequest.of(
            self._config,
            self._settings,
            sys_path,
            files=self.artifacts.request(),
            screen=self.screen.terminal_properties(),
            uncaptured=self.screen.uncaptured,
        )
        request = self._context.adapt_request(request)
        return GuestSessions(
            self.factory, request, self._settings, self._context, self.screen, self._pool, self._terminal
        )

    # --- start ----------------------------------------------------------------------------

    def header(self) -> list[str]:
        """Lines for pytest's header: one about the machines, and those of plugins that only the guest has."""
        return [self.describe(), *(self.collection.header if self._settings.everything else ())]

    def describe(self) -> str:
        """One line about the machines."""
        parts = [self.factory.engine.describe(), "image host"]
        parts += [] if self._settings.seed is None else [f"seed {self._settings.seed}"]
        return "smol: " + ", ".join([*parts, *self._guests.describe()])

    def make_plan(self, items: Sequence[pytest.Item], in_vm: Callable[[pytest.Item], bool]) -> None:
        """Plan the run of ``items``, those in VMs for which ``in_vm`` is true.

        Raises :class:`SettingError` for a wrong marker.
        """
        least = self.artifacts.boundary
        planned = {item: planned_test(item, self._settings, least) for item in filter(in_vm, items)}
        self._plan = Plan(items, planned)
        self._numbers.clear()
        if self.by_module:
            self._files = GroupFiles(filter(planned.__contains__, items), self._guests.file_collector())

    def start(self) -> None:
        """Start the guests that the plan needs. Raises :class:`SmolError`.

        A machine that goes wrong is not raised here: it is what collection, or
        each test that needs it, reports.
        """
        self._guests.start(self._plan.specs)

    # --- run ------------------------------------------------------------------------------

    def owns(self, item: pytest.Item) -> bool:
        """Whether ``item`` is to run in a VM."""
        return item in self._plan.in_vms

    def next_on_host(self, item: pytest.Item | None) -> pytest.Item | None:
        """``item`` or the first after it that runs on the host."""
        if item is None or not self.owns(item):
            return item
        if self._context.workerinput is not None:  # only the controller knows which test comes here next
            return stand_in(item.session)
        return self._plan.next_on_host(item)

    def run(self, item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[pytest.TestReport]:
        """The reports of ``item``, as they come from its VM."""
        test = self._plan.in_vms[item]
        try:
            group = self._group_of(item)
            if self._context.workerinput is not None:
                group.add(self._step(item, nextitem))
        except SmolError as error:
            yield self._reports.crash_report(item, "setup", error, [], 0.0)
            yield self._reports.passed_teardown(item)
            return
        self.screen.limit.begin()
        yield from group.run(item, test.timeout)
        if group.stop is not None:
            stop_session(item.session, group.stop)

    def _group_of(self, item: pytest.Item) -> GroupRun:
        """The run of the group that ``item`` belongs to. Raises :class:`SmolError`."""
        where = self._plan.in_vms[item].placement
        if self._numbers_in(where).number(item) is None:
            raise not_collected()
        if where not in self._groups:
            guest = self._guests.open(where.spec)
            self._pool.plan(guest.snapshot, self._plan.machines_to_come(where))
            # A worker of pytest-xdist is told one test after another.
            known = self._context.workerinput is None
            members = self._plan.members(where)
            steps = self._numbers_in(where).steps(members) if known else []
            collection = self._files.of(members)[1] if self._files is not None else None
            self._groups[where] = GroupRun(self._group_context, guest.snapshot, steps, collection)
        return self._groups[where]

    @cached_property
    def _group_context(self) -> GroupContext:
        return GroupContext(
            self._pool,
            self._reports,
            self._messages,
            self.screen.output,
            self._worker_message(),
            self.artifacts,
            self._terminal,
            self._budget,
        )

    def _worker_message(self) -> Message | None:
        """What tells machines of the worker of pytest-xdist that this is, and of its screen."""
        if self._context.workerinput is None:
            return None
        env, screen = dict(self._context.env), self.screen.terminal_properties()
        return {"type": "worker", "input": self._context.workerinput, "env": env, "screen": screen}

    def _step(self, item: pytest.Item, nextitem: pytest.Item | None) -> Step:
        """The step of a test of which only the next after it in the machine is known, if any."""
        where = self._plan.in_vms[item].placement
        numbers = self._numbers_in(where)
        number = numbers.number(item)
        assert number is not None
        following = self._plan.in_vms.get(nextitem) if nextitem is not None else None
        shares = following is not None and following.placement == where
        return number, numbers.number(nextitem) if shares and nextitem is not None else None

    def _numbers_in(self, where: Placement) -> GuestNumbers[pytest.Item]:
        """The numbers of the run's tests in the machines of ``where``. Raises :class:`SmolError`."""
        if self._files is not None:
            return self._files.of(self._plan.members(where))[0]
        spec = where.spec
        if spec not in self._numbers:
            tests = self._plan.tests
            self._numbers[spec] = GuestNumbers(tests, self._guests.open(spec).match(tests))
        return self._numbers[spec]

    # --- end ------------------------------------------------------------------------------

    def knows(self, nodeid: str) -> bool:
        """Whether the test ``nodeid`` runs in a VM."""
        return nodeid in self._nodeids

    @cached_property
    def _nodeids(self) -> set[str]:
        return {item.nodeid for item in self._plan.in_vms}

    @cached_property
    def run_end(self) -> GuestRunEnd | None:
        """Where hooks of the end run that only the guest has, None where it has none.

        A distributed run ends in the controller, which has all reports.
        """
        if self._context.workerinput is not None:
            return None
        guest = self._guests.default
        if guest is None or not self._settings.everything or not guest.collected.has_end_hooks:
            return None
        timeout = self._settings.timeout
        collector = self._guests.file_collector() if self.by_module else None
        return GuestRunEnd(self._config, self._group_context, guest.snapshot, self.screen, timeout, collector)

    def close(self) -> None:
        """Kill every machine and remove every file of the run; idempotent."""
        self._pool.close()
        self.factory.close()
        self.artifacts.close()
