"""docs/fidelity.md names for each behaviour a test that exists."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
LINK = re.compile(r"\[(\w+\.py)::(\w+)\]\(([^)]+)\)")


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


@lru_cache
def functions_of(path: Path) -> dict[str, ast.FunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_there_are_rows() -> None:
    assert len(rows()) > 60


@pytest.mark.parametrize("row", rows())
def test_a_row_names_a_test_that_exists(row: str) -> None:
    [(file, name, target)] = LINK.findall(row)
    path = (DOCS / target).resolve()
    assert path.name == file
    assert name.startswith("test_")
    assert name in functions_of(path)


@pytest.mark.parametrize("row", [row for row in rows() if row.count(" | ") == 1])
def test_what_is_the_same_is_compared(row: str) -> None:
    """A test of the first table has both runs, plain and with machines."""
    [(_, name, target)] = LINK.findall(row)
    calls = {
        ast.unparse(node.func)
        for node in ast.walk(functions_of((DOCS / target).resolve())[name])
        if isinstance(node, ast.Call)
    }
    assert calls & {"lab.same", "lab.both", "lab.plain", "difference"}
