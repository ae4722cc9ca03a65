"""Other plugins of the host's run: what guests have to know of them, and what they of guests.

None of them is imported.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from pytest_smol.protocol.wire import Message

__all__ = ["ConfigWarnings", "drawn_options", "note_rerun"]

#: Options whose value a plugin draws when none is given (pytest-randomly, pytest-random-order): a guest
#: that drew its own would have another order than the host's header says.
_DRAWN = ("randomly_seed", "random_order_seed")


def drawn_options(config: pytest.Config) -> dict[str, int | str]:
    """The values that plugins of this run have settled on, by the option's ``dest``."""
    values = {name: getattr(config.option, name, None) for name in _DRAWN}
    return {name: value for name, value in values.items() if isinstance(value, (int, str))}


def note_rerun(item: pytest.Item, report: Any) -> None:
    """Let pytest-rerunfailures find on the host how often a test ran, for ``--fail-on-flaky``."""
    if isinstance(getattr(report, "rerun", None), int):
        counted: Any = item
        counted.execution_count = report.rerun + 1


class ConfigWarnings:
    """What pytest and plugins warned of when they were configured here: a guest's warn of it once more."""

    NAME = "smol-config-warnings"

    def __init__(self) -> None:
        self._own: set[tuple[str, str, int]] = set()

    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage, when: str) -> None:
        if when == "config":
            text = str(warning_message.message)
            self._own.add((text, warning_message.filename, warning_message.lineno))

    def has(self, message: Message) -> bool:
        """Whether a guest's ``warning`` was given here too."""
        if message["when"] != "config":
            return False
        return (message["text"], message["filename"], message["lineno"]) in self._own
