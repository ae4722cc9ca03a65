"""syrupy's reports on single machines: checked, and merged into one. Pure.

The form is that of the report which a worker of pytest-xdist has for its
controller (syrupy.session.SnapshotSession). The controller removes what it
finds unused, so a guest may only name what is a snapshot by its place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["checked_report", "merged"]

_COLLECTIONS = ("discovered", "created", "failed", "matched", "updated", "used")
_STATUSES = (False, "passed", "failed", "skipped")
_ITEM = ("nodeid", "name", "path", "modulename", "methodname")

#: syrupy imports an extension by its name, so only its own are named.
_OWN_EXTENSION = re.compile(r"syrupy\.extensions(?:\.[a-z_]+)*\.[A-Za-z]+")


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("text that can be shown is expected")
    return value


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("an object is expected")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("a list is expected")
    return value


def _texts(value: Any) -> list[str]:
    return [_text(each) for each in _list(value)]


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
    collections = {name: _collection(_table(data.get("collections")).get(name, {})) for name in _COLLECTIONS}
    found = collections["discovered"]
    collections["discovered"] = {
        place: names for place, names in found.items() if _is_snapshot(place, root, directory)
    }
    selected = _table(data.get("selected"))
    if any(value not in _STATUSES for value in selected.values()):
        raise ValueError("a test's status is expected")
    if type(data.get("num_xfails")) is not int:
        raise ValueError("a number is expected")
    extensions = _table(data.get("extensions"))
    return {
        "collections": collections,
        "num_xfails": data["num_xfails"],
        "selected": {_text(nodeid): value for nodeid, value in selected.items()},
        "extensions": {
            _text(place): name for place, name in extensions.items() if _OWN_EXTENSION.fullmatch(_text(name))
        },
        "collected": [_item(_table(item)) for item in _list(data.get("collected") or [])],
        "collected_modules": _texts(data.get("collected_modules", [])),
    }


def _collection(value: Any) -> dict[str, list[str]]:
    return {_text(place): _texts(names) for place, names in _table(value).items()}


def _item(value: dict[str, Any]) -> dict[str, str]:
    return {name: _text(value.get(name)) for name in _ITEM}


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
