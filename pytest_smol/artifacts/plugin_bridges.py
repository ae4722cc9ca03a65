"""What plugins gathered in guests, given to the same plugins on the host, which then end as they always do.

None of these plugins is imported here: one that is in use has been loaded by
pytest, or by the user. What comes from a guest is plain data (see
guest/artifacts/plugin_bridges.py), and is checked before a plugin sees it.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any, Protocol

import pytest

from pytest_smol.artifacts.syrupy_data import checked_report, merged

__all__ = ["PluginBridge", "in_use"]

#: The longest set of line numbers of one file, in bytes: a bit for each line.
_MAX_NUMBITS = 1 << 20

#: The greatest line number; negative ones stand for entries and exits.
_MAX_LINE = 1 << 31

#: The longest time that a benchmark may have measured, in seconds: a year.
_MAX_TIME = 366 * 86400

#: The names that hypothesis.database gives to keys and values: the start of a digest, without a suffix.
_HYPOTHESIS_EXAMPLE = r"(?:.+/)?[0-9a-f]{16}/[0-9a-f]{16}"

#: What else hypothesis keeps in its directory; none of it is a program's text.
_HYPOTHESIS_CACHE = (
    r"(?:.+/)?\.hypothesis/(?:\.gitignore|constants/[0-9a-f]{16}|unicode_data/[0-9.]+/[a-z]+\.json\.gz)"
)


class PluginBridge(Protocol):
    """One plugin of the host's."""

    @property
    def patterns(self) -> tuple[str, ...]:
        """Regular expressions of the files that the plugin in the guest writes, and that come home."""

    @property
    def tells(self) -> bool:
        """Whether the plugin in a guest has something to tell when its machine ends."""

    @property
    def boundary(self) -> str | None:
        """The least scope that may share a machine, where it matters."""

    def take(self, data: dict[str, Any]) -> None:
        """Take what a guest's plugin gathered. Raises ValueError for what it cannot be."""

    def lost(self) -> str:
        """A machine is gone before it told all; what the user should know of that, or nothing."""

    def finish(self) -> None:
        """Give the plugin all that was taken, before its own end of the run."""

    def closing(self) -> None:
        """The plugin's own end of the run is over."""


class _Plain:
    """An bridge that only names files."""

    patterns: tuple[str, ...] = ()
    tells = True
    boundary: str | None = None

    def __init__(self, config: pytest.Config) -> None:
        self._config: Any = config

    def take(self, data: dict[str, Any]) -> None:
        raise ValueError("nothing is expected")

    def lost(self) -> str:
        return ""

    def finish(self) -> None:
        return

    def closing(self) -> None:
        return


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("text that can be shown is expected")
    return value


def _number(value: Any) -> int:
    if type(value) is not int or abs(value) > _MAX_LINE:
        raise ValueError("a line number is expected")
    return value


def _rows(data: Mapping[str, Any], key: str, length: int) -> list[list[Any]]:
    rows = data.get(key, [])
    if not isinstance(rows, list) or any(not isinstance(row, list) or len(row) != length for row in rows):
        raise ValueError(f"{key} are rows of {length}")
    return rows


class _Coverage(_Plain):
    """pytest-cov: lines and arcs go to a data file of their own, which it combines with the host's."""

    def __init__(self, config: pytest.Config) -> None:
        super().__init__(config)
        self._data: Any = None

    def take(self, data: dict[str, Any]) -> None:
        target = self._target()
        tracers = {_text(path): _text(tracer) for path, tracer in _rows(data, "tracers", 2) if tracer}
        for context, lines in _lines_by_context(data).items():
            target.set_context(context)
            target.add_lines(lines)
        for context, arcs in _arcs_by_context(data).items():
            target.set_context(context)
            target.add_arcs(arcs)
        if tracers:
            target.add_file_tracers(tracers)
        target.close()

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

    def lost(self) -> str:
        return "what coverage measured in the VM is lost with it"

    def closing(self) -> None:
        """Leave nothing to the next run that pytest-cov did not combine; its controller does so later."""
        if self._data is not None and not hasattr(self._config, "workerinput"):
            self._data.erase()


def _lines_by_context(data: Mapping[str, Any]) -> dict[str, dict[str, Iterable[int]]]:
    found: dict[str, dict[str, Iterable[int]]] = defaultdict(dict)
    for context, path, numbits in _rows(data, "lines", 3):
        if len(_text(numbits)) > 2 * _MAX_NUMBITS:
            raise ValueError("too many lines")
        lines = enumerate(bytes.fromhex(numbits))
        # coverage.numbits: line n is bit n % 8 of byte n // 8.
        found[_text(context)][_text(path)] = [
            8 * at + bit for at, byte in lines for bit in range(8) if byte >> bit & 1
        ]
    return found


def _arcs_by_context(data: Mapping[str, Any]) -> dict[str, dict[str, Iterable[tuple[int, int]]]]:
    found: dict[str, dict[str, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
    for context, path, begin, end in _rows(data, "arcs", 4):
        found[_text(context)][_text(path)].append((_number(begin), _number(end)))
    return {context: dict(arcs) for context, arcs in found.items()}


class _Hypothesis(_Plain):
    """The example database: failing examples are tried first by the next run. And what takes long to make."""

    patterns = (_HYPOTHESIS_EXAMPLE, _HYPOTHESIS_CACHE)
    tells = False


class _Syrupy(_Plain):
    """syrupy reports on all machines as its controller does on pytest-xdist's workers."""

    def __init__(self, config: pytest.Config) -> None:
        super().__init__(config)
        self._reports: list[dict[str, Any]] = []
        option = self._config.option
        self._directory = str(getattr(option, "snapshot_dirname", "__snapshots__"))
        writes = option.update_snapshots or getattr(option, "update_new_snapshots_only", False)
        if writes:
            # Not the locks and unfinished files that lie beside snapshots.
            self.patterns = (rf"(?!.*\.[^./]+\.(?:lock|tmp)$)(?:.+/)?{re.escape(self._directory)}/.+",)
        # A module's snapshots are in one file, which two machines would each write without the other's.
        self.boundary = "module" if writes else None

    def take(self, data: dict[str, Any]) -> None:
        self._reports.append(checked_report(data, self._config.rootpath, self._directory))

    def lost(self) -> str:
        """What the machine's tests used would be taken for unused, and removed."""
        self._config.option.disable_unused_snapshots = True
        return "syrupy does not look for unused snapshots: what it knew of the VM's tests is lost with it"

    def finish(self) -> None:
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


class _Benchmark(_Plain):
    """pytest-benchmark: one table for the benchmarks of all machines, with the times measured there."""

    def take(self, data: dict[str, Any]) -> None:
        fields: dict[str, Any] = {name: _text(data.get(name)) for name in ("name", "fullname")}
        fields |= {name: data.get(name) for name in ("group", "param", "params", "extra_info")}
        times = data.get("data")
        if not isinstance(times, list) or not all(map(_is_time, times)):
            raise ValueError("times are expected")
        if not times and data.get("has_error") is not True:
            raise ValueError("a benchmark without times failed")
        if type(data.get("iterations")) is not int or not isinstance(data.get("options"), dict):
            raise ValueError("a benchmark has iterations and options")
        for name in ("group", "param"):
            if fields[name] is not None:
                _text(fields[name])
        fixture = SimpleNamespace(**fields, has_error=data.get("has_error") is True, cprofile_stats=None)
        stats: Any = sys.modules["pytest_benchmark.stats"]
        bench = stats.Metadata(fixture, data["iterations"], data["options"])
        bench.stats.data = times
        self._config._benchmarksession.benchmarks.append(bench)


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < _MAX_TIME


def _loaded(name: str) -> Callable[[pytest.Config], bool]:
    def check(config: pytest.Config) -> bool:
        module = sys.modules.get(name)
        return module is not None and config.pluginmanager.is_registered(module)

    return check


def _measures(config: pytest.Config) -> bool:
    plugin = config.pluginmanager.get_plugin("_cov")
    return plugin is not None and not getattr(plugin, "_disabled", False)


#: By the name that the guest has for the plugin: how to know that it is in use, and what adapts to it.
_TABLE: Mapping[str, tuple[Callable[[pytest.Config], bool], Callable[[pytest.Config], PluginBridge]]] = {
    "coverage": (_measures, _Coverage),
    "hypothesis": (_loaded("_hypothesis_pytestplugin"), _Hypothesis),
    "syrupy": (_loaded("syrupy"), _Syrupy),
    "benchmark": (_loaded("pytest_benchmark.plugin"), _Benchmark),
}


def keep_files_whole(config: pytest.Config) -> None:
    """Let pytest-xdist give the tests of a file to one worker where a machine is to have them all."""
    spread = getattr(config.option, "dist", "no") in ("load", "worksteal")
    if spread and any(bridge.boundary == "module" for bridge in in_use(config).values()):
        config.option.dist = "loadfile"


def in_use(config: pytest.Config) -> dict[str, PluginBridge]:
    """The bridges of the plugins that this run has, by name."""
    return {name: make(config) for name, (is_in_use, make) in _TABLE.items() if is_in_use(config)}
