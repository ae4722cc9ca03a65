"""pytest's hooks, and nothing else. Other modules are imported where a hook needs them, not at import.

The guest's end is guest/session/plugin.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_smol import marker, settings
from pytest_smol.errors import SmolError
from pytest_smol.pytest_private import (
    Exit,
    adds_python_path_early,
    choose_by_cache,
    remember_tests,
    wrap_session,
)
from pytest_smol.reports.text import clean
from pytest_smol.session.xdist import roles
from pytest_smol.settings import Settings

if TYPE_CHECKING:
    from pytest_smol.session.guests.collected import SessionEnded
    from pytest_smol.session.run import SmolSession
    from pytest_smol.trust.boundary import Boundary

_SYS_PATH = pytest.StashKey[tuple[str, ...]]()
_BOUNDARY = pytest.StashKey["Boundary"]()

#: As in pytest_smol.guest_os.interpreter and kernel_parameters, which runs without machines do not import.
_GUEST_VARIABLE = "SMOL_GUEST"
_GUEST_RUNNER = "pytest_smol.guest.runner"
_GUEST_PARAMETER = "smol.guest"


def _in_guest() -> bool:
    """Whether this is a guest, or a pytest that a test started in one.

    The variable alone is not enough: if it is set on a host, tests that are to run
    in a VM would run on that host.
    """
    if _GUEST_VARIABLE not in os.environ:
        return False
    return _GUEST_RUNNER in sys.modules or _GUEST_PARAMETER in Path("/proc/cmdline").read_text().split()


@pytest.fixture(scope="session")
def smol_disks() -> list[str]:
    """Paths of the empty scratch disks of the test's VM: as many as its marker or smol_disks asks for."""
    if not _in_guest():
        pytest.fail(
            "smol_disks: this test runs in no VM, so it has no scratch disks "
            "(run it with --smol, or mark it with @pytest.mark.smol(disks=[...]))",
            pytrace=False,
        )
    from pytest_smol.guest import scratch_disks

    found = scratch_disks.paths()
    if not found:
        pytest.fail(
            "smol_disks: this VM has no scratch disks "
            "(ask for some with @pytest.mark.smol(disks=['64M']), or smol_disks = 64M in the ini-file)",
            pytrace=False,
        )
    return found


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register options and ini values."""
    settings.add_options(parser)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> Generator[None, None, None]:
    """With ``--smol`` keep the project off the host, before anything of it is loaded."""
    early_config.stash[_SYS_PATH] = tuple(path or os.getcwd() for path in _own_path(early_config))
    if early_config.known_args_namespace.smol and not _in_guest():
        # With --smol no code of the project runs on the host; the guest loads its conftest files.
        early_config.known_args_namespace.noconftest = True
        try:
            early_config.stash[_BOUNDARY] = _draw_boundary(early_config, parser)
        except SmolError as error:
            raise pytest.UsageError(str(error)) from error
        settings.leave_to_guest(early_config, parser, args)
    return (yield)


def _draw_boundary(config: pytest.Config, parser: pytest.Parser) -> Boundary:
    """From here on run no code of the project on the host.

    Raises :class:`SmolError` for settings that a project may not choose.
    """
    path = list(sys.path)
    # pytest has put directories of the project first; nothing may be imported from there.
    sys.path[:] = [entry for entry in path if _is_installed(entry)]
    try:
        from pytest_smol.trust.boundary import Boundary
    finally:
        sys.path[:] = path
    return Boundary(config, parser)


def _is_installed(entry: str) -> bool:
    below_prefix = entry.startswith((f"{sys.prefix}/lib", f"{sys.base_prefix}/lib"))
    return below_prefix or "/site-packages" in entry or "/dist-packages" in entry


def _register(config: pytest.Config, plugin: object, name: str) -> None:
    """Register a part of this plugin that a run needs. Raises UsageError where ``-p no:NAME`` blocks it."""
    if config.pluginmanager.register(plugin, name) is None:
        raise pytest.UsageError(
            f"-p no:{name} would turn off a part of pytest-smol, and run tests on the host",
            "hint: leave it out, or turn off all of pytest-smol with -p no:smol",
        )


def _own_path(config: pytest.Config) -> list[str]:
    """``sys.path`` without the project's ``pythonpath``, which the guest's pytest adds itself."""
    if not adds_python_path_early(config):
        return sys.path
    added = [str(path) for path in config.getini("pythonpath")]
    return sys.path[len(added) :] if sys.path[: len(added)] == added else sys.path


def pytest_configure(config: pytest.Config) -> None:
    """Check the settings, and register what a run on the host needs."""
    config.addinivalue_line("markers", marker.DESCRIPTION)
    if config.getoption("smol_show_writes") and not _in_guest():
        from pytest_smol.artifacts.written_paths import WrittenPaths

        _register(config, WrittenPaths(), "smol-written-paths")
    if _in_guest():
        return
    try:
        chosen = Settings.from_config(config)
    except SmolError as error:
        raise pytest.UsageError(str(error)) from error
    from pytest_smol.artifacts.plugins.registry import keep_files_whole
    from pytest_smol.reports.plugin_compat import ConfigWarnings

    keep_files_whole(config)
    _register(config, ConfigWarnings(), ConfigWarnings.NAME)
    role = roles.role_of(config, config.stash[_SYS_PATH], chosen.snapshot_dir)
    _register(config, role, "smol-role")
    _register(config, HostPlugin(config, chosen, role), "smol-host")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | pytest.ExitCode | None:
    """With --smol let the guest show fixtures, as it is the guest that collects."""
    if config.option.smol and _shows_fixtures(config) and not _in_guest():
        config.option.tx = []  # one guest is enough for that
        return wrap_session(config, lambda config, session: None)
    return None


def _flat(lines: list[Any]) -> list[str]:
    """What callers of a hook for lines gave, in the order in which pytest shows them."""
    return [line for given in reversed(lines) for line in ([given] if isinstance(given, str) else given)]


def _shows_fixtures(config: pytest.Config) -> bool:
    return bool(config.option.showfixtures or config.option.show_fixtures_per_test)


class HostPlugin:
    """The hooks of a run on the host."""

    def __init__(self, config: pytest.Config, settings: Settings, role: roles.SingleProcess) -> None:
        self._config = config
        self._settings = settings
        self._role = role
        self._session: SmolSession | None = None
        self._ended: SessionEnded | None = None
        self._exits = ExitStack()

    # --- start ----------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """With ``--smol`` start the guest that collects."""
        if self._settings.everything and not self._config.getoption("cacheshow", False):
            self._open()

    def _open(self, items: Sequence[pytest.Item] = ()) -> None:
        """Start the guests that ``items`` need, by default one that collects; end the run if that fails."""
        from pytest_smol.host.signals import graceful_end
        from pytest_smol.session.guarded_hooks import GuardedHooks
        from pytest_smol.session.guests.collected import SessionEnded
        from pytest_smol.session.placement import has_untrusted
        from pytest_smol.session.summary import SummaryPlugin

        self._exits.enter_context(graceful_end())
        try:
            self._prepare()
            if not self._settings.everything and has_untrusted(filter(self._runs_in_vm, items)):
                self._settings = replace(self._settings, collect="module")
            self._session = self._make_session()
            self._session.make_plan(items, self._runs_in_vm)
            plugin = SummaryPlugin(self._config, self._session, mixed=not self._settings.everything)
            _register(self._config, plugin, "smol-summary")
            _register(self._config, GuardedHooks(self._config), "smol-guarded-hooks")
            self._session.start()
        except SmolError as error:
            self._role.end_run(pytest.UsageError(str(error)))
        except SessionEnded as ended:
            self._end(ended)

    def _end(self, ended: SessionEnded) -> None:
        """End the run as the guest's pytest ended, in collection if that is where it ended."""
        if self._settings.everything and self._role.ends_in_collection(ended):
            self._ended = ended
            return
        if ended.status == pytest.ExitCode.OK and _shows_fixtures(self._config):
            return
        if not ended.lines:
            sys.stderr.write(clean(ended.output) + "\n")
        if ended.status == pytest.ExitCode.USAGE_ERROR:
            self._role.end_run(pytest.UsageError(*map(clean, ended.lines)))
        else:
            from pytest_smol.session.run_messages import status_of_exit

            reason = clean(ended.stop.reason) if ended.stop is not None else str(ended)
            self._role.end_run(Exit(reason, status_of_exit(ended.status)))

    def _runs_in_vm(self, item: pytest.Item) -> bool:
        return self._settings.everything or item.get_closest_marker("smol") is not None

    def _prepare(self) -> None:
        """Prepare a run with these settings, and show what the role says of it. Raises :class:`SmolError`."""
        said = self._role.prepare(self._settings)
        if said:
            self._progress(said)

    def _make_session(self) -> SmolSession:
        from pytest_smol.session.run import SmolSession

        context = self._role.process_context()
        sys_path = self._config.stash[_SYS_PATH]
        return SmolSession(self._config, self._settings, sys_path, self._progress, context)

    def _progress(self, text: str) -> None:
        reporter: Any = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None and self._config.get_verbosity() >= 0:
            reporter.ensure_newline()
            reporter.write_line(f"smol: {text}")

    @pytest.hookimpl(tryfirst=True, optionalhook=True)
    def pytest_timeout_set_timer(self, item: pytest.Item) -> bool | None:
        """pytest-timeout watches a test where it runs: in the guest, which has the same settings."""
        return (self._session is not None and self._session.owns(item)) or None

    def pytest_report_header(self) -> list[str]:
        """The line about machines, and header lines of plugins that only the guest has."""
        boundary = self._config.stash.get(_BOUNDARY, None)
        lines = [text for text in [boundary.describe() if boundary is not None else ""] if text]
        if self._session is not None:
            lines += self._session.header()
        return lines

    # --- collect --------------------------------------------------------------------------

    def pytest_collection(self, session: pytest.Session) -> bool | None:
        """With ``--smol`` take what the guest collected."""
        if self._role.over:
            return True
        if self._session is None:
            return None
        if not self._role.runs_tests:
            return None
        try:
            if self._ended is not None:
                self._session.collection.end(session, self._ended)
            self._session.collection.fill(session)
            if self._session.by_module:
                choose_by_cache(session.config, session.items)
            self._session.make_plan(session.items, self._runs_in_vm)
        except SmolError as error:
            self._role.end_run(pytest.UsageError(str(error)))
            return True
        session.testscollected = len(session.items)
        remember_tests(session.config, session.items)  # what the guest's cache is told is lost with it
        session.config.hook.pytest_collection_finish(session=session)
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Start guests for marked tests, where there are any."""
        wanted = any(map(self._runs_in_vm, session.items)) and not self._config.option.collectonly
        if self._session is None and wanted:
            self._open(session.items)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_report_collectionfinish(self) -> Generator[None, Any, Any]:
        """With --smol it was the guest that collected, so its plugins' lines are shown, not the host's.

        In a run of marked tests the header was printed before any was known.
        """
        lines = yield
        if self._session is None or self._role.over:
            return lines
        if self._settings.everything:
            told = self._session.collection.lines
            # Of tests that were collected apart, the host's pytest has chosen those that failed last.
            chosen = [line for line in _flat(lines) if line not in told] if self._session.by_module else []
            return [[line] for line in reversed([*chosen, *told])]
        return [*lines, self._session.describe()]

    # --- run ------------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> bool | None:
        """Show guest output that was held back until after the header; run no test if the run is over."""
        if self._session is not None:  # where workers collect, this is when the header was shown
            self._session.screen.release()
        return self._role.over or None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Run a test in its machine, and give its reports to pytest."""
        if self._session is None:
            return None
        if not self._session.owns(item):
            return self._run_on_host(item, nextitem)
        hook = item.ihook
        hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        try:
            for report in self._session.run(item, nextitem):
                hook.pytest_runtest_logreport(report=report)
        except pytest.exit.Exception as stop:
            self._role.note_exit(stop)
            raise
        hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def _run_on_host(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Run a test on the host; what it shares with the next such test is not torn down in between."""
        assert self._session is not None
        following = self._session.next_on_host(nextitem)
        if following is nextitem:
            return None
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: Any) -> Any:
        """Change ``report`` as this hook did in the guest, and return what it returned there."""
        if hasattr(report, "smol_status"):
            report.outcome, report.longrepr = report.smol_status
        return getattr(report, "smol_teststatus", None)

    # --- end ------------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True, trylast=True)  # within pytest-xdist's, which sends off what a worker has
    def pytest_sessionfinish(self) -> Generator[None, None, None]:
        """Give plugins the data from guests before their own pytest_sessionfinish."""
        if self._session is None:
            return (yield)
        self._session.artifacts.finish()
        try:
            return (yield)
        finally:
            self._session.artifacts.finished()

    def pytest_unconfigure(self) -> None:
        """Kill every machine and remove every file of the run."""
        if self._session is not None:
            from pytest_smol.host.signals import uninterrupted

            with uninterrupted():
                self._session.close()
                self._session = None
        self._exits.close()
