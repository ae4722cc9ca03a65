"""What a guest collected, reported to the host's pytest as if the host had collected it.

The guest's end is guest/session/collection.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NoReturn

import pytest

from pytest_smol.errors import MachineError, ProtocolError, SmolError
from pytest_smol.reports.builder import ReportBuilder
from pytest_smol.reports.nodes import GuestCollector, GuestItem
from pytest_smol.reports.screen import Screen
from pytest_smol.reports.text import encodable
from pytest_smol.session.guests.collected import Collected, SessionEnded
from pytest_smol.session.guests.guest_sessions import GuestSessions
from pytest_smol.session.run_messages import RunMessages, stop_session

__all__ = ["GuestCollection"]


class GuestCollection:
    """The collection of a run with ``--smol``, which is that of the guest with the default spec."""

    def __init__(
        self, guests: GuestSessions, reports: ReportBuilder, messages: RunMessages, screen: Screen
    ) -> None:
        self._guests = guests
        self._reports = reports
        self._messages = messages
        self._screen = screen

    def fill(self, session: pytest.Session) -> None:
        """Fill ``session`` with what the guest collects, and tell pytest as if the host had.

        A machine that goes wrong meanwhile is one collection error.
        """
        self._screen.release()
        try:
            collected = self._guests.open(self._guests.default_spec).collected
        except MachineError as error:
            self._report_failure(session, self._collected.collecting, error)
            return
        self._report(session, collected)

    def end(self, session: pytest.Session, ended: SessionEnded) -> NoReturn:
        """Report what the guest collected before it ``ended``, and end ``session`` likewise."""
        self._screen.release()
        self._report(session, self._collected)
        session.testscollected = len(session.items)
        session.config.hook.pytest_collection_finish(session=session)
        if ended.stop is not None:
            stop_session(session, ended.stop)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        raise pytest.UsageError(*map(self._reports.clean, ended.lines))

    @property
    def lines(self) -> list[str]:
        """What the guest's plugins say when collection is over."""
        guest = self._guests.default
        return [self._reports.clean(line) for line in guest.collected.lines] if guest is not None else []

    @property
    def header(self) -> list[str]:
        """What the guest's own plugins have for pytest's header."""
        guest = self._guests.default
        return [self._reports.clean(line) for line in guest.collected.header] if guest is not None else []

    @property
    def _collected(self) -> Collected:
        guest = self._guests.default
        assert guest is not None
        return guest.collected

    def _report(self, session: pytest.Session, collected: Collected) -> None:
        """Report to ``session`` what was ``collected``."""
        items, collectors = collected.nodes.build(session)
        for message in collected.run_messages:
            self._messages.replay(message)
        for report in _passed_reports(items, collectors):
            session.config.hook.pytest_collectreport(report=report)
        for data in collected.reports:
            session.config.hook.pytest_collectreport(report=self._reports.collect_report(data))
        if collected.deselected:
            session.config.hook.pytest_deselected(items=_picked(items, collected.deselected))
        session.items = list(_picked(items, collected.order))

    def _report_failure(self, session: pytest.Session, where: str, error: SmolError) -> None:
        clean = self._reports.clean
        report = pytest.CollectReport(encodable(clean(where)), "failed", clean(str(error)), None)
        session.config.hook.pytest_collectreport(report=report)
        session.items = []


def _passed_reports(
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
