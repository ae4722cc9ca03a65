"""Messages other than reports and nodes: types within lists, ranges and vocabularies."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_smol.errors import ProtocolError
from pytest_smol.protocol.wire import FROM_GUEST
from pytest_smol.reports.message_schema import MESSAGES, require_valid

#: Fields whose values are compared with what is expected, or counted and bounded, where they are taken.
CHECKED_ELSEWHERE = {
    *(("start", "index"), ("finish", "index"), ("report", "index")),
    *(("nodes", "rows"), ("files", "rows"), ("writes", "paths"), ("writes", "more")),
    *(("died", "status"), ("died", "signal")),
}

BEYOND = (1 << 31, -(1 << 31) - 1, 1 << 63, -(1 << 63))

WARNING = {"text": "", "category": "", "filename": "", "lineno": 1, "line": "", "when": "", "nodeid": ""}
STOP = {"kind": "exit", "reason": "", "returncode": None, "place": None}
COLLECTED = {"items": [0], "deselected": [], "lines": [""], "closing": False}

WRONG: dict[str, tuple[str, dict[str, Any], str, list[Any]]] = {
    "a warning's line": ("warning", {**WARNING, "location": None}, "lineno", [*BEYOND]),
    "a warning's location": (
        "warning",
        WARNING,
        "location",
        [["a.py", 3], ["a.py", "3", "f"], [], [None, 1, "f"], *(["a.py", each, "f"] for each in BEYOND)],
    ),
    "what a stop is": ("stop", STOP, "kind", ["", "great", "exit "]),
    "a return code": ("stop", STOP, "returncode", [*BEYOND]),
    "where a stop was": (
        "stop",
        STOP,
        "place",
        [[], ["a.py"], [1, "a.py"], ["a.py", True], ["a.py", 1, 2], *(["a.py", each] for each in BEYOND)],
    ),
    "an exit status": ("exit", {}, "status", [*BEYOND]),
    "the status at the end": ("closed", {"failure": ""}, "exitstatus", [*BEYOND]),
    "tests": ("collected", COLLECTED, "items", [["0"], [0.5], [True], [None], *([each] for each in BEYOND)]),
    "deselected tests": ("collected", COLLECTED, "deselected", [["0"], *([each] for each in BEYOND)]),
    "lines of plugins": ("collected", COLLECTED, "lines", [[1], [None], [["x"]], [{"x": "y"}]]),
    "lines of the header": ("header", {}, "lines", [[1], [None]]),
    "lines of an error": ("usage_error", {}, "lines", [[1], [None]]),
}


@pytest.mark.parametrize(("kind", "rest", "field", "values"), WRONG.values(), ids=WRONG)
def test_what_is_not_of_its_shape_breaks_the_protocol(
    kind: str, rest: dict[str, Any], field: str, values: list[Any]
) -> None:
    for value in values:
        with pytest.raises(ProtocolError, match=f"a '{kind}' message that is none: {field}"):
            require_valid({"type": kind, **rest, field: value})


def test_what_is_of_its_shape_is_taken() -> None:
    location = ["a.py", (1 << 31) - 1, "f"]
    require_valid({"type": "warning", **WARNING, "location": location})
    require_valid({"type": "stop", **STOP, "returncode": -(1 << 31), "place": ["a.py", 1]})
    require_valid({"type": "collected", **COLLECTED, "items": [3, -1]})
    require_valid({"type": "ready", "python": "3.11"})


def test_every_number_and_list_of_a_message_has_a_shape() -> None:
    open_fields = {
        (kind, field)
        for kind, row in FROM_GUEST.items()
        for field, types in row.items()
        if {int, list} & set(types) and field not in MESSAGES.get(kind, {})
    }
    assert open_fields == CHECKED_ELSEWHERE
    assert all(row.keys() <= FROM_GUEST[kind].keys() for kind, row in MESSAGES.items())
