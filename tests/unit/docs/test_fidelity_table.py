"""docs/fidelity.md names for each behaviour a test that exists."""

from __future__ import annotations

import ast

import pytest

from tests.unit.linked_tests import DOCS, linked_test


def rows() -> list[str]:
    """The rows of the tables that stand for a behaviour: no head, no rule, no title of a part."""
    lines = (DOCS / "fidelity.md").read_text(encoding="utf-8").splitlines()
    cells = [line for line in lines if line.startswith("|")]
    heads = {number - 1 for number, line in enumerate(cells) if line.startswith("|--")}
    return [
        line
        for number, line in enumerate(cells)
        if number not in heads and not line.startswith(("|--", "| **"))
    ]


def test_there_are_rows() -> None:
    assert len(rows()) > 60


@pytest.mark.parametrize("row", rows())
def test_a_row_names_a_test_that_exists(row: str) -> None:
    linked_test(row)


@pytest.mark.parametrize("row", [row for row in rows() if row.count(" | ") == 1])
def test_what_is_the_same_is_compared(row: str) -> None:
    """A test of the first table has both runs, plain and with machines."""
    test = linked_test(row)
    calls = [node for node in ast.walk(test) if isinstance(node, ast.Call)]
    names = {ast.unparse(call.func).rpartition(".")[2] for call in calls}
    assert names & {"same", "both", "plain", "difference"} or _runs_twice(calls)


def _runs_twice(calls: list[ast.Call]) -> bool:
    """Whether a function is called twice, but for ``--smol`` with the same arguments."""
    shown = [ast.unparse(call) for call in calls]
    return any(call.replace(", '--smol'", "") in shown for call in shown if "'--smol'" in call)
