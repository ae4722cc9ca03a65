"""What a guest says that syrupy found, through the bridge to it and the merged report for the host's session.

The invariant: ValueError, or a report whose words are syrupy's and whose discovered files are snapshots.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fuzz.support.changes import changed
from fuzz.support.plugins import bridge_of, config_of, project, real
from fuzz.support.supply import Supply

__all__ = ["run"]

_STATUSES = (False, "passed", "failed", "skipped")


def _sample() -> dict[str, Any]:
    root = project()
    snapshot = str(root / "tests/__snapshots__/a.ambr")
    item = dict.fromkeys(("nodeid", "name", "path", "modulename", "methodname"), "x")
    return {
        "collections": {
            "discovered": {snapshot: ["name"], str(root / ".netrc"): ["x"], "/etc/passwd": ["x"]},
            "used": {snapshot: ["name"]},
            "created": {},
        },
        "selected": {"a.py::test": "passed", "a.py::other": False},
        "num_xfails": 0,
        "extensions": {snapshot: "syrupy.extensions.amber.AmberSnapshotExtension"},
        "collected": [item],
        "collected_modules": ["a"],
    }


def run(data: bytes) -> None:
    """Two reports as ``data`` changes them, merged as at the end of a run."""
    supply = Supply(data)
    merged: list[dict[str, Any]] = []
    config = config_of("syrupy")
    config._syrupy = SimpleNamespace(add_worker_report=merged.append, _selected_items={})
    bridge = bridge_of("syrupy", config)
    said = changed(_sample(), supply)
    try:
        assert bridge.take(said) == []
        assert bridge.take(json.loads(json.dumps(_sample()))) == []
    except ValueError:
        return
    bridge.finish()
    (report,) = merged
    _check(report)


def _check(report: dict[str, Any]) -> None:
    json.dumps(report).encode("utf-8")
    assert all(
        any(value is each or value == each for each in _STATUSES) for value in report["selected"].values()
    )
    for place in report["collections"]["discovered"]:
        assert "__snapshots__" in Path(place).relative_to(project()).parts[:-1], place
    data: Any = real("syrupy.data")
    for serialized in report["collections"].values() if data is not None else ():
        data.SnapshotCollections().merge_serialized(serialized)
