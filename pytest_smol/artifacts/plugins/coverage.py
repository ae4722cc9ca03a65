"""pytest-cov: guests' lines and arcs go to a data file of their own, which it combines with the host's."""

from __future__ import annotations

import os
import secrets
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from pytest_smol.artifacts.plugins.bridge import BasicBridge, RunLimit
from pytest_smol.artifacts.plugins.shapes import Shape, checked, integer, list_of, maybe, printable, row
from pytest_smol.artifacts.visible import VisibleFiles

__all__ = ["CoverageBridge"]

#: The most lines of a file; the file on the host sets the real limit.
MAX_LINES = 1 << 20

#: The most contexts of a run: a test has up to three.
MAX_CONTEXTS = 300_000

#: The most that a run keeps of the names of files and contexts, in bytes of memory.
MAX_NAMES = 256 << 20

#: What an entry of a set or dictionary takes beyond the name, in bytes.
_ENTRY = 128

#: The largest that the data file of a run becomes, in bytes.
MAX_DATA_FILE = 1 << 30

#: The most rows of one message.
_MAX_ROWS = 10_000


def _numbits(value: Any) -> bytes:
    """Line numbers as coverage.numbits has them: line n is bit n % 8 of byte n // 8."""
    if not isinstance(value, str) or len(value) > MAX_LINES // 4 + 2:
        raise ValueError(f"at most {MAX_LINES} lines are expected")
    return bytes.fromhex(value)


#: Negative lines stand for entries and exits.
_line = integer(-MAX_LINES, MAX_LINES)


def _rows(*shapes: Shape) -> Shape:
    return lambda value: list_of(row(*shapes), _MAX_ROWS)([] if value is None else value)


#: The tables of coverage's data file, as far as they are sent.
_DATA: Mapping[str, Shape] = {
    "lines": _rows(printable, printable, _numbits),
    "arcs": _rows(printable, printable, _line, _line),
    "tracers": _rows(printable, maybe(printable)),
}


class CoverageBridge(BasicBridge):
    """Takes what guests measured of files that they were shown and that coverage's settings name."""

    def __init__(self, config: pytest.Config, visible: VisibleFiles) -> None:
        super().__init__(config, visible)
        self._data: Any = None
        self._files: dict[str, int] = {}
        self._left_out: dict[str, str] = {}
        self._contexts: set[str] = set()
        self._names = RunLimit(MAX_NAMES, f"{MAX_NAMES >> 20} MiB of names of files and contexts")

    def take(self, data: dict[str, Any]) -> list[str]:
        """Write what the guest measured to a data file that pytest-cov combines. Raises ValueError."""
        rows = checked(data, _DATA)
        self._check(rows)
        target = self._target()
        self._left_out = {}
        for context, lines in self._lines_by_context(rows["lines"]).items():
            target.set_context(context)
            target.add_lines(lines)
        for context, arcs in self._arcs_by_context(rows["arcs"]).items():
            target.set_context(context)
            target.add_arcs(arcs)
        tracers = {path: tracer for path, tracer in rows["tracers"] if tracer and self._lines_of(path)}
        if tracers:
            target.add_file_tracers(tracers)
        target.close()
        return [f"{path}: {reason}" for path, reason in self._left_out.items()]

    def _check(self, rows: Mapping[str, list[tuple[Any, ...]]]) -> None:
        """Refuse what would make the data unfit for this run's report."""
        cov = self._config.pluginmanager.get_plugin("_cov").cov_controller.cov
        if rows["lines" if cov.config.branch else "arcs"]:
            raise ValueError("lines are expected without --cov-branch, and arcs with it")
        known = {each._coverage_plugin_name for each in cov._plugins.file_tracers}
        if any(tracer and tracer not in known for _, tracer in rows["tracers"]):
            raise ValueError("a file tracer of this run is expected")
        measured = rows["arcs" if cov.config.branch else "lines"]
        contexts = {each[0] for each in measured} - self._contexts
        paths = {each[1] for each in measured} | {each[0] for each in rows["tracers"]}
        if len(self._contexts) + len(contexts) > MAX_CONTEXTS:
            raise ValueError(f"at most {MAX_CONTEXTS} contexts are expected")
        self._names.take(
            sum(sys.getsizeof(name) + _ENTRY for name in contexts | (paths - self._files.keys()))
        )
        self._contexts |= contexts
        if self._data is not None and _size(self._data.data_filename()) > MAX_DATA_FILE:
            raise ValueError(f"at most {MAX_DATA_FILE >> 20} MiB of data are expected")

    def _target(self) -> Any:
        if self._data is None:
            controller = self._config.pluginmanager.get_plugin("_cov").cov_controller
            cov = controller.cov
            # What no code on the host did, guests did.
            cov._warn_no_data = cov._warn_unimported_source = False
            base = os.path.join(controller.topdir, cov.config.data_file)
            kind = sys.modules["coverage"].CoverageData
            self._data = kind(basename=base, suffix=f"smol.{os.getpid()}.{secrets.token_hex(4)}")
        return self._data

    def _lines_of(self, path: str) -> int:
        """How many lines a file has that a guest may have measured, 0 where it may not."""
        if path not in self._files:
            self._files[path] = 0
            reason = self._visible.refusal(path)
            if reason:
                self._left_out[path] = reason
            elif self._is_measured(path):
                self._files[path] = self._visible.count_lines(path, MAX_LINES)
        return self._files[path]

    def _is_measured(self, path: str) -> bool:
        """Whether coverage's ``source``, ``include`` and ``omit`` take the file."""
        cov = self._config.pluginmanager.get_plugin("_cov").cov_controller.cov
        rules = getattr(cov, "_inorout", None)
        if rules is None or rules.check_include_omit_etc(path, None) is None:
            return True
        # A package that source names is known by its module's name, which the host has not imported.
        omitted = rules.omit_match is not None and rules.omit_match.match(path)
        return not omitted and any(_is_of(path, str(package)) for package in rules.source_pkgs)

    def _lines_by_context(self, rows: Iterable[tuple[str, str, bytes]]) -> dict[str, dict[str, list[int]]]:
        found: dict[str, dict[str, list[int]]] = defaultdict(dict)
        for context, path, numbits in rows:
            most = self._lines_of(path)
            if not most:
                continue
            if len(numbits) > most // 8 + 1:
                self._left_out[path] = f"the file on the host has {most} lines"
                continue
            lines = [8 * at + bit for at, byte in enumerate(numbits) for bit in range(8) if byte >> bit & 1]
            # A module without statements has line 0 (seen with Python 3.11).
            found[context].setdefault(path, []).extend(line for line in lines if line <= most)
        return found

    def _arcs_by_context(
        self, rows: Iterable[tuple[str, str, int, int]]
    ) -> dict[str, dict[str, list[tuple[int, int]]]]:
        found: dict[str, dict[str, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
        for context, path, begin, end in rows:
            most = self._lines_of(path)
            if most and max(abs(begin), abs(end)) > most:
                self._left_out[path] = f"the file on the host has {most} lines"
            elif most:
                found[context][path].append((begin, end))
        return {context: dict(arcs) for context, arcs in found.items()}

    def lost(self) -> str:
        """What was measured in a lost machine is missing."""
        return "what coverage measured in the VM is lost with it"

    def closing(self) -> None:
        """Leave nothing to the next run that pytest-cov did not combine; its controller does so later."""
        if self._data is not None and not hasattr(self._config, "workerinput"):
            self._data.erase()


def _is_of(path: str, package: str) -> bool:
    """Whether a path can be that of a module in ``package``."""
    place = "/" + package.replace(".", "/")
    return f"{place}/" in path or path.endswith(f"{place}.py")


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0
