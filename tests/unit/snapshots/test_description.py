"""Keys of snapshots, and the files that describe them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_smol.snapshots import description
from pytest_smol.snapshots.description import key_of
from pytest_smol.snapshots.snapshot import seal
from tests.unit.snapshot_samples import Builder


def test_a_key_depends_on_every_fact_and_not_on_their_order() -> None:
    facts = {"memory": 256, "emulator": ["/q", "10"]}
    assert key_of(facts) == key_of(dict(reversed(facts.items())))
    others = [{**facts, "memory": 257}, {**facts, "emulator": ["/q", "11"]}, {**facts, "more": None}, {}]
    assert len({key_of(each) for each in [facts, *others]}) == 5
    assert set(key_of(facts)) <= set("0123456789abcdef")
    assert len(key_of(facts)) == 32


def test_a_key_depends_on_the_format(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of({})
    monkeypatch.setattr(description, "FORMAT", description.FORMAT + 1)
    assert key_of({}) != before


def test_a_sealed_snapshot_cannot_be_written_to(tmp_path: Path) -> None:
    snapshot = Builder()(tmp_path)
    assert seal(snapshot) is snapshot
    assert {path.stat().st_mode & 0o777 for path in (snapshot.ram, snapshot.state)} == {0o444}
