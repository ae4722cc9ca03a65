"""What a factory says that its base snapshots depend on."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_smol.errors import SettingError
from pytest_smol.guest_os import boot_files, kernel_parameters
from pytest_smol.guest_os.interpreter import SUPERVISOR
from pytest_smol.pool import factory
from pytest_smol.pool.factory import MachineFactory
from pytest_smol.settings import Settings
from pytest_smol.snapshots.key import key_of
from pytest_smol.virtiofs.view import View
from tests.plugin.fakes import FakeEngine, Script
from tests.unit.snapshot_samples import HARDWARE, VIEW


def key_fields(monkeypatch: pytest.MonkeyPatch, tsc_khz: int) -> dict[str, Any]:
    monkeypatch.setattr(kernel_parameters, "tsc_khz", lambda: tsc_khz)
    places = (Path("/modules"), Path("/"), Path("/busybox"))
    files = boot_files.BootFiles(Path("/vmlinuz"), Path("/initramfs"), "6.1", "digest", *places)
    engine = SimpleNamespace(identity=lambda hardware: {"memory": hardware.memory})
    made = SimpleNamespace(engine=engine, boot_files=files, view=VIEW)
    return MachineFactory.base_key_fields(cast(MachineFactory, made), HARDWARE)


def test_a_measured_frequency_is_no_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert key_of(key_fields(monkeypatch, 2_596_120)) == key_of(key_fields(monkeypatch, 2_596_121))
    assert "tsc_early_khz" not in str(key_fields(monkeypatch, 2_596_120))
    assert "rdinit=/init" in str(key_fields(monkeypatch, 2_596_120))


def test_how_python_starts_is_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_fields(monkeypatch, 0)
    assert SUPERVISOR in str(before)
    monkeypatch.setenv("PYTHONHASHSEED", "123456")
    assert key_of(key_fields(monkeypatch, 0)) != key_of(before)


def test_nothing_is_left_where_the_view_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> View:
        raise SettingError("no such file")

    places = (Path("/modules"), Path("/"), Path("/busybox"))
    files = boot_files.BootFiles(Path("/vmlinuz"), Path("/initramfs"), "6.1", "digest", *places)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(factory, "choose_engine", lambda settings: FakeEngine(Script([]), []))
    monkeypatch.setattr(boot_files, "prepare", lambda *_: files)
    monkeypatch.setattr(factory, "base_view", fail)
    runs = tmp_path / "runs"
    runs.mkdir()
    threads = set(threading.enumerate())
    with pytest.raises(SettingError, match="no such file"):
        MachineFactory(Settings(), print, runs)
    assert not list(runs.iterdir())
    assert set(threading.enumerate()) == threads
