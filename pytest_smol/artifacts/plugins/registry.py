"""Which bridges a run has."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

import pytest

from pytest_smol.artifacts.plugins.benchmark import BenchmarkBridge
from pytest_smol.artifacts.plugins.bridge import PluginBridge
from pytest_smol.artifacts.plugins.coverage import CoverageBridge
from pytest_smol.artifacts.plugins.hypothesis import HypothesisBridge
from pytest_smol.artifacts.plugins.syrupy import SyrupyBridge
from pytest_smol.artifacts.visible import VisibleFiles

__all__ = ["bridges_in_use", "keep_files_whole"]


def _loaded(name: str) -> Callable[[pytest.Config], bool]:
    def check(config: pytest.Config) -> bool:
        module = sys.modules.get(name)
        return module is not None and config.pluginmanager.is_registered(module)

    return check


def _measures(config: pytest.Config) -> bool:
    plugin = config.pluginmanager.get_plugin("_cov")
    return plugin is not None and not getattr(plugin, "_disabled", False)


_Make = Callable[[pytest.Config, VisibleFiles], PluginBridge]

#: By the name that the guest has for the plugin: how to know that it is in use, and its bridge.
_TABLE: Mapping[str, tuple[Callable[[pytest.Config], bool], _Make]] = {
    "coverage": (_measures, CoverageBridge),
    "hypothesis": (_loaded("_hypothesis_pytestplugin"), HypothesisBridge),
    "syrupy": (_loaded("syrupy"), SyrupyBridge),
    "benchmark": (_loaded("pytest_benchmark.plugin"), BenchmarkBridge),
}


def keep_files_whole(config: pytest.Config) -> None:
    """Let pytest-xdist give the tests of a file to one worker where one machine has to run them all."""
    spread = getattr(config.option, "dist", "no") in ("load", "worksteal")
    if spread and _loaded("syrupy")(config) and SyrupyBridge.updates(config):
        config.option.dist = "loadfile"


def bridges_in_use(config: pytest.Config, visible: VisibleFiles) -> dict[str, PluginBridge]:
    """The bridges of the plugins that this run has, by name."""
    return {name: make(config, visible) for name, (is_in_use, make) in _TABLE.items() if is_in_use(config)}
