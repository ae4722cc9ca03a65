"""What is kept of a machine's messages besides reports: bounded for each test and for the run."""

from __future__ import annotations

import base64
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_smol.artifacts import collector as collector_module
from pytest_smol.artifacts.collector import ArtifactCollector
from pytest_smol.artifacts.incoming import MAX_TOLD, IncomingArtifacts
from pytest_smol.artifacts.written_paths import ATTRIBUTE
from pytest_smol.settings import Settings

#: The most that a message may leave behind over all, in bytes.
MOST_KEPT = 64 << 20

#: Nearly as long as a frame may be. One object for all: those of a real guest are gone when they are taken.
LONG = "x" * (15 << 20)

MESSAGES: dict[str, dict[str, Any]] = {
    "file": {"path": "a.xml", "data": base64.b64encode(bytes(1 << 18)).decode(), "last": False},
    "a file with a long name": {"path": LONG, "data": "", "last": True},
    "unsent": {"path": LONG, "reason": LONG},
    "writes": {"paths": [["deleted", LONG]] * 20, "more": 10**19},
    "many writes": {"paths": [["deleted", "/a"]] * 2000, "more": -1},
    "state": {"plugin": LONG, "data": {}},
    "state with an error": {"plugin": "hypothesis", "data": {"error": LONG}},
}


class Recorded:
    """A stand-in for pytest's hooks, which keeps warnings as pytest does."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.pytest_warning_recorded = SimpleNamespace(call_historic=self._record)

    def _record(self, kwargs: dict[str, Any]) -> None:
        self.warnings.append(str(kwargs["warning_message"].message))


@pytest.fixture
def hooks() -> Recorded:
    return Recorded()


@pytest.fixture
def collector(tmp_path: Path, hooks: Recorded) -> Iterator[ArtifactCollector]:
    plugins = SimpleNamespace(get_plugin=lambda name: None, is_registered=lambda plugin: False)
    config: Any = SimpleNamespace(
        pluginmanager=plugins, hook=hooks, rootpath=tmp_path, invocation_params=SimpleNamespace(dir=tmp_path)
    )
    settings = Settings(artifacts=("*.xml",), show_writes=True)
    made = ArtifactCollector(config, settings, tmp_path, lambda text: text)
    yield made
    made.close()


def a_message(name: str) -> dict[str, Any]:
    kind = name if name in ("file", "unsent", "writes", "state") else ""
    kind = kind or next(each for each in ("file", "writes", "state") if each in name)
    return {"type": kind, "executable": False, **MESSAGES[name]}


def a_report() -> Any:
    return SimpleNamespace(nodeid="a.py::test", sections=[])


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("tests", [1, 20])
def test_the_largest_messages_leave_little(collector: ArtifactCollector, name: str, tests: int) -> None:
    incoming = IncomingArtifacts(collector)
    message = a_message(name)
    reports = []
    tracemalloc.start()
    try:
        for _ in range(tests):
            incoming.begin()
            for _ in range(1000 // tests):
                incoming.take(message)
            reports.append(incoming.add_to_report(a_report()))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A file that is not whole yet is held, up to the limit of one test.
    assert kept < MOST_KEPT + (MOST_KEPT if name == "file" else 0)


def test_what_is_told_of_a_test_is_bounded_and_the_rest_counted(collector: ArtifactCollector) -> None:
    incoming = IncomingArtifacts(collector)
    for _ in range(100):
        incoming.take({"type": "unsent", "path": "a", "reason": "r" * 5000})
        incoming.take({"type": "writes", "paths": [["deleted", "/a"]] * 3, "more": 2})
    report = incoming.add_to_report(a_report())
    ((_, text),) = report.sections
    assert text.count("\n") == MAX_TOLD
    assert text.endswith(f"... and {100 - MAX_TOLD} more")
    assert len(text) < 10_000
    lines = getattr(report, ATTRIBUTE)
    assert len(lines) == MAX_TOLD + 1
    assert lines[-1] == f"... and {500 - MAX_TOLD} more"


def test_what_is_told_of_a_run_is_bounded(
    collector: ArtifactCollector, monkeypatch: pytest.MonkeyPatch, hooks: Recorded
) -> None:
    monkeypatch.setattr(collector.told, "_left", 30)
    incoming = IncomingArtifacts(collector)
    for _ in range(50):
        incoming.begin()
        incoming.take({"type": "unsent", "path": "a", "reason": "r"})
        incoming.add_to_report(a_report())
    assert len(hooks.warnings) == 30


def test_warnings_about_plugins_are_bounded(collector: ArtifactCollector, hooks: Recorded) -> None:
    for number in range(1000):
        collector.take_state(f"plugin{number}", {})
        collector.take_state("plugin0", {})
    assert len(hooks.warnings) == collector_module.MAX_PLUGIN_WARNINGS + 1
    assert hooks.warnings[-1] == "more of what plugins gathered in VMs is lost"


class Broken:
    """A bridge to a plugin that raises wherever it is called."""

    patterns = ()
    tells = True
    boundary = None

    def take(self, data: dict[str, Any]) -> list[str]:
        raise RuntimeError("a broken plugin")

    lost = finish = closing = lambda self: self.take({})


def test_what_a_plugin_raises_is_a_warning(
    collector: ArtifactCollector, monkeypatch: pytest.MonkeyPatch, hooks: Recorded
) -> None:
    monkeypatch.setattr(collector, "_bridges", {"broken": Broken()})
    collector.take_state("broken", {})
    collector.lost("a.py::test")
    collector.finish()
    collector.finished()
    assert (
        hooks.warnings
        == ["what broken gathered in a VM is lost: a broken plugin"]
        + ["broken could not use what it gathered in VMs: RuntimeError: a broken plugin"] * 3
    )
