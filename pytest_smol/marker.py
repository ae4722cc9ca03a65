"""The ``smol`` marker: where it stands, and what its arguments ask for. Used on both sides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from pytest_smol.errors import SettingError
from pytest_smol.setting_values import choice, cpus, disks, memory, seconds
from pytest_smol.settings import SCOPES, converted

__all__ = ["Mark", "MarkerArguments", "marker_arguments", "marks_of", "place"]

#: For pytest's --markers.
DESCRIPTION = (
    "smol(scope=None, memory=None, timeout=None, user=None, cpus=None, disks=None, nested=False, "
    "untrusted=False): "
    "run the test in a microVM"
)


def _flag(value: object) -> bool:
    """``value`` as True or False. Raises ValueError for anything else."""
    if not isinstance(value, bool):
        raise ValueError("True or False is expected")
    return value


_ARGUMENTS: Mapping[str, Callable[[Any], Any]] = {
    "scope": choice(SCOPES),
    "memory": memory,
    "timeout": seconds,
    "user": choice(("host", "root")),
    "untrusted": _flag,
    "cpus": cpus,
    "disks": disks,
    "nested": _flag,
}


@dataclass(frozen=True)
class Mark:
    """One marker: the scope that its place stands for, the node it is on, its arguments."""

    place: str
    nodeid: str
    kwargs: Mapping[str, Any]


def place(node: Any) -> str:
    """The scope whose boundary a marker on ``node`` draws."""
    kinds = ((pytest.Item, "test"), (pytest.Class, "class"), (pytest.Module, "module"))
    return next((scope for kind, scope in kinds if isinstance(node, kind)), "session")


def marks_of(item: pytest.Item) -> list[Mark]:
    """The ``smol`` markers of a test, closest first. Raises :class:`SettingError`."""
    marks = []
    for node, mark in item.iter_markers_with_node("smol"):
        if mark.args:
            raise SettingError(
                f"{item.nodeid}: the smol marker takes no positional arguments", remedy=DESCRIPTION
            )
        marks.append(Mark(place(node), node.nodeid, mark.kwargs))
    return marks


@dataclass(frozen=True)
class MarkerArguments:
    """What the markers of one test ask for; None where nothing is said. ``disks`` are sizes in bytes."""

    scope: str | None = None
    memory: int | None = None
    timeout: float | None = None
    user: str | None = None
    untrusted: bool | None = None
    cpus: int | None = None
    disks: tuple[int, ...] | None = None
    nested: bool | None = None


def marker_arguments(nodeid: str, marks: Sequence[Mark]) -> MarkerArguments:
    """The arguments of a test's markers, closest first. Raises :class:`SettingError`."""
    merged: dict[str, Any] = {}
    for mark in reversed(marks):
        merged.update(mark.kwargs)
    unknown = merged.keys() - _ARGUMENTS.keys()
    if unknown:
        raise SettingError(
            f"{nodeid}: the smol marker has no argument {', '.join(sorted(unknown))}", remedy=DESCRIPTION
        )
    return MarkerArguments(
        **{
            name: converted(_ARGUMENTS[name], value, f"{nodeid}: @pytest.mark.smol: {name}", DESCRIPTION)
            for name, value in merged.items()
            if value is not None
        }
    )
