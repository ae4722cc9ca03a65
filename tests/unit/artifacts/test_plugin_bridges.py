"""What guests' plugins gathered: checked before the host's plugins see it. The plugins are stand-ins here."""

from __future__ import annotations

import os
import re
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pytest_smol.artifacts.plugins import benchmark as benchmark_bridge
from pytest_smol.artifacts.plugins import hypothesis as hypothesis_bridge
from pytest_smol.artifacts.plugins import syrupy as syrupy_bridge
from pytest_smol.artifacts.plugins.bridge import PluginBridge
from pytest_smol.artifacts.plugins.registry import bridges_in_use, keep_files_whole
from pytest_smol.artifacts.visible import VisibleFiles
from pytest_smol.settings import Settings


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

    def data_filename(self) -> str:
        return self.name

    def erase(self) -> None:
        self.erased = True


def in_use(config: Any) -> dict[str, PluginBridge]:
    return bridges_in_use(config, VisibleFiles(Settings(), config.rootpath))


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
    tracer = SimpleNamespace(_coverage_plugin_name="plugin.x")
    cov = SimpleNamespace(
        config=SimpleNamespace(data_file=".coverage", branch=False),
        _plugins=SimpleNamespace(file_tracers=[tracer]),
    )
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("x = 1\n" * 20)
    controller = SimpleNamespace(cov=cov, topdir=str(tmp_path))
    return SimpleNamespace(
        pluginmanager=plugins(_cov=SimpleNamespace(cov_controller=controller), benchmark=benchmark),
        option=SimpleNamespace(dist="load"),
        rootpath=tmp_path,
        invocation_params=SimpleNamespace(dir=tmp_path),
        _benchmarksession=SimpleNamespace(benchmarks=[]),
    )


def test_only_plugins_that_are_in_use_are_adapted_to(config: Any) -> None:
    assert list(in_use(config)) == ["coverage", "benchmark"]
    config.pluginmanager = plugins(_cov=SimpleNamespace(_disabled=True))
    assert in_use(config) == {}


def test_lines_arcs_and_tracers_are_added_in_their_contexts(config: Any, tmp_path: Path) -> None:
    a, b = (str(tmp_path / name) for name in ("a.py", "b.py"))
    coverage = in_use(config)["coverage"]
    coverage.take({"lines": [["", a, "0601"], ["test|run", a, "80"]]})
    coverage.take({"tracers": [[a, "plugin.x"], [b, ""]]})
    (data,) = Data.made
    assert data.added == [("", a, [1, 2, 8]), ("test|run", a, [7])]
    assert data.tracers == {a: "plugin.x"}
    assert data.name.startswith(f"{tmp_path}/.coverage.smol.")
    coverage.closing()
    assert data.erased


def test_a_run_with_branches_takes_arcs(config: Any, tmp_path: Path) -> None:
    branch(config)
    path = str(tmp_path / "b.py")
    in_use(config)["coverage"].take({"arcs": [["", path, -1, 2], ["", path, 2, -1]]})
    assert Data.made[0].added == [("", path, [(-1, 2), (2, -1)])]


def branch(config: Any) -> None:
    config.pluginmanager.get_plugin("_cov").cov_controller.cov.config.branch = True


def test_a_workers_data_are_left_to_its_controller(config: Any) -> None:
    config.workerinput = {}
    coverage = in_use(config)["coverage"]
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
        {"lines": [["", "/a\0.py", "06"]]},
        {"lines": [["", "/a\ud800.py", "06"]]},
        {"lines": [["", "/" + "a" * 5000, "06"]]},
        {"lines": [[None, "/a.py", "06"]]},
        {"lines": [[["deep"], "/a.py", "06"]]},
        {"lines": [["", "/a.py", "06"]] * 10_001},
        {"arcs": [["", "/a.py", 1, 2]]},
        {"tracers": [["/a.py", 1]]},
        {"tracers": [["/a.py", "unknown.plugin"]]},
    ],
)
def test_what_nothing_measured(config: Any, data: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - bytes.fromhex has texts of its own
        in_use(config)["coverage"].take(data)
    assert not any(each.added or each.tracers for each in Data.made)


@pytest.mark.parametrize(
    "data",
    [
        {"arcs": [["", "/a.py", 1, "2"]]},
        {"arcs": [["", "/a.py", 1, True]]},
        {"arcs": [["", "/a.py", 1, 1 << 40]]},
        {"arcs": [["", "/a.py", -(1 << 63), 1]]},
        {"arcs": [["", "/a.py", float("nan"), 1]]},
        {"lines": [["", "/a.py", "06"]]},
    ],
)
def test_arcs_that_nothing_measured(config: Any, data: dict[str, Any]) -> None:
    branch(config)
    with pytest.raises(ValueError, match="expected"):
        in_use(config)["coverage"].take(data)
    assert not any(each.added for each in Data.made)


def test_coverage_takes_only_files_that_guests_are_shown(config: Any, tmp_path: Path) -> None:
    root = tmp_path / "project"
    (root / "keys").mkdir(parents=True)
    for path in (root / ".env", root / "keys/id_rsa", tmp_path / "outside.py"):
        path.write_text("x = 1\n")
    (root / "link.py").symlink_to(root / ".env")
    (root / "way").symlink_to(tmp_path)
    os.mkfifo(root / "fifo.py")
    config.rootpath = root
    coverage = in_use(config)["coverage"]
    names = [".env", "keys/id_rsa", "../outside.py", "link.py", "way/outside.py", "fifo.py", "keys", "new.py"]
    problems = coverage.take({"lines": [["", f"{root}/{name}", "02"] for name in names]})
    problems += coverage.take({"lines": [["", str(tmp_path / "outside.py"), "02"], ["", "a.py", "02"]]})
    assert not Data.made[0].added
    assert problems == [f"{root}/{name}: guests are not shown this file" for name in (".env", "keys/id_rsa")]


def test_coverage_takes_only_files_that_its_settings_name(config: Any, tmp_path: Path) -> None:
    cov = config.pluginmanager.get_plugin("_cov").cov_controller.cov
    omitted = SimpleNamespace(match=lambda path: path.endswith("omitted.py"))
    cov._inorout = SimpleNamespace(
        check_include_omit_etc=lambda path, frame: None if path.endswith("a.py") else "outside",
        omit_match=omitted,
        source_pkgs=["pkg.sub"],
    )
    (tmp_path / "src/pkg/sub").mkdir(parents=True)
    for name in ("src/pkg/sub/m.py", "src/pkg/sub/omitted.py", "src/pkg/other.py"):
        (tmp_path / name).write_text("x = 1\n")
    names = ("a.py", "b.py", "src/pkg/sub/m.py", "src/pkg/sub/omitted.py", "src/pkg/other.py")
    in_use(config)["coverage"].take({"lines": [["", str(tmp_path / name), "02"] for name in names]})
    assert [path for _, path, _ in Data.made[0].added] == [
        str(tmp_path / name) for name in ("a.py", "src/pkg/sub/m.py")
    ]


def test_lines_beyond_the_end_of_a_file_are_left_out(config: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "a.py")
    coverage = in_use(config)["coverage"]
    problems = coverage.take({"lines": [["", path, "ff" * 100_000], ["", path, "ffffff"]]})
    assert problems == [f"{path}: the file on the host has 21 lines"]
    assert Data.made[0].added == [("", path, list(range(22)))]


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"n": value}
    return value


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
    in_use(config)["benchmark"].take(dict(BENCHMARK))
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
        {"data": [float("nan")]},
        {"data": [True]},
        {"params": 7},
        {"params": {"a": float("inf")}},
        {"params": {"a\0": 1}},
        {"extra_info": 7},
        {"extra_info": {"n": 2**63}},
        {"extra_info": deep(900)},
        {"iterations": 0},
        {"iterations": 2**63},
        {"iterations": True},
        {"options": None},
        {"options": {"timer\ud800": 1}},
        {"has_error": 1},
        {"name": "a" * 10_000_000},
    ],
)
def test_a_benchmark_that_is_none(config: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected|iterations|failed"):
        in_use(config)["benchmark"].take({**BENCHMARK, **changes})
    assert not config._benchmarksession.benchmarks


@pytest.mark.parametrize("params", [None, {}, {"y": 1}])
def test_a_benchmark_without_the_parameter_that_groups(config: Any, params: Any) -> None:
    config._benchmarksession.group_by = "group,param:x"
    bridge = in_use(config)["benchmark"]
    with pytest.raises(ValueError, match="parameter x is expected"):
        bridge.take({**BENCHMARK, "params": params})
    bridge.take({**BENCHMARK, "params": {"x": "\x1b[2J"}})
    assert config._benchmarksession.benchmarks[0].fixture.params == {"x": "\\x1b[2J"}


def test_a_run_keeps_only_so_much_of_benchmarks(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_bridge, "MAX_KEPT", 100_000)
    bridge = in_use(config)["benchmark"]
    with pytest.raises(ValueError, match="a run takes at most"):
        for _ in range(1000):
            bridge.take({**BENCHMARK, "data": [0.5] * 100})
    assert 5 < len(config._benchmarksession.benchmarks) < 30


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        (".hypothesis/examples/0123456789abcdef/0123456789abcdef", True),
        ("own/database/0123456789abcdef/0123456789abcdef", False),
        ("0123456789abcdef/0123456789abcdef", False),
        ("x/.hypothesis/examples/0123456789abcdef/0123456789abcdef", False),
        (".hypothesis/unicode_data/15.0.0/charmap.json.gz", False),
        (".hypothesis/constants/0123456789abcdef", False),
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
    patterns = in_use(config)["hypothesis"].patterns
    assert any(re.fullmatch(pattern, name) for pattern in patterns) is allowed


def test_examples_are_taken_only_where_tests_use_hypothesis_and_so_many(
    config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("_hypothesis_pytestplugin")
    monkeypatch.setitem(sys.modules, "_hypothesis_pytestplugin", module)
    monkeypatch.setattr(hypothesis_bridge, "MAX_FILES", 3)
    monkeypatch.setattr(hypothesis_bridge, "MAX_BYTES", 100)
    session = SimpleNamespace(items=[SimpleNamespace(keywords={})])
    config.pluginmanager = plugins(hypothesis=module, session=session)
    bridge = in_use(config)["hypothesis"]
    name = ".hypothesis/examples/0123456789abcdef/0123456789abcdef"
    assert bridge.refusal(name, b"x") == "no test uses hypothesis"
    session.items[0].keywords = {"hypothesis": 1}
    assert not bridge.refusal(name, b"x")
    assert "at most 0 MiB" in bridge.refusal(name, b"x" * 100)
    assert not bridge.refusal(".hypothesis/.gitignore", b"# why\n*\n")
    assert bridge.refusal(".hypothesis/.gitignore", b"!secrets\n") == "hypothesis writes no such file"
    assert "at most 3 examples" in bridge.refusal(name, b"")


@pytest.fixture
def syrupy(config: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = ModuleType("syrupy")
    monkeypatch.setitem(sys.modules, "syrupy", module)
    config.pluginmanager = plugins(syrupy=module)
    config.option.update_snapshots = True
    return config


def test_snapshots_come_home_only_where_they_are_updated(syrupy: Any) -> None:
    (pattern,) = in_use(syrupy)["syrupy"].patterns
    assert re.fullmatch(pattern, "tests/__snapshots__/test_a.ambr")
    assert re.fullmatch(pattern, "__snapshots__/test_a/b.json")
    for name in ("__snapshots__", "tests/test_a.py", "x__snapshots__/a", "__snapshots__/test_a.ambr.lock"):
        assert not re.fullmatch(pattern, name)
    syrupy.option.update_snapshots = False
    assert in_use(syrupy)["syrupy"].patterns == ()


@pytest.mark.parametrize(
    ("update", "before", "after"),
    [(True, "load", "loadfile"), (True, "each", "each"), (True, "no", "no"), (False, "load", "load")],
)
def test_files_are_kept_whole_where_snapshots_are_updated(
    syrupy: Any, update: bool, before: str, after: str
) -> None:
    syrupy.option.update_snapshots = update
    syrupy.option.dist = before
    keep_files_whole(syrupy)
    assert syrupy.option.dist == after


SYRUPY = {
    "collections": {},
    "num_xfails": 0,
    "selected": {},
    "extensions": {},
    "collected": [],
    "collected_modules": [],
}


def test_only_extensions_that_can_be_made_are_named(syrupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Base(ABC):
        @abstractmethod
        def serialize(self) -> None: ...

    class Good(Base):
        def serialize(self) -> None: ...

    base: Any = ModuleType("syrupy.extensions.base")
    base.AbstractSyrupyExtension, base.Good, base.Other, base.text = Base, Good, int, "x"
    monkeypatch.setitem(sys.modules, "syrupy.extensions", ModuleType("syrupy.extensions"))
    monkeypatch.setitem(sys.modules, "syrupy.extensions.base", base)
    names = ("base.Good", "base.AbstractSyrupyExtension", "base.Other", "base.text", "base.None", "new.Good")
    extensions = {name: f"syrupy.extensions.{name}" for name in names}
    bridge: Any = in_use(syrupy)["syrupy"]
    bridge.take({**SYRUPY, "extensions": extensions})
    assert bridge._reports[0]["extensions"] == {"base.Good": "syrupy.extensions.base.Good"}


def test_a_report_that_is_refused_lets_syrupy_remove_nothing(
    syrupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syrupy_bridge, "MAX_KEPT", 5000)
    bridge = in_use(syrupy)["syrupy"]
    bridge.take(SYRUPY)
    assert not hasattr(syrupy.option, "disable_unused_snapshots")
    with pytest.raises(ValueError, match="a run takes at most"):
        bridge.take({**SYRUPY, "selected": {str(number): "passed" for number in range(1000)}})
    assert syrupy.option.disable_unused_snapshots is True


def test_a_lost_machine_lets_syrupy_remove_nothing(syrupy: Any) -> None:
    assert "syrupy" in in_use(syrupy)["syrupy"].lost()
    assert syrupy.option.disable_unused_snapshots is True
