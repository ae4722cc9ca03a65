"""What a guest says about the run, not about one test, passed on to the host's pytest as it comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from pytest_smol.machine.dispatcher import GuestStop, Rule
from pytest_smol.protocol.wire import Message
from pytest_smol.pytest_private import add_suite_property
from pytest_smol.reports.budget import MessageBudget
from pytest_smol.reports.builder import ReportBuilder
from pytest_smol.reports.plugin_compat import ConfigWarnings
from pytest_smol.reports.screen import Screen
from pytest_smol.reports.text import encodable

__all__ = ["RunMessages", "status_of_exit", "stop_session"]

#: The most properties of the test suite that guests may record.
MAX_PROPERTIES = 10_000


class RunMessages:
    """Passes on warnings, texts for the terminal and properties of the suite; no ``screen``, no texts."""

    def __init__(self, reports: ReportBuilder, screen: Screen | None = None) -> None:
        self._reports = reports
        self._properties: set[tuple[str, str]] = set()
        self._show = screen.report if screen is not None else None
        self._handlers: Mapping[str, Callable[[Message], None]] = {
            "warning": self._relay_warning,
            "suite_property": self._record_property,
        }

    def rules(self, budget: MessageBudget) -> dict[str, Rule]:
        """How a phase with this ``budget`` takes these messages."""
        shown = Rule(self._show) if self._show is not None else Rule()
        return {"screen": shown, **{kind: Rule(handle, budget) for kind, handle in self._handlers.items()}}

    def replay(self, message: Message) -> None:
        """Pass on a ``warning`` or ``suite_property`` that was kept."""
        self._handlers[message["type"]](message)

    def _relay_warning(self, message: Message) -> None:
        plugins = self._reports.config.pluginmanager
        own: ConfigWarnings | None = plugins.get_plugin(ConfigWarnings.NAME)
        if own is None or not own.has(message):
            self._reports.relay_warning(message)

    def _record_property(self, message: Message) -> None:
        """Record a property of the suite; once, though each machine sets up the fixtures that record it."""
        pair = (encodable(self._reports.clean(message["name"])), self._reports.clean(message["value"]))
        add = add_suite_property(self._reports.config)
        if add is not None and pair not in self._properties and len(self._properties) < MAX_PROPERTIES:
            self._properties.add(pair)
            add(*pair)


def status_of_exit(returncode: int | None) -> int | None:
    """The exit status for a guest's ``pytest.exit()``: a run that is cut short never ends with 0.

    Of a process's exit status the system keeps eight bits.
    """
    is_success = returncode is not None and returncode % 256 == 0
    return int(pytest.ExitCode.INTERRUPTED) if is_success else returncode


def stop_session(session: pytest.Session, stop: GuestStop) -> None:
    """Stop the host's ``session`` as the guest's was stopped: raise, or set what pytest looks at next."""
    if stop.kind == "exit":
        pytest.exit(stop.reason, returncode=status_of_exit(stop.returncode))
    if stop.kind == "interrupt":
        interrupt = KeyboardInterrupt(*filter(None, [stop.reason]))
        vars(interrupt)["smol_place"] = stop.place
        raise interrupt
    if stop.kind == "fail":
        session.shouldfail = stop.reason
    else:
        session.shouldstop = stop.reason
