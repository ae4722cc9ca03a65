"""What all guests of a run may leave together, with small limits; see test_budgets for each of them alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fuzz.fuzz_coverage import checked_coverage
from fuzz.support.plugins import bridge_of, config_of, project
from pytest_smol.artifacts.collector import ArtifactCollector
from pytest_smol.artifacts.files import Rejected
from pytest_smol.artifacts.plugins import coverage
from pytest_smol.errors import ProtocolError
from pytest_smol.machine.machine import Machine
from pytest_smol.protocol.wire import Message
from pytest_smol.reports.budget import FREE, MessageBudget, RunBudget
from pytest_smol.session.guests.module_collection import FileCollector
from pytest_smol.settings import Settings

KIB = 1 << 10


def test_what_tests_report_is_bounded_by_run() -> None:
    """What each may keep for itself does not count, so small reports are taken when others took all."""
    run = RunBudget(1 << 20, "the tests of this run", "raise smol_report_limit")
    large: Message = {"type": "report", "data": {"text": "x" * (FREE + 100 * KIB)}}
    test = MessageBudget("the test", 64 << 20, run)
    with pytest.raises(ProtocolError, match="the tests of this run reported more than 1 MiB") as caught:
        for _ in range(20):
            test.begin()
            test.take(large)
    assert "smol_report_limit" in caught.value.remedy
    for _ in range(20):
        test.begin()
        test.take({"type": "report", "data": {"text": "x" * (FREE - 4 * KIB)}})
    with pytest.raises(ProtocolError, match="the tests of this run"):
        test.take(large)


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[ArtifactCollector]:
    plugins = SimpleNamespace(get_plugin=lambda name: None, is_registered=lambda plugin: False)
    config: Any = SimpleNamespace(
        pluginmanager=plugins, rootpath=tmp_path, invocation_params=SimpleNamespace(dir=tmp_path)
    )
    made = ArtifactCollector(config, Settings(artifacts=("out/**",), artifacts_limit=1 << 20), tmp_path, str)
    yield made
    made.close()


def test_files_are_bounded_by_run(collector: ArtifactCollector, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match=r"at most 1 MiB of files \(see smol_artifacts_limit\)"):
        for number in range(20):
            collector.write(f"out/{number}", bytes(100 * KIB), False)
    assert sum(path.stat().st_size for path in (tmp_path / "out").iterdir()) <= 1 << 20


def test_empty_files_and_directories_are_bounded_by_run(collector: ArtifactCollector, tmp_path: Path) -> None:
    """Each takes a block of the disk."""
    with pytest.raises(Rejected, match="smol_artifacts_limit"):
        for number in range(1000):
            collector.write(f"out/{number}/a/b/c", b"", False)
    assert len(list((tmp_path / "out").rglob("*"))) <= (1 << 20) // 4096


@pytest.mark.parametrize("kind", ["contexts", "files", "files with tracers"])
def test_names_of_coverage_are_bounded_by_run(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage, "MAX_NAMES", 1 << 20)
    bridge = bridge_of("coverage", config_of("coverage"))
    module = str(project() / "a.py")

    def said(number: int) -> dict[str, Any]:
        names = [f"/{number}/{each}" + "x" * 1000 for each in range(10)]
        rows = {
            "contexts": {"lines": [[name, module, "06"] for name in names]},
            "files": {"lines": [["", name, "06"] for name in names]},
            "files with tracers": {"tracers": [[name, "plugin.x"] for name in names]},
        }
        return rows[kind]

    with checked_coverage():
        bridge.take(said(0))
        with pytest.raises(ValueError, match="a run takes at most 1 MiB of names"):
            for number in range(1, 200):
                bridge.take(said(number))
        bridge.take(said(0))  # which are known


class _Saying:
    """A machine that says what it says."""

    def __init__(self, says: Iterator[Message]) -> None:
        self._says = says

    def send(self, message: Message) -> None: ...

    def drain(self) -> None: ...

    def last_words(self) -> str:
        return ""

    def receive(self, deadline: float) -> Message:
        return next(self._says)


def test_what_is_collected_apart_is_bounded_by_run() -> None:
    """Each file is far below its own limit."""
    collector = FileCollector(str, 60, total=MessageBudget("collection", 1 << 20))
    header: Message = {"type": "suite_property", "name": "n", "value": "x" * (100 * KIB)}
    end: Message = {"type": "collected", "items": [], "deselected": [], "lines": [], "closing": False}
    with pytest.raises(ProtocolError, match="collection reported more than 1 MiB"):
        for number in itertools.count():
            machine = cast(Machine, _Saying(iter([{**header, "name": f"{number}"}, end])))
            collector.collect(machine, ["/a.py"])
    assert 5 < number < 12
