"""What a guest says that coverage measured, through the bridge to pytest-cov.

The invariant: ValueError, or lines and arcs within files of the project that a guest is shown.
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from functools import cache
from types import ModuleType
from typing import Any, cast

from fuzz.support.changes import changed
from fuzz.support.plugins import LINES, bridge_of, config_of, in_place, project
from fuzz.support.supply import Supply

__all__ = ["checked_coverage", "run"]


def _sample() -> dict[str, Any]:
    a, b = (str(project() / name) for name in ("a.py", "tests/b.py"))
    return {
        "lines": [["", a, "0601"], ["test|run", b, "80"], ["", str(project() / ".netrc"), "02"]],
        "arcs": [["", a, -1, 2], ["test|run", b, 3, -1]],
        "tracers": [[a, "plugin.x"], [b, ""], [a, None]],
    }


class _CheckedData:
    """A data file that holds what it is given against the files of the project."""

    def __init__(self, basename: str, suffix: str) -> None:
        self._name = f"{basename}.{suffix}"
        self._context = ""

    def set_context(self, context: str) -> None:
        """As coverage's."""
        assert context.isprintable()
        self._context = context

    def add_lines(self, lines: dict[str, Any]) -> None:
        """Check lines or arcs by path."""
        for path, found in lines.items():
            assert path in (str(project() / "a.py"), str(project() / "tests/b.py")), path
            for each in found:
                numbers = each if isinstance(each, tuple) else (each,)
                assert max(map(abs, numbers)) <= LINES + 1, each

    add_arcs = add_lines

    def add_file_tracers(self, tracers: dict[str, str]) -> None:
        """Check tracers by path."""
        assert set(tracers.values()) <= {"plugin.x"}

    def close(self) -> None:
        """As coverage's."""

    def data_filename(self) -> str:
        """As coverage's."""
        return self._name


def checked_coverage() -> AbstractContextManager[None]:
    """Let coverage be the stand-in that checks, meanwhile."""
    return in_place(coverage=_module())


@cache
def _module() -> ModuleType:
    module: Any = ModuleType("coverage")
    module.CoverageData = _CheckedData
    return cast(ModuleType, module)


def run(data: bytes) -> None:
    """The message that ``data`` makes of the sample, twice to one run."""
    supply = Supply(data)
    branch = bool(supply.number() % 2)
    sample = _sample()
    del sample["lines" if branch else "arcs"]
    bridge = bridge_of("coverage", config_of("coverage", branch))
    said = changed(sample, supply)
    try:
        with checked_coverage():
            for each in (said, json.loads(json.dumps(said))):
                problems = bridge.take(each)
                assert all(isinstance(text, str) for text in problems)
    except ValueError:
        return
