"""The host's stand-ins for what a guest collected: a tree to show, to select from and to report on."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import PosixPath
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from pytest_smol.errors import ProtocolError
from pytest_smol.marker import Mark
from pytest_smol.reports.field_shapes import integer, maybe
from pytest_smol.reports.text import encodable
from pytest_smol.settings import SCOPES

__all__ = ["GuestCollector", "GuestItem", "NodeTable", "stand_in"]

#: The most nodes that a guest may announce.
MAX_NODES = 2_000_000

#: The longest path of a node in characters, PATH_MAX of linux/limits.h without its NUL: pytest walks parents.
MAX_PATH = 4095

#: The deepest that nodes are nested; what walks a node's parents recursively has to bear it.
MAX_DEPTH = 200


class GuestPath(PosixPath):
    """The path of a guest's node: pytest looks for it on the host, where no file may have such a path."""

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """As Path has it. Raises FileNotFoundError for whatever is wrong with the path."""
        try:
            return super().stat(follow_symlinks=follow_symlinks)
        except OSError as error:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self)) from error


class GuestCollector(pytest.Collector):
    """A collector of the guest (a module, a class, a directory); it collects nothing itself."""

    guest_kind = "Collector"
    place = "session"
    obj: SimpleNamespace | None = None

    def collect(self) -> list[pytest.Item | pytest.Collector]:
        """Nothing: the guest has collected."""
        return []

    def __repr__(self) -> str:
        return f"<{self.guest_kind} {self.name}>"


class GuestItem(pytest.Item):
    """A test of the guest, by its ``number`` there; it cannot run on the host."""

    guest_kind = "Item"
    obj: SimpleNamespace | None = None
    place = "test"
    number: int
    marks: tuple[Mark, ...]

    def runtest(self) -> NoReturn:
        """Raises RuntimeError: it runs in a guest only."""
        raise RuntimeError(f"{self.nodeid} belongs to a VM and is never run on the host")

    def __repr__(self) -> str:
        return f"<{self.guest_kind} {self.name}>"


def stand_in(session: pytest.Session) -> pytest.Item:
    """A test that has nothing in common with any other of ``session``, and is not one of its tests."""
    made: pytest.Item = GuestItem.from_parent(session, name="a test in another process", nodeid="")
    return made


class NodeTable:
    """Rows of the guest's tree, checked as they come; nodes are made of them at the end.

    ``clean`` makes guest text safe to show. Methods raise
    :class:`ProtocolError` for rows that make no tree.
    """

    def __init__(self, clean: Callable[[str], str]) -> None:
        self.clean = clean
        self._rows: list[dict[str, Any]] = []

    def add(self, rows: list[Any]) -> None:
        """Add ``rows`` of the guest's tree. Raises :class:`ProtocolError`."""
        if len(self._rows) + len(rows) > MAX_NODES:
            raise ProtocolError(f"the guest collected more than {MAX_NODES} nodes")
        for row in rows:
            try:
                self._rows.append(self._checked(row))
            except (KeyError, TypeError, ValueError) as error:
                raise ProtocolError(f"the guest sent a node that is none: {error!r}") from error

    def _checked(self, row: dict[str, Any]) -> dict[str, Any]:
        parent = row["parent"]
        if parent is not None and (type(parent) is not int or not 0 <= parent < len(self._rows)):
            raise ValueError("its parent is unknown")
        if parent is not None and self._rows[parent]["item"] is not None:
            raise ValueError("its parent is a test")
        depth = 1 if parent is None else self._rows[parent]["depth"] + 1
        if depth > MAX_DEPTH:
            raise ValueError("it is nested too deep")
        texts = {name: self._text(row[name]) for name in ("kind", "name", "nodeid", "path")}
        if len(texts["path"]) > MAX_PATH:
            raise ValueError("its path is too long")
        doc = None if row["doc"] is None else self._text(row["doc"])
        item = _checked_item(row["item"], self._text) if "item" in row else None
        place = _checked_place(row["place"])
        return {**texts, "parent": parent, "depth": depth, "doc": doc, "item": item, "place": place}

    def _text(self, value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError("text is expected")
        return encodable(self.clean(value))

    def item_ids(self) -> list[str]:
        """The tests' node ids, by their number. Raises :class:`ProtocolError`."""
        items = [row for row in self._rows if row["item"] is not None]
        items.sort(key=_number)
        if [_number(row) for row in items] != list(range(len(items))):
            raise ProtocolError("the guest numbered its tests wrongly")
        return [row["nodeid"] for row in items]

    def build(self, session: pytest.Session) -> tuple[list[GuestItem], list[GuestCollector]]:
        """The items by their number, and all collectors, parents first, below ``session``."""
        nodes: list[Any] = []
        items: dict[int, GuestItem] = {}
        for row in self._rows:
            parent = session if row["parent"] is None else nodes[row["parent"]]
            node = _made(row, parent)
            nodes.append(node)
            if isinstance(node, GuestItem):
                items[node.number] = node
        collectors = [node for node in nodes if isinstance(node, GuestCollector)]
        return [items[number] for number in range(len(self.item_ids()))], collectors


def _number(row: dict[str, Any]) -> int:
    number: int = row["item"]["number"]
    return number


def _checked_place(place: Any) -> str:
    if place not in SCOPES:
        raise ValueError("a scope is expected")
    return str(place)


def _checked_item(item: dict[str, Any], text: Callable[[Any], str]) -> dict[str, Any]:
    path, lineno, domain = item["location"]
    if type(item["number"]) is not int:
        raise TypeError("a number is expected")
    line = maybe(integer)(lineno, text)
    marks = tuple(_checked_mark(mark, text) for mark in item["marks"])
    keywords = [text(keyword) for keyword in item["keywords"]]
    location = (text(path), line, text(domain))
    return {"number": item["number"], "location": location, "marks": marks, "keywords": keywords}


def _checked_mark(mark: dict[str, Any], text: Callable[[Any], str]) -> Mark:
    if not isinstance(mark["kwargs"], dict):
        raise TypeError("a marker's arguments are an object")
    kwargs = {text(name): value for name, value in mark["kwargs"].items()}
    return Mark(_checked_place(mark["place"]), text(mark["nodeid"]), kwargs)


def _made(row: dict[str, Any], parent: Any) -> GuestCollector | GuestItem:
    kind = GuestCollector if row["item"] is None else GuestItem
    # pytest puts an id together as it likes; of those that it is given it refuses some (before pytest 9).
    usual = row["nodeid"] == f"{parent.nodeid}::{row['name']}"
    named = {} if usual else {"nodeid": row["nodeid"]}
    try:
        node: Any = kind.from_parent(parent, name=row["name"], path=GuestPath(row["path"]), **named)
    except AssertionError as error:
        raise ProtocolError(f"the guest sent a node whose id cannot be: {row['nodeid']}") from error
    node.guest_kind, node.place = row["kind"], row["place"]
    node.obj = SimpleNamespace(__doc__=row["doc"])
    if row["item"] is not None:
        node.number, node.marks, node.location = (row["item"][key] for key in ("number", "marks", "location"))
        node.extra_keyword_matches.update(row["item"]["keywords"])
        for keyword in row["item"]["keywords"]:
            node.keywords.setdefault(keyword, True)
    made: GuestCollector | GuestItem = node
    return made
