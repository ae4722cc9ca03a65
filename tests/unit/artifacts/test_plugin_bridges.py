"""What guests' plugins gathered: checked before the host's plugins see it. The plugins are stand-ins here."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pytest_smol.artifacts import plugin_bridges


class Data:
    """A stand-in for coverage.CoverageData."""

    made: list[Data]

    def __init__(self, basename: str, suffix: str) -> None:
        self.name = f"{basename}.{suffix}"
        self.context = ""
        self.added: list[tuple[str, str, Any]] = []
        self.tracers: dict[str, str] = {}
        self.erased = False
        Data.made.append(self)

    def set_context(self, context: str) -> None:
        self.context = context

    def add_lines(self, lines: dict[str, Any]) -> None:
        self.added += [(self.context, path, sorted(found)) for path, found in lines.items()]

    add_arcs = add_lines

    def add_file_tracers(self, tracers: dict[str, str]) -> None:
        self.tracers.update(tracers)

    def close(self) -> None: ...

    def erase(self) -> None:
        self.erased = True


def plugins(**named: Any) -> Any:
    return SimpleNamespace(get_plugin=named.get, is_registered=lambda plugin: plugin in named.values())


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A run with stand-ins for pytest-cov and pytest-benchmark."""
    Data.made = []
    coverage: Any = ModuleType("coverage")
    coverage.CoverageData = Data
    monkeypatch.setitem(sys.modules, "coverage", coverage)
    stats: Any = ModuleType("pytest_benchmark.stats")
    stats.Metadata = lambda fixture, iterations, options: SimpleNamespace(
        fixture=fixture, iterations=iterations, options=options, stats=SimpleNamespace(data=[])
    )
    monkeypatch.setitem(sys.modules, "pytest_benchmark.stats", stats)
    benchmark = ModuleType("pytest_benchmark.plugin")
    monkeypatch.setitem(sys.modules, "pytest_benchmark.plugin", benchmark)
    cov = SimpleNamespace(config=SimpleNamespace(data_file=".coverage"))
    controller = SimpleNamespace(cov=cov, topdir=str(tmp_path))
    return SimpleNamespace(
        pluginmanager=plugins(_cov=SimpleNamespace(cov_controller=controller), benchmark=benchmark),
        option=SimpleNamespace(dist="load"),
        rootpath=tmp_path,
        _benchmarksession=SimpleNamespace(benchmarks=[]),
    )


def test_only_plugins_that_are_in_use_are_adapted_to(config: Any) -> None:
    assert list(plugin_bridges.in_use(config)) == ["coverage", "benchmark"]
    config.pluginmanager = plugins(_cov=SimpleNamespace(_disabled=True))
    assert plugin_bridges.in_use(config) == {}


def test_lines_arcs_and_tracers_are_added_in_their_contexts(config: Any, tmp_path: Path) -> None:
    coverage = plugin_bridges.in_use(config)["coverage"]
    coverage.take({"lines": [["", "/a.py", "0601"], ["test|run", "/a.py", "80"]]})
    coverage.take({"arcs": [["", "/b.py", -1, 2], ["", "/b.py", 2, -1]]})
    coverage.take({"tracers": [["/a.py", "plugin.x"], ["/b.py", ""]]})
    (data,) = Data.made
    assert data.added == [
        ("", "/a.py", [1, 2, 8]),
        ("test|run", "/a.py", [7]),
        ("", "/b.py", [(-1, 2), (2, -1)]),
    ]
    assert data.tracers == {"/a.py": "plugin.x"}
    assert data.name.startswith(f"{tmp_path}/.coverage.smol.")
    coverage.closing()
    assert data.erased


def test_a_workers_data_are_left_to_its_controller(config: Any) -> None:
    config.workerinput = {}
    coverage = plugin_bridges.in_use(config)["coverage"]
    coverage.take({"lines": [["", "/a.py", "06"]]})
    coverage.closing()
    assert not Data.made[0].erased


@pytest.mark.parametrize(
    "data",
    [
        {"lines": {}},
        {"lines": [["", "/a.py"]]},
        {"lines": [["", "/a.py", "0"]]},
        {"lines": [["", "/a\x1b.py", "06"]]},
        {"lines": [["", 1, "06"]]},
        {"lines": [["", "/a.py", "ff" * ((1 << 20) + 1)]]},
        {"arcs": [["", "/a.py", 1, "2"]]},
        {"arcs": [["", "/a.py", 1, True]]},
        {"arcs": [["", "/a.py", 1, 1 << 40]]},
        {"tracers": [["/a.py", 1]]},
    ],
)
def test_what_nothing_measured(config: Any, data: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - bytes.fromhex has texts of its own
        plugin_bridges.in_use(config)["coverage"].take(data)
    assert not any(each.added or each.tracers for each in Data.made)


BENCHMARK = {
    "name": "test_it",
    "fullname": "test_a.py::test_it",
    "group": None,
    "param": None,
    "params": None,
    "extra_info": {"a": 1},
    "iterations": 2,
    "options": {},
    "has_error": False,
    "data": [0.5, 1],
}


def test_a_benchmark_joins_the_hosts(config: Any) -> None:
    plugin_bridges.in_use(config)["benchmark"].take(dict(BENCHMARK))
    (bench,) = config._benchmarksession.benchmarks
    assert bench.stats.data == [0.5, 1]
    assert bench.fixture.extra_info == {"a": 1}


@pytest.mark.parametrize(
    "changes",
    [
        {"name": None},
        {"fullname": "a\x1b"},
        {"group": 1},
        {"param": "a\n"},
        {"iterations": "2"},
        {"options": []},
        {"data": "1"},
        {"data": [-1]},
        {"data": [1e300]},
        {"data": ["1"]},
        {"data": []},
    ],
)
def test_a_benchmark_that_is_none(config: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected|iterations|failed"):
        plugin_bridges.in_use(config)["benchmark"].take({**BENCHMARK, **changes})
    assert not config._benchmarksession.benchmarks


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        (".hypothesis/examples/0123456789abcdef/0123456789abcdef", True),
        ("own/database/0123456789abcdef/0123456789abcdef", True),
        (".hypothesis/unicode_data/15.0.0/charmap.json.gz", True),
        (".hypothesis/constants/0123456789abcdef", True),
        (".hypothesis/.gitignore", True),
        (".gitignore", False),
        (".hypothesis/examples/0123456789abcdef/conftest.py", False),
        ("0123456789abcdef/0123456789abcdef.py", False),
        (".hypothesis/patches/2026-01-01--0123abcd.patch", False),
    ],
)
def test_the_files_of_hypothesis_are_known_by_their_names(
    config: Any, monkeypatch: pytest.MonkeyPatch, name: str, allowed: bool
) -> None:
    module = ModuleType("_hypothesis_pytestplugin")
    monkeypatch.setitem(sys.modules, "_hypothesis_pytestplugin", module)
    config.pluginmanager = plugins(hypothesis=module)
    patterns = plugin_bridges.in_use(config)["hypothesis"].patterns
    assert any(re.fullmatch(pattern, name) for pattern in patterns) is allowed


@pytest.fixture
def syrupy(config: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = ModuleType("syrupy")
    monkeypatch.setitem(sys.modules, "syrupy", module)
    config.pluginmanager = plugins(syrupy=module)
    config.option.update_snapshots = True
    return config


def test_snapshots_come_home_only_where_they_are_updated(syrupy: Any) -> None:
    (pattern,) = plugin_bridges.in_use(syrupy)["syrupy"].patterns
    assert re.fullmatch(pattern, "tests/__snapshots__/test_a.ambr")
    assert re.fullmatch(pattern, "__snapshots__/test_a/b.json")
    for name in ("__snapshots__", "tests/test_a.py", "x__snapshots__/a", "__snapshots__/test_a.ambr.lock"):
        assert not re.fullmatch(pattern, name)
    syrupy.option.update_snapshots = False
    assert plugin_bridges.in_use(syrupy)["syrupy"].patterns == ()


@pytest.mark.parametrize(
    ("update", "before", "after"),
    [(True, "load", "loadfile"), (True, "each", "each"), (True, "no", "no"), (False, "load", "load")],
)
def test_files_are_kept_whole_where_snapshots_are_updated(
    syrupy: Any, update: bool, before: str, after: str
) -> None:
    syrupy.option.update_snapshots = update
    syrupy.option.dist = before
    plugin_bridges.keep_files_whole(syrupy)
    assert syrupy.option.dist == after


def test_a_lost_machine_lets_syrupy_remove_nothing(syrupy: Any) -> None:
    assert "syrupy" in plugin_bridges.in_use(syrupy)["syrupy"].lost()
    assert syrupy.option.disable_unused_snapshots is True
