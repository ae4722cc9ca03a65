"""Other plugins of the host's run: what guests are told of them, and what they are told of guests.

None of them is imported.
"""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import Any

import pytest

from pytest_smol.protocol.wire import Message

__all__ = ["ConfigWarnings", "drawn_options", "note_rerun", "plugin_modules"]

#: Options whose value a plugin draws when none is given (pytest-randomly, pytest-random-order): a guest
#: that drew its own would have another order than the host's header says.
_DRAWN = ("randomly_seed", "random_order_seed")


def drawn_options(config: pytest.Config) -> dict[str, int | str]:
    """The values that plugins of this run have settled on, by the option's ``dest``."""
    values = {name: getattr(config.option, name, None) for name in _DRAWN}
    return {name: value for name, value in values.items() if isinstance(value, (int, str))}


def plugin_modules(config: pytest.Config) -> tuple[str, ...]:
    """The modules of the host's plugins: a guest tells by them which plugins only it has."""
    return tuple(sorted({_module_of(plugin) for plugin in config.pluginmanager.get_plugins()}))


def _module_of(plugin: object) -> str:
    kind = plugin if isinstance(plugin, (ModuleType, type)) else type(plugin)
    return str(kind.__name__ if isinstance(kind, ModuleType) else kind.__module__)


def note_rerun(item: pytest.Item, report: Any) -> None:
    """Let pytest-rerunfailures find on the host how often a test ran, for ``--fail-on-flaky``."""
    if isinstance(getattr(report, "rerun", None), int):
        counted: Any = item
        counted.execution_count = report.rerun + 1


class ConfigWarnings:
    """Warnings that pytest and plugins gave when they were configured on the host.

    The same plugins give them once more when they are configured in a guest.
    """

    NAME = "smol-config-warnings"

    def __init__(self) -> None:
        self._own: set[tuple[str, str, int]] = set()

    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage, when: str) -> None:
        """Remember a warning of the host's configuration."""
        if when == "config":
            text = str(warning_message.message)
            self._own.add((text, warning_message.filename, warning_message.lineno))

    def has(self, message: Message) -> bool:
        """Whether a guest's ``warning`` message is one that was given on the host too."""
        if message["when"] != "config":
            return False
        return (message["text"], message["filename"], message["lineno"]) in self._own
