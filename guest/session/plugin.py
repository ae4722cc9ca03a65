"""The hooks of the guest's pytest: what is collected and reported goes to the host.

The host's end is pytest_smol/plugin.py.
"""

from __future__ import annotations

import gc
import linecache
import warnings
from collections.abc import Callable, Collection, Iterator
from typing import Any

import pytest
from _pytest.junitxml import xml_key

from pytest_smol.errors import SettingError
from pytest_smol.guest.identity import as_root, become_distinct, seed_generators, seed_of
from pytest_smol.guest.session.by_module import FileListing, Listed, collect_as_told, leave_whole_run_to_host
from pytest_smol.guest.session.collection import BATCH, CollectedTree
from pytest_smol.guest.session.own_plugins import OwnPlugins
from pytest_smol.guest.session.reporter import ReporterPlugin
from pytest_smol.guest.session.run_end import PHASES, Closing
from pytest_smol.guest.session.xdist import become_worker


class GuestPlugin:
    """Pytest hooks of the guest: what is collected and reported goes to the host."""

    def __init__(
        self,
        port: Any,
        terminal: ReporterPlugin,
        shared: Collection[str],
        at_end: Callable[[], None] = lambda: None,
        seed: int | None = None,
        by_module: bool = False,
    ) -> None:
        self._port = port
        self._by_module = by_module
        self._listing: FileListing | None = None
        self._terminal = terminal
        self._shared = shared
        self._own: OwnPlugins
        self._failed_collectors: list[pytest.CollectReport] = []
        self._sent_properties = 0
        self._at_end = at_end
        self._seed = seed
        self._tree = CollectedTree()
        #: How own plugins show a report; made before the snapshot, or each fork would pay for it.
        self._own_status: Any = None
        self._deselected: list[pytest.Item] = []
        self._number = 0
        self._config: pytest.Config

    def pytest_configure(self, config: pytest.Config) -> None:
        """Find the plugins that only the guest has."""
        self._config = config
        self._own = OwnPlugins(config, self._shared)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Send what the header lacks: the host has asked its own plugins."""
        lines = self._own.header(self._config) if self._terminal.shows_header else []
        self._port.send("header", lines=_flat(lines))

    def pytest_collectstart(self, collector: pytest.Collector) -> None:
        """Tell the host what is being collected, should the machine die meanwhile."""
        self._port.send("collecting", nodeid=collector.nodeid)

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Number the test and tell the host of its node."""
        self._tree.add(item)

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Remember which tests were deselected."""
        self._deselected += items

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Send reports of what could not be collected."""
        if not report.passed:
            self._failed_collectors.append(report)
            self._port.send("collect_report", data=self._serialised(report))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> Iterator[None]:
        """Tell the host how collection ended."""
        try:
            if self._by_module:
                self._await_request_to_collect(session)
            result = yield
            self._send_nodes(*session.items, *self._deselected)
            return result
        except Listed:
            self._send_files()
            return None
        except SettingError as error:  # a marker
            self._port.send("usage_error", lines=[str(error)])
            raise pytest.UsageError(str(error)) from error
        except pytest.UsageError as error:
            self._send_nodes()
            self._port.send("usage_error", lines=[str(line) for line in error.args])
            raise
        except (session.Failed, KeyboardInterrupt, pytest.exit.Exception) as error:
            self._send_nodes()
            self._port.send("stop", **_stop(error))
            raise

    def _await_request_to_collect(self, session: pytest.Session) -> None:
        """Collect nothing before the snapshot: a fork is told which files it is to collect."""
        leave_whole_run_to_host(session.config)
        settle_memory()
        closing = self._own.have(*PHASES)
        self._port.send("collected", items=[], deselected=[], lines=[], closing=closing)
        self._listing = collect_as_told(session, self._next_request())

    def _send_files(self) -> None:
        rows = self._listing.rows if self._listing is not None else []
        for begin in range(0, len(rows), BATCH):
            self._port.send("files", rows=rows[begin : begin + BATCH])

    def pytest_warning_recorded(
        self, warning_message: warnings.WarningMessage, when: str, nodeid: str, location: Any
    ) -> None:
        """Send a warning, for the host's pytest to record."""
        self._port.send(
            "warning",
            text=str(warning_message.message),
            category=warning_message.category.__name__,
            filename=warning_message.filename,
            lineno=warning_message.lineno,
            line=linecache.getline(warning_message.filename, warning_message.lineno).strip(),
            when=when,
            nodeid=nodeid,
            location=list(location) if location else None,
        )

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Send what was collected, wait for what to run, and run it."""
        self._own_status = self._own.hook("pytest_report_teststatus")
        self._send_collection(session)
        message = self._next_request()
        session.testsfailed = message["failed"]
        if message["type"] == "close":
            self._close(session)
        else:
            self._run(session, message["steps"])
        return True

    def _next_request(self) -> dict[str, Any]:
        """The next ``close`` or ``run`` message; messages that come before it are handled here."""
        while True:
            message: dict[str, Any] = self._port.receive()
            if message["type"] == "identity":
                with as_root():
                    become_distinct(message["fresh"])
                self._port.send("fresh")
            elif message["type"] == "worker":
                become_worker(self._config, message["input"], message["env"])
                self._terminal.resemble(self._config, message["screen"])
            else:
                return message

    def _close(self, session: pytest.Session) -> None:
        closing = Closing(self._port, session, self._own, self._terminal.reporter)
        closing.take_collection(self._failed_collectors, self._deselected)
        try:
            closing.serve()
        except (KeyboardInterrupt, pytest.exit.Exception) as error:
            self._port.send("stop", **_stop(error))

    def _send_collection(self, session: pytest.Session) -> None:
        numbers = [self._tree.number(item) for item in session.items]
        deselected = [self._tree.number(item) for item in self._deselected]
        lines = self._config.hook.pytest_report_collectionfinish(
            config=self._config, start_path=self._config.rootpath, items=session.items
        )
        self._send_properties()
        settle_memory()
        self._port.send(
            "collected",
            items=numbers,
            deselected=deselected,
            lines=_flat(lines),
            closing=self._own.have(*PHASES),
        )

    def _send_properties(self) -> None:
        """Send what was added to the properties of the test suite, where a junit report is written."""
        xml: Any = self._config.stash.get(xml_key, None)
        properties = xml.global_properties if xml is not None else []
        for name, value in properties[self._sent_properties :]:
            self._port.send("suite_property", name=str(name), value=str(value))
        self._sent_properties = len(properties)

    def _send_nodes(self, *items: pytest.Item) -> None:
        for item in items:  # a plugin can have made some without collecting them
            self._tree.add(item)
        for rows in self._tree.batches():
            self._port.send("nodes", rows=rows)

    def _steps(self, steps: list[list[Any]]) -> Iterator[tuple[int, int | None]]:
        """The ``steps``, and those that follow: more are to come while the last has a test after it."""
        while steps:
            for number, following in steps:
                yield number, following
            steps = [] if following is None else self._port.receive()["steps"]

    def _run(self, session: pytest.Session, steps: list[list[Any]]) -> None:
        items = self._tree.items
        try:
            for number, following in self._steps(steps):
                self._number = number
                self._port.send("start", index=number)
                nextitem = None if following is None else items[following]
                item = items[number]
                if self._seed is not None:
                    seed_generators(seed_of(item.nodeid, self._seed))
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=nextitem)
                if session.shouldfail:
                    raise session.Failed(session.shouldfail)
                if session.shouldstop:
                    raise session.Interrupted(session.shouldstop)
                self._port.send("finish", index=number)
        except (session.Failed, KeyboardInterrupt, pytest.exit.Exception) as error:
            self._port.send("stop", **_stop(error))
            _tear_down(session)
        self._at_end()
        self._port.send("done")
        self._port.receive()  # nothing: the host takes the machine away

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Send the report of one phase of a test."""
        data = self._serialised(report)
        if isinstance(data["longrepr"], str) and not isinstance(report.longrepr, str):
            data["smol_shown"] = True
        if report.passed and self._turns_failed(report):
            data["smol_status"] = [report.outcome, str(report.longrepr)]
        shown = self._own_status(report=report, config=self._config)
        if shown is not None:
            data["smol_teststatus"] = list(shown)
        self._send_properties()
        self._port.send("report", index=self._number, data=data)

    def _turns_failed(self, report: pytest.TestReport) -> bool:
        """Whether pytest, asked how to show a passed test, makes it a failure: one of its subtests failed.

        The host cannot tell: the subtests were counted here.
        """
        self._config.hook.pytest_report_teststatus(report=report, config=self._config)
        return report.failed

    def _serialised(self, report: Any) -> Any:
        return self._config.hook.pytest_report_to_serializable(config=self._config, report=report)


def _tear_down(session: pytest.Session) -> None:
    """Tear down what is still set up, as a session that was stopped does when it finishes."""
    try:
        session._setupstate.teardown_exact(None)
    except Exception:  # in plain pytest it would end pytest itself, with the traceback of its own frames
        return


def _stop(error: BaseException) -> dict[str, Any]:
    """The fields of a ``stop`` message for what pytest raises to stop a run."""
    if isinstance(error, pytest.exit.Exception):
        return {"kind": "exit", "reason": str(error.msg), "returncode": error.returncode, "place": None}
    # pytest.Session.Interrupted is a KeyboardInterrupt.
    kinds = ((pytest.Session.Failed, "fail"), (pytest.Session.Interrupted, "stop"))
    kind = next((kind for raised, kind in kinds if isinstance(error, raised)), "interrupt")
    crash: Any = pytest.ExceptionInfo.from_exception(error).getrepr(style="short").reprcrash
    place = [str(crash.path), crash.lineno] if kind == "interrupt" and crash is not None else None
    return {"kind": kind, "reason": str(error), "returncode": None, "place": place}


def _flat(lines: list[Any]) -> list[str]:
    """What a hook's callers gave, each a line or some lines, in the order in which pytest shows them."""
    return [str(line) for given in reversed(lines) for line in ([given] if isinstance(given, str) else given)]


def settle_memory() -> None:
    """Leave nothing for the collector to move: every fork would copy what it touches."""
    gc.collect()
    gc.freeze()
