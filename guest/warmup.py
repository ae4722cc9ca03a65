"""What is run before the base snapshot is taken, so that its code is loaded in every fork."""

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

# Modules that the first failing test of a fork would import, perhaps after a test has deleted their files.
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
    """Run a small suite with every outcome, which loads the modules that pytest and its plugins need."""
    with _without("readline"):  # when it is loaded it reads TERM, which the guest is only told later
        _load_all()


@contextmanager
def _without(module: str) -> Iterator[None]:
    """Within this, importing ``module`` raises ImportError."""
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
    # The project may lie below /tmp too, so no directory but this one, removed at the end, is made there.
    own = ["-p", "no:cacheprovider", f"--basetemp={directory}/base"]
    pytest.main([*own, directory], plugins=[GuestPlugin(port, reporter, ()), reporter, _NoInstalledPlugins()])
    for name in set(sys.modules) - modules:
        if name.startswith("test_warm"):
            del sys.modules[name]
    os.chdir("/")
    shutil.rmtree(directory)


class _NoInstalledPlugins:
    """Unregisters installed plugins after they were imported: one might start a thread, in every machine."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_load_initial_conftests(self, early_config: pytest.Config) -> None:
        manager = early_config.pluginmanager
        for plugin, _ in manager.list_plugin_distinfo():
            if manager.is_registered(plugin):
                manager.unregister(plugin)


class _Silent:
    """A port for the warm-up: messages are encoded, which loads that code, and dropped."""

    def send(self, kind: str, /, **fields: Any) -> None:
        frame({"type": kind, **fields})
        if kind == "nodes":
            self._steps = [[row["item"]["number"], None] for row in fields["rows"] if "item" in row]

    def receive(self) -> dict[str, Any]:
        return {"type": "run", "steps": self._steps, "failed": 0}
