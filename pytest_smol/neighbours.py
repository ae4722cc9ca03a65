"""Other plugins of the host's run: what guests have to know of them, and what they of guests.

None of them is imported.
"""

from __future__ import annotations

from typing import Any

import pytest

__all__ = ["drawn_options", "note_rerun"]

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
