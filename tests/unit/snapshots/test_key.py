"""Keys of snapshots."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_smol.engines.confinement.domains import Level
from pytest_smol.engines.qemu.accelerator import Accelerator
from pytest_smol.engines.qemu.command_line import QemuConfig
from pytest_smol.engines.qemu.engine import QemuEngine
from pytest_smol.engines.qemu.program import Emulator
from pytest_smol.host import processor
from pytest_smol.snapshots import key
from pytest_smol.snapshots.key import base_key_fields, key_of
from pytest_smol.snapshots.snapshot import seal
from tests.unit.snapshot_samples import HARDWARE, VIEW, Builder

#: The boot of a machine, as base_key_fields takes it.
BOOT = ("digest", "quiet", ["python"])

EMULATOR = Emulator("/qemu", (10, 0, 0), "identity")
TCG = QemuEngine(QemuConfig(EMULATOR, Accelerator("tcg", "max", "")), Level(0))
KVM = QemuEngine(QemuConfig(EMULATOR, Accelerator("kvm", "host", "")), Level(0))


def test_a_key_depends_on_every_fact_and_not_on_their_order() -> None:
    fields = {"memory": 256, "emulator": ["/q", "10"]}
    assert key_of(fields) == key_of(dict(reversed(fields.items())))
    others = [{**fields, "memory": 257}, {**fields, "emulator": ["/q", "11"]}, {**fields, "more": None}, {}]
    assert len({key_of(each) for each in [fields, *others]}) == 5
    assert set(key_of(fields)) <= set("0123456789abcdef")
    assert len(key_of(fields)) == 32


def test_a_key_depends_on_the_format(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of({})
    monkeypatch.setattr(key, "FORMAT", key.FORMAT + 1)
    assert key_of({}) != before


def test_a_sealed_snapshot_cannot_be_written_to(tmp_path: Path) -> None:
    snapshot = Builder()(tmp_path)
    assert seal(snapshot) is snapshot
    assert {path.stat().st_mode & 0o777 for path in (snapshot.ram, snapshot.state)} == {0o444}


def key_on(engine: QemuEngine, host: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(processor, "identity", lambda: host)
    return key_of(base_key_fields(engine.identity(HARDWARE), BOOT, VIEW))


HOST = {"processors": [{"model": "143", "flags": "fpu"}], "kernel": ["6.1.0", "#1"]}
OTHER_HOSTS = [
    {**HOST, "processors": [{"model": "143", "flags": "avx fpu"}]},
    {**HOST, "processors": [*HOST["processors"], {"model": "85"}]},
    {**HOST, "kernel": ["6.2.0", "#1"]},
]


@pytest.mark.parametrize("other", OTHER_HOSTS)
def test_a_guest_that_is_shown_the_hosts_processor_depends_on_it(
    monkeypatch: pytest.MonkeyPatch, other: dict[str, Any]
) -> None:
    assert key_on(KVM, HOST, monkeypatch) == key_on(KVM, dict(HOST), monkeypatch)
    assert key_on(KVM, HOST, monkeypatch) != key_on(KVM, other, monkeypatch)


@pytest.mark.parametrize("other", OTHER_HOSTS)
def test_an_emulated_processor_does_not_depend_on_the_host(
    monkeypatch: pytest.MonkeyPatch, other: dict[str, Any]
) -> None:
    assert key_on(TCG, HOST, monkeypatch) == key_on(TCG, other, monkeypatch)


def test_every_fact_of_a_machine_counts() -> None:
    fields = base_key_fields(TCG.identity(HARDWARE), BOOT, VIEW)
    changed = [
        base_key_fields(TCG.identity(replace(HARDWARE, memory=2)), BOOT, VIEW),
        base_key_fields(TCG.identity(replace(HARDWARE, cpus=2)), BOOT, VIEW),
        base_key_fields(TCG.identity(HARDWARE), ("other", "quiet", ["python"]), VIEW),
        base_key_fields(TCG.identity(HARDWARE), ("digest", "loud", ["python"]), VIEW),
        base_key_fields(TCG.identity(HARDWARE), ("digest", "quiet", ["PYTHONHASHSEED=1", "python"]), VIEW),
    ]
    assert len({key_of(each) for each in [fields, *changed]}) == 6
