"""What a guest says beside its reports, passed on to the host's pytest as it comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from _pytest.junitxml import xml_key

from pytest_smol.protocol.wire import Message
from pytest_smol.reports.builder import ReportBuilder
from pytest_smol.reports.plugin_compat import ConfigWarnings
from pytest_smol.reports.screen import Screen

__all__ = ["Relay"]

#: The most properties of the test suite that guests may record.
MAX_PROPERTIES = 10_000


class Relay:
    """Takes warnings, texts for the terminal and properties of the suite; ``screen`` may be left out."""

    def __init__(self, reports: ReportBuilder, screen: Screen | None = None) -> None:
        self._reports = reports
        self._properties: set[tuple[str, str]] = set()
        self._takers: Mapping[str, Callable[[Message], None]] = {
            "warning": self._relay_warning,
            "suite_property": self._record_property,
            "screen": screen.report if screen is not None else lambda message: None,
        }

    def take(self, message: Message) -> bool:
        """Pass ``message`` on if it is for here; whether it was."""
        taker = self._takers.get(message["type"])
        if taker is not None:
            taker(message)
        return taker is not None

    def _relay_warning(self, message: Message) -> None:
        plugins = self._reports.config.pluginmanager
        own: ConfigWarnings | None = plugins.get_plugin(ConfigWarnings.NAME)
        if own is None or not own.has(message):
            self._reports.relay_warning(message)

    def _record_property(self, message: Message) -> None:
        """Record a property of the suite; once, though each machine sets up the fixtures that record it."""
        pair = (self._reports.clean(message["name"]), self._reports.clean(message["value"]))
        xml: Any = self._reports.config.stash.get(xml_key, None)
        if xml is not None and pair not in self._properties and len(self._properties) < MAX_PROPERTIES:
            self._properties.add(pair)
            xml.add_global_property(*pair)
