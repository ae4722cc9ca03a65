"""Tests that a table of the docs links to, as ``[file.py::test_name](../tests/file.py)``."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

__all__ = ["DOCS", "linked_test"]

DOCS = Path(__file__).parents[2] / "docs"

_LINK = re.compile(r"\[(\w+\.py)::(\w+)\]\(([^)]+)\)")


@lru_cache
def _functions_of(path: Path) -> dict[str, ast.FunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def linked_test(row: str) -> ast.FunctionDef:
    """The one test that ``row`` links to. Raises AssertionError if it has another number or there is none."""
    [(file, name, target)] = _LINK.findall(row)
    path = (DOCS / target).resolve()
    assert path.name == file
    assert name.startswith("test_")
    functions = _functions_of(path)
    assert name in functions, f"{path} has no {name}"
    return functions[name]
