"""The guest sessions of one run: one for each machine spec, started when it is first needed."""

from __future__ import annotations

from collections.abc import Collection

from pytest_smol.errors import MachineError, SmolError, SnapshotError
from pytest_smol.host.resources import require_part
from pytest_smol.machine.user_terminal import Terminal
from pytest_smol.pool.factory import MachineFactory
from pytest_smol.pool.pool import Pool
from pytest_smol.reports.screen import Screen
from pytest_smol.session.guests.collected import SessionEnded
from pytest_smol.session.guests.guest_session import GuestSession, collection_budget
from pytest_smol.session.guests.module_collection import FileCollector, ModuleCollection
from pytest_smol.session.guests.request import SessionRequest
from pytest_smol.session.placement import MachineSpec, spec_of
from pytest_smol.session.xdist.shared_sessions import ProcessContext
from pytest_smol.settings import Settings

__all__ = ["GuestSessions"]


class GuestSessions:
    """The guest sessions of one run, all of which are told ``request``."""

    def __init__(
        self,
        factory: MachineFactory,
        request: SessionRequest,
        settings: Settings,
        context: ProcessContext,
        screen: Screen,
        pool: Pool,
        terminal: Terminal,
    ) -> None:
        self._pool = pool
        self._factory = factory
        self._request = request
        self._settings = settings
        self._context = context
        self._screen = screen
        self._terminal = terminal
        self._budget = collection_budget()
        self._sessions: dict[MachineSpec, GuestSession] = {}
        self._failures: dict[MachineSpec, SmolError] = {}
        #: The spec of tests whose marker asks for nothing else.
        self.default_spec = spec_of(settings)

    def open(self, spec: MachineSpec) -> GuestSession:
        """The started guest session for ``spec``.

        Raises :class:`SmolError`, and again if it has, and :class:`SessionEnded`
        where the guest's pytest ended in collection.
        """
        if spec in self._failures:
            raise self._failures[spec]
        if spec not in self._sessions:
            self._sessions[spec] = session = GuestSession(
                self._factory,
                self._request,
                spec,
                self._screen.clean,
                self._budget,
                self._context.sessions,
                self._terminal,
            )
            require_part(spec.memory, self._context.memory)
            self._start(session, spec)
        return self._sessions[spec]

    def _shows(self, spec: MachineSpec) -> bool:
        """Whether the session for ``spec`` shows what it writes while it collects: only the first does."""
        return self._settings.everything and spec == self.default_spec

    def _modules(self, spec: MachineSpec) -> ModuleCollection | None:
        """What collects the tests of the run, where each module is collected in a machine of its own."""
        if self._settings.collect != "module" or not self._shows(spec):
            return None
        collector = FileCollector(
            self._screen.clean, self._settings.timeout, self._terminal, self._screen, self._budget
        )
        return ModuleCollection(self._pool, collector)

    def file_collector(self) -> FileCollector:
        """What has forks collect files again; what they say of them is not kept."""
        return FileCollector(self._screen.clean, self._settings.timeout, self._terminal)

    def _start(self, session: GuestSession, spec: MachineSpec) -> None:
        try:
            screen = self._screen if self._shows(spec) else None
            session.start(self._settings.timeout, screen, self._modules(spec))
        except SessionEnded as ended:
            if not (ended.lines or ended.stop):  # else its output comes after the header
                self._screen.release()
            raise
        except (MachineError, SnapshotError) as error:
            self._failures[spec] = error
            raise

    def start(self, specs: Collection[MachineSpec]) -> None:
        """Start the sessions for ``specs``, or the default one. Raises :class:`SmolError`.

        A machine that goes wrong is not raised here: it is what collection, or
        each test that needs it, reports.
        """
        specs = specs or {self.default_spec}
        for spec in specs:  # what is refused at all is refused before anything is begun
            require_part(spec.memory, self._context.memory)
        for spec in specs:
            try:
                self.open(spec)
            except (MachineError, SnapshotError):
                continue

    @property
    def default(self) -> GuestSession | None:
        """The session for the default spec, None if it was never asked for; it may have failed."""
        return self._sessions.get(self.default_spec)

    def describe(self) -> list[str]:
        """What pytest's header says of where the started sessions came from."""
        started = [session for spec, session in self._sessions.items() if spec not in self._failures]
        return [session.origin.describe() for session in started]
