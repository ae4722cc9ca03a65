"""Node ids: which path each number that the guest holds stands for.

A node id is valid in one machine only. Paths are made of names that the guest has looked up.

A table is layered: forks share the frozen table of the snapshot they continue
from, and each keeps only what it changed. So a fork of a snapshot with any
number of nodes costs nothing.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pytest_smol.virtiofs.fuse import ROOT_ID

__all__ = ["FrozenNodes", "Node", "NodeTable"]

LIMIT = 1 << 19
"""How many nodes a guest may hold: more than files in a full /usr, about 200 MB of the host's memory."""


class Node(NamedTuple):
    """``path`` is the guest's, absolute, ``b""`` for the root; ``kind`` is its S_IFMT bits.

    ``kind`` is 0 once the path has come to be something else: what the guest
    holds is then stale. ``nlookup`` is how often the guest was given the node.
    """

    path: bytes
    kind: int
    nlookup: int


ROOT = Node(b"", stat.S_IFDIR, 1)


@dataclass(frozen=True)
class FrozenNodes:
    """An immutable table of nodes, and the next id that was never given out."""

    nodes: Mapping[int, Node] = field(default_factory=lambda: {ROOT_ID: ROOT})
    next_id: int = ROOT_ID + 1
    ids: Mapping[bytes, int] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", {node.path: id_ for id_, node in self.nodes.items() if node.kind})

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form; names that are no UTF-8 are kept by surrogateescape."""
        rows = [[id_, os.fsdecode(node.path), node.kind, node.nlookup] for id_, node in self.nodes.items()]
        return {"next_id": self.next_id, "nodes": rows}

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> FrozenNodes:
        """The inverse of :meth:`to_json`. Raises ValueError for anything else."""
        try:
            next_id = int(table["next_id"])
            nodes = dict(_node(row, next_id) for row in table["nodes"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a table of nodes: {error!r}") from error
        if nodes.get(ROOT_ID, ROOT)[:2] != ROOT[:2] or ROOT_ID not in nodes:
            raise ValueError("a table of nodes has no root")
        return cls(nodes, next_id)


def _node(row: Iterable[Any], next_id: int) -> tuple[int, Node]:
    id_, path, kind, nlookup = row
    node = Node(os.fsencode(path), int(kind), int(nlookup))
    # A path with ".." in it would lead out of what the view shows.
    proper = path == "" or (path[0] == "/" and {"", ".", ".."}.isdisjoint(path[1:].split("/")))
    if not proper or "\0" in path or not ROOT_ID <= id_ < next_id:
        raise ValueError(f"not a node: {id_} {path!r}")
    return id_, node


class NodeTable:
    """A frozen table and what has changed since. Ids are never used again."""

    def __init__(self, base: FrozenNodes, limit: int = LIMIT) -> None:
        self._limit = limit
        self._base_nodes = base.nodes
        self._base_ids = base.ids
        self._nodes: dict[int, Node | None] = {}  # None: forgotten
        self._ids: dict[bytes, int | None] = {}
        self._next_id = base.next_id

    def get(self, nodeid: int) -> Node | None:
        """The node of that id, or None if it was never given out or is forgotten."""
        if nodeid in self._nodes:
            return self._nodes[nodeid]
        return self._base_nodes.get(nodeid)

    def find(self, path: bytes) -> int | None:
        """The id under which the guest knows ``path`` now."""
        if path in self._ids:
            return self._ids[path]
        return self._base_ids.get(path)

    def enter(self, path: bytes, kind: int) -> int:
        """Give ``path`` to the guest once more; the id it has for it.

        A path that was of another kind before gets a new id, and the old one is
        stale. Raises OSError: ENFILE for a guest that holds all it may, until it
        forgets some.
        """
        nodeid = self.find(path)
        node = self.get(nodeid) if nodeid is not None else None
        if nodeid is not None and node is not None:
            if node.kind == kind:
                self._nodes[nodeid] = Node(path, kind, node.nlookup + 1)
                return nodeid
            self.stale(nodeid)
        if len(self._nodes) >= self._limit:
            raise OSError(errno.ENFILE, "too many nodes")
        nodeid = self._next_id
        self._next_id += 1
        self._nodes[nodeid] = Node(path, kind, 1)
        self._ids[path] = nodeid
        return nodeid

    def stale(self, nodeid: int) -> None:
        """The path of this node has become something else."""
        node = self.get(nodeid)
        if node is not None and nodeid != ROOT_ID:
            self._nodes[nodeid] = node._replace(kind=0)
            self._forget_path(node.path, nodeid)

    def _forget_path(self, path: bytes, nodeid: int) -> None:
        """The path has that id no more. What the frozen table knows is overlaid, anything else removed."""
        if self.find(path) != nodeid:
            return
        if path in self._base_ids:
            self._ids[path] = None
        else:
            del self._ids[path]

    def forget(self, nodeid: int, nlookup: int) -> bool:
        """The guest drops the node ``nlookup`` times; whether it is gone now."""
        node = self.get(nodeid)
        if node is None or nodeid == ROOT_ID:
            return False
        if nlookup < node.nlookup:
            self._nodes[nodeid] = node._replace(nlookup=node.nlookup - nlookup)
            return False
        if nodeid in self._base_nodes:
            self._nodes[nodeid] = None
        else:
            del self._nodes[nodeid]
        self._forget_path(node.path, nodeid)
        return True

    def freeze(self) -> FrozenNodes:
        """The table as it is now, as a value."""
        merged = {**self._base_nodes, **self._nodes}
        nodes = {nodeid: node for nodeid, node in merged.items() if node is not None}
        return FrozenNodes(nodes, self._next_id)
