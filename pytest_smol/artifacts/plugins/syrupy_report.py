"""syrupy's reports on single machines: checked, and merged into one. Pure.

The form is that of the report which a worker of pytest-xdist has for its
controller (syrupy.session.SnapshotSession). The controller removes what it
finds unused, so a guest may only name what is a snapshot by its place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_smol.artifacts.plugins.shapes import (
    MAX_INTEGER,
    Shape,
    checked,
    integer,
    list_of,
    one_of,
    printable,
    table_of,
)

__all__ = ["checked_report", "merged"]

_COLLECTIONS = ("discovered", "created", "failed", "matched", "updated", "used")
_ITEM = ("nodeid", "name", "path", "modulename", "methodname")

_collection = table_of(printable, list_of(printable))


def _collections(value: Any) -> dict[str, dict[str, list[str]]]:
    if not isinstance(value, dict):
        raise ValueError("an object is expected")
    return {name: _collection(value.get(name, {})) for name in _COLLECTIONS}


def _item(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("an object is expected")
    return checked(value, dict.fromkeys(_ITEM, printable))


#: The form of syrupy.session.SnapshotSession's report. The status of a test that did not run is false.
_REPORT: Mapping[str, Shape] = {
    "collections": _collections,
    "num_xfails": integer(0, MAX_INTEGER),
    "selected": table_of(printable, one_of(False, "passed", "failed", "skipped")),
    "extensions": table_of(printable, printable),
    "collected": lambda value: list_of(_item)([] if value is None else value),
    "collected_modules": lambda value: list_of(printable)([] if value is None else value),
}

#: syrupy imports an extension by its name, so only its own are named.
_OWN_EXTENSION = re.compile(r"syrupy\.extensions(?:\.[a-z_]+)*\.[A-Za-z]+")


def _is_snapshot(location: str, root: Path, directory: str) -> bool:
    """Whether ``location`` is a file in a directory of snapshots below ``root``, through no symbolic link."""
    path = Path(location)
    if not path.is_absolute() or ".." in path.parts or root not in path.parents:
        return False
    below = path.relative_to(root).parts
    way = [root.joinpath(*below[:length]) for length in range(1, len(below) + 1)]
    # os.path takes a name that no file can have for one that is not there.
    return directory in below[:-1] and os.path.isfile(path) and not any(map(os.path.islink, way))


def checked_report(data: dict[str, Any], root: Path, directory: str) -> dict[str, Any]:
    """A guest's report in its own form and nothing else. Raises ValueError.

    ``directory`` is the name of directories that hold snapshots. What is found
    elsewhere is left out: it would be removed if no test used it.
    """
    report = checked(data, _REPORT)
    found = report["collections"]["discovered"]
    report["collections"]["discovered"] = {
        place: names for place, names in found.items() if _is_snapshot(place, root, directory)
    }
    names = report["extensions"]
    report["extensions"] = {place: name for place, name in names.items() if _OWN_EXTENSION.fullmatch(name)}
    return report


def merged(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One report for all: of a test's statuses the one that says how it ended."""
    collections: dict[str, dict[str, dict[str, None]]] = {name: {} for name in _COLLECTIONS}
    selected: dict[str, Any] = {}
    for report in reports:
        for nodeid, status in report["selected"].items():
            selected[nodeid] = selected.get(nodeid) or status
        for name, places in report["collections"].items():
            for place, names in places.items():
                collections[name].setdefault(place, {}).update(dict.fromkeys(names))
    return {
        "collections": {
            name: {place: list(names) for place, names in places.items()}
            for name, places in collections.items()
        },
        "num_xfails": sum(report["num_xfails"] for report in reports),
        "selected": selected,
        "extensions": {place: name for report in reports for place, name in report["extensions"].items()},
        "collected": next((found for report in reports if (found := report.get("collected"))), []),
        "collected_modules": sorted(
            {name for report in reports for name in report.get("collected_modules", ())}
        ),
    }
