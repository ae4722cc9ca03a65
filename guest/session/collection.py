"""The tree that pytest collected, as rows from which the host rebuilds it.

The host's end is pytest_smol/session/collection.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest

from pytest_smol.marker import marks_of, place

#: Rows in one message: small enough to bound a frame, large enough to be few.
BATCH = 500

#: The longest docstring that is sent, in characters.
_MAX_DOC = 2000


class CollectedTree:
    """Every item of a session with the collectors above it, numbered in the order met."""

    def __init__(self) -> None:
        self.items: list[pytest.Item] = []
        # By identity: a plugin that changes an item's id, as pytest-xdist does, changes its hash.
        self._numbers: dict[int, int] = {}

    def add(self, item: pytest.Item) -> None:
        """Give ``item`` the next number, and its nodes their rows."""
        if id(item) not in self._numbers:
            self._numbers[id(item)] = len(self.items)
            self.items.append(item)

    def number(self, item: pytest.Item) -> int:
        """The item's number: its place in :attr:`items`."""
        self.add(item)
        return self._numbers[id(item)]

    def batches(self) -> Iterator[list[dict[str, Any]]]:
        """Rows for all nodes below the session, parents before children."""
        rows: list[dict[str, Any]] = []
        known: dict[Any, int] = {}
        for item in self.items:
            for node in item.listchain()[1:]:
                if node not in known:
                    known[node] = len(known)
                    rows.append(self._row(node, known))
            if len(rows) >= BATCH:
                yield rows
                rows = []
        if rows:
            yield rows

    def _row(self, node: Any, known: dict[Any, int]) -> dict[str, Any]:
        row = {
            "parent": known.get(node.parent),
            "kind": type(node).__name__,
            "place": place(node),
            "name": node.name,
            "nodeid": node.nodeid,
            "path": str(node.path),
            "doc": _doc(node),
        }
        if isinstance(node, pytest.Item):
            path, lineno, domain = node.location
            row["item"] = {
                "number": self._numbers[id(node)],
                "location": [path, lineno, domain],
                "keywords": sorted(str(key) for key in node.keywords),
                "marks": [asdict(mark) for mark in marks_of(node)],
            }
        return row


def _doc(node: Any) -> str | None:
    doc = inspect.getdoc(getattr(node, "obj", None)) if getattr(node, "obj", None) is not None else None
    return doc[:_MAX_DOC] if doc else None
