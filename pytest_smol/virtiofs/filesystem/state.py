"""The file server's part of a snapshot: all that a later server needs to go on where one stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pytest_smol.virtiofs.dependencies.comparison import NO_DEVICE, Comparison
from pytest_smol.virtiofs.dependencies.dependency import FileDependency
from pytest_smol.virtiofs.filesystem.node_table import FrozenNodes
from pytest_smol.virtiofs.view import HostPath, View

__all__ = ["TreeState"]


@dataclass(frozen=True)
class TreeState:
    """An immutable value that any number of trees may continue from at the same time.

    ``devices`` are st_dev numbers in the order in which they were met (they last
    only until the host's next boot, so see :meth:`on_host`), ``flags`` the negotiated
    flags of INIT, ``composed_misses`` the guest paths that were
    looked up in vain in directories of the view, ``composed_listings`` those of
    the directories that were listed. ``moved``: the guest may remember inode
    numbers or times that host files no longer have.
    """

    nodes: FrozenNodes = field(default_factory=FrozenNodes)
    devices: tuple[int, ...] = ()
    dependencies: tuple[FileDependency, ...] = ()
    composed_misses: frozenset[str] = frozenset()
    composed_listings: frozenset[str] = frozenset()
    flags: int = 0
    moved: bool = False

    def without_devices(self) -> TreeState:
        """This state to be kept for longer than the host runs: the devices are only counted."""
        return replace(self, devices=(NO_DEVICE,) * len(self.devices))

    def on_host(self, now: Comparison) -> TreeState:
        """This state on a host that is as ``now`` says."""
        unknown = (NO_DEVICE,) * (len(self.devices) - len(now.devices))
        return replace(self, devices=(*now.devices, *unknown), moved=now.moved)

    def outdated(self, before: View, now: View) -> bool:
        """Whether the guest, which was shown ``before``, may remember what is wrong of ``now``.

        It then has to drop its caches of directory entries and of attributes.
        """
        return (
            self.moved
            or any(now.get(path) is not None for path in self.composed_misses)
            or any(before.children.get(path) != now.children.get(path) for path in self.composed_listings)
            or any(isinstance(now.get(path), HostPath) for path in before.children)
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            **self.nodes.to_json(),
            "devices": list(self.devices),
            "dependencies": [list(row) for row in self.dependencies],
            "composed_misses": sorted(self.composed_misses),
            "composed_listings": sorted(self.composed_listings),
            "flags": self.flags,
        }

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> TreeState:
        """The inverse of :meth:`to_json`. Raises ValueError for anything else."""
        try:
            return cls(
                FrozenNodes.from_json(table),
                tuple(int(device) for device in table["devices"]),
                tuple(FileDependency.from_json(row) for row in table["dependencies"]),
                frozenset(str(path) for path in table["composed_misses"]),
                frozenset(str(path) for path in table["composed_listings"]),
                int(table["flags"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not the state of a tree: {error!r}") from error
