"""syrupy: reports on the snapshots of all machines, as its controller reports on pytest-xdist's workers."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from typing import Any

import pytest

from pytest_smol.artifacts.plugins.bridge import BasicBridge, RunLimit
from pytest_smol.artifacts.plugins.syrupy_report import checked_report, merged
from pytest_smol.artifacts.visible import VisibleFiles
from pytest_smol.reports.budget import weight

__all__ = ["SyrupyBridge"]

#: The most that a run keeps of guests' reports, in bytes.
MAX_KEPT = 256 << 20


class SyrupyBridge(BasicBridge):
    """Gives guests' reports to syrupy's session, and takes snapshots where they are updated."""

    def __init__(self, config: pytest.Config, visible: VisibleFiles) -> None:
        super().__init__(config, visible)
        self._reports: list[dict[str, Any]] = []
        self._limit = RunLimit(MAX_KEPT, f"{MAX_KEPT >> 20} MiB of syrupy's reports")
        self._directory = str(getattr(self._config.option, "snapshot_dirname", "__snapshots__"))
        writes = self.updates(config)
        if writes:
            # Not the locks and unfinished files that are next to snapshots.
            self.patterns = (rf"(?!.*\.[^./]+\.(?:lock|tmp)$)(?:.+/)?{re.escape(self._directory)}/.+",)
        # A module's snapshots are in one file, which two machines would each write without the other's.
        self.boundary = "module" if writes else None

    @staticmethod
    def updates(config: Any) -> bool:
        """Whether this run writes snapshots."""
        option = config.option
        return bool(option.update_snapshots or getattr(option, "update_new_snapshots_only", False))

    def take(self, data: dict[str, Any]) -> list[str]:
        """Keep the guest's report of its snapshots. Raises ValueError."""
        try:
            report = checked_report(data, self._config.rootpath, self._directory)
            extensions = report["extensions"]
            report["extensions"] = {place: name for place, name in extensions.items() if _is_usable(name)}
            self._limit.take(weight(report))
        except Exception:
            self.lost()
            raise
        self._reports.append(report)
        return []

    def lost(self) -> str:
        """What the machine's tests used would be taken for unused, and removed."""
        self._config.option.disable_unused_snapshots = True
        return "syrupy does not look for unused snapshots: what it knew of the VM's tests is lost with it"

    def finish(self) -> None:
        """Give the merged reports of all guests to the host's syrupy."""
        session: Any = getattr(self._config, "_syrupy", None)
        if not self._reports or not hasattr(session, "add_worker_report"):
            return
        if not hasattr(self._config, "workerinput"):
            selected = {nodeid: status.value for nodeid, status in session._selected_items.items()}
            own = {"collections": {}, "num_xfails": 0, "selected": selected, "extensions": {}}
            session.add_worker_report(merged([*self._reports, own]))

    def closing(self) -> None:
        """In a worker of pytest-xdist the guests' reports go with the worker's own."""
        output = getattr(self._config, "workeroutput", {})
        if self._reports and isinstance(output.get("syrupy_report"), dict):
            module: Any = sys.modules["syrupy.session"]
            own = dict(output["syrupy_report"])
            for key in ("collections", "collected"):
                if isinstance(own.get(key), bytes):
                    own[key] = module.decompress_json(own[key])
            output["syrupy_report"] = merged([own, *self._reports])


def _is_usable(name: str) -> bool:
    """Whether ``name``, which is below syrupy.extensions, is an extension that can be made.

    syrupy makes one of each name without arguments.
    """
    module, _, kind = name.rpartition(".")
    try:
        base = importlib.import_module("syrupy.extensions.base").AbstractSyrupyExtension
        found = getattr(importlib.import_module(module), kind, None)
    except (ImportError, AttributeError):
        return False
    return isinstance(found, type) and issubclass(found, base) and not inspect.isabstract(found)
