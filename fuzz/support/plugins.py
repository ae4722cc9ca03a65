"""A small project, and runs of pytest in it whose plugins are real where they are installed."""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from pytest_smol.artifacts.collector import ArtifactCollector
from pytest_smol.artifacts.plugins.bridge import PluginBridge
from pytest_smol.artifacts.plugins.registry import bridges_in_use
from pytest_smol.artifacts.visible import VisibleFiles
from pytest_smol.reports.text import clean
from pytest_smol.settings import Settings

__all__ = [
    "LINES",
    "SECRET",
    "bridge_of",
    "collector_of",
    "config_of",
    "in_place",
    "plugin_in_use",
    "project",
    "real",
]

#: The lines of each module of the project.
LINES = 20

#: What the files of the project hold that no guest may see or replace.
SECRET = "machine example.org login a password b"

_PLUGINS = {
    "coverage": "pytest_cov.plugin",
    "benchmark": "pytest_benchmark.plugin",
    "syrupy": "syrupy",
    "hypothesis": "_hypothesis_pytestplugin",
}


@cache
def project() -> Path:
    """The project's directory, made once: modules, snapshots and a file that is hidden from guests."""
    made = tempfile.TemporaryDirectory(prefix="smol-fuzz-")
    root = Path(made.name)
    setattr(project, "kept", made)  # noqa: B010 - it is removed with the process
    (root / "tests/__snapshots__").mkdir(parents=True)
    for name in ("a.py", "tests/b.py"):
        (root / name).write_text("x = 1\n" * LINES)
    (root / "tests/__snapshots__/a.ambr").write_text("# name\n")
    (root / ".netrc").write_text(SECRET)
    (root / "link").symlink_to("/")
    return root


def real(module: str) -> ModuleType | None:
    """An installed module, None where it is not."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


@contextmanager
def in_place(**modules: ModuleType) -> Iterator[None]:
    """Modules that are found by their names meanwhile, with ``__`` for each dot."""
    named = {name.replace("__", "."): module for name, module in modules.items()}
    before = {name: sys.modules.get(name) for name in named}
    sys.modules.update(named)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


@contextmanager
def plugin_in_use(name: str) -> Iterator[None]:
    """Let the plugin ``name`` count as loaded meanwhile."""
    path = _PLUGINS[name]
    with in_place(**{path.replace(".", "__"): _module(name)}):
        yield


@cache
def _module(name: str) -> ModuleType:
    return real(_PLUGINS[name]) or ModuleType(_PLUGINS[name])


def config_of(name: str, branch: bool = False) -> Any:
    """The configuration of a run that uses the plugin ``name``; ``branch`` is for coverage."""
    root = project()
    module = _module(name)
    tracer = SimpleNamespace(_coverage_plugin_name="plugin.x")
    cov = SimpleNamespace(
        config=SimpleNamespace(data_file=".coverage", branch=branch),
        _plugins=SimpleNamespace(file_tracers=[tracer]),
    )
    controller = SimpleNamespace(cov=cov, topdir=str(root))
    session = SimpleNamespace(items=[SimpleNamespace(keywords={"hypothesis": 1})])
    named: dict[str, Any] = {name: module, "session": session}
    if name == "coverage":
        named["_cov"] = SimpleNamespace(cov_controller=controller)
    plugins = SimpleNamespace(
        get_plugin=named.get,
        is_registered=lambda plugin: any(plugin is each for each in named.values()),
    )
    return SimpleNamespace(
        pluginmanager=plugins,
        option=SimpleNamespace(dist="no", update_snapshots=True, snapshot_dirname="__snapshots__"),
        rootpath=root,
        invocation_params=SimpleNamespace(dir=root),
        hook=SimpleNamespace(pytest_warning_recorded=SimpleNamespace(call_historic=lambda kwargs: None)),
        _benchmarksession=SimpleNamespace(benchmarks=[], group_by="group"),
    )


def bridge_of(name: str, config: Any) -> PluginBridge:
    """A new bridge to the plugin ``name`` of the run that ``config`` is of."""
    with plugin_in_use(name):
        return bridges_in_use(config, _visible())[name]


@cache
def _visible() -> VisibleFiles:
    return VisibleFiles(Settings(), project())


def collector_of(name: str, *artifacts: str) -> ArtifactCollector:
    """A new collector of a run with the plugin ``name`` and these ``smol_artifacts``. Close it."""
    settings = Settings(artifacts=artifacts, show_writes=True)
    with plugin_in_use(name):
        return ArtifactCollector(config_of(name), settings, project(), clean)
