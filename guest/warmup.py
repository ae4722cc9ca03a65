"""What is run before the base snapshot is taken, so that no fork has to load it."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pytest_smol.guest.message_fitting import frame
from pytest_smol.guest.session.plugin import GuestPlugin
from pytest_smol.guest.session.reporter import ReporterPlugin

# What the first test of a fork would otherwise import, perhaps from a root that a test has deleted.
_WARM_MODULES = (
    "encodings.idna",
    "encodings.latin_1",
    "pygments.lexers.python",
    "pygments.formatters.terminal",
    "pdb",
)

_WARM_SUITE = """
import pytest, warnings

@pytest.fixture
def fixture(tmp_path, monkeypatch, capsys):
    yield tmp_path

@pytest.mark.parametrize("number", [1, 2])
def test_passes(fixture, number, caplog, request):
    warnings.warn("warm")
    print("warm")

def test_fails(fixture):
    value = {"a": [1, 2]}
    assert value == {"a": [1, 3]}, "warm"

def test_raises():
    with pytest.raises(ValueError):
        int("x")
    try:
        raise ValueError("warm")
    except ValueError as error:
        raise RuntimeError("chained") from error

def test_skips():
    pytest.skip("warm")

@pytest.mark.xfail
def test_expected():
    assert 0

class TestUnittestStyle:
    def setup_method(self): pass
    def test_method(self): pass
"""


def warm_up() -> None:
    """Run a small suite of every outcome, so that what pytest and its plugins need is loaded."""
    with _without("readline"):  # it keeps the type of terminal that it finds when it is loaded
        _load_all()


@contextmanager
def _without(module: str) -> Iterator[None]:
    """Let importing ``module`` fail."""
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]


def _load_all() -> None:
    for name in _WARM_MODULES:
        try:
            importlib.import_module(name)
        except ImportError:  # an optional library, such as pygments
            continue
    directory = tempfile.mkdtemp(prefix="smol-warm-")
    with open(f"{directory}/test_warm.py", "w", encoding="utf-8") as file:
        file.write(_WARM_SUITE)
    with open(f"{directory}/pytest.ini", "w", encoding="ascii") as file:
        file.write("[pytest]\n")
    os.chdir(directory)
    modules = set(sys.modules)
    port = _Silent()
    reporter = ReporterPlugin(port, {})
    # A directory that is made here would hide what a project brings to the same place: all stay below one.
    own = ["-p", "no:cacheprovider", f"--basetemp={directory}/base"]
    pytest.main([*own, directory], plugins=[GuestPlugin(port, reporter, ()), reporter, _NoInstalledPlugins()])
    for name in set(sys.modules) - modules:
        if name.startswith("test_warm"):
            del sys.modules[name]
    os.chdir("/")
    shutil.rmtree(directory)


class _NoInstalledPlugins:
    """Leaves plugins loaded but inactive: a thread or server that one starts would be in every machine."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_load_initial_conftests(self, early_config: pytest.Config) -> None:
        manager = early_config.pluginmanager
        for plugin, _ in manager.list_plugin_distinfo():
            if manager.is_registered(plugin):
                manager.unregister(plugin)


class _Silent:
    """A port for the warm-up: the plugin's messages are built and thrown away."""

    def send(self, kind: str, /, **fields: Any) -> None:
        frame({"type": kind, **fields})
        if kind == "nodes":
            self._steps = [[row["item"]["number"], None] for row in fields["rows"] if "item" in row]

    def receive(self) -> dict[str, Any]:
        return {"type": "run", "steps": self._steps, "failed": 0}
