"""Generators that are reseeded in each fork: which, from what, and only those that are loaded."""

from __future__ import annotations

import random
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_smol.guest import identity


class Calls:
    """A module in whose place calls are noted: each function's name with the arguments."""

    def __init__(self) -> None:
        self.made: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args: self.made.append((name, *args))


@pytest.fixture(autouse=True)
def nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave this process's own modules as they are."""
    for name in (*identity.SEEDED, *identity.DRAWN):
        monkeypatch.delitem(sys.modules, name, raising=False)


def load(monkeypatch: pytest.MonkeyPatch, name: str, module: Any) -> Any:
    monkeypatch.setitem(sys.modules, name, module)
    return module


def test_what_is_not_loaded_stays_so() -> None:
    before = set(sys.modules)
    identity.reseed_generators()
    identity.seed_generators(7)
    assert set(sys.modules) == before


@pytest.mark.parametrize("name", identity.SEEDED)
def test_a_seed_sets_what_takes_one(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    module = load(monkeypatch, name, Calls())
    identity.seed_generators(7)
    identity.reseed_generators()
    assert module.made == [("seed", 7), ("seed", None)]


@pytest.mark.parametrize("name", identity.DRAWN)
def test_a_seed_sets_nothing_else(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    module = load(monkeypatch, name, Calls())
    identity.seed_generators(7)
    assert module.made == []


def test_openssl_is_given_fresh_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    ssl = load(monkeypatch, "_ssl", Calls())
    bundled = Calls()
    load(
        monkeypatch,
        "cryptography.hazmat.bindings._rust",
        SimpleNamespace(_openssl=SimpleNamespace(lib=bundled)),
    )
    for _ in range(2):
        identity.reseed_generators()
    for made in (ssl.made, bundled.made):
        (first, second) = made
        assert first[0] == second[0] == "RAND_add"
        assert len(first[1]) == 32
        assert first[1] != second[1]


@pytest.mark.parametrize(
    "bindings", [SimpleNamespace(), SimpleNamespace(_openssl=SimpleNamespace(lib=object()))]
)
def test_a_cryptography_without_these_parts_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, bindings: Any
) -> None:
    load(monkeypatch, "cryptography.hazmat.bindings._rust", bindings)
    identity.reseed_generators()


def test_uuid_has_another_node_and_no_counters() -> None:
    """In a process of its own, as it changes the module."""
    source = """
import uuid
from pytest_smol.guest import identity
import sys
names = [name for name in vars(uuid) if name.startswith("_last_timestamp")]
seen = []
for _ in range(3):
    for version in ("uuid1", "uuid6", "uuid7"):
        getattr(uuid, version, uuid.uuid1)()
    identity.reseed_generators()
    assert not any(getattr(uuid, name) for name in names)
    made = uuid.uuid1()
    assert made.node == uuid.getnode() == uuid._node
    assert made.version == 1 and made.node >> 40 & 1
    seen.append(made.node)
assert len(set(seen)) == 3
"""
    subprocess.run([sys.executable, "-c", source], check=True)


def test_tempfile_draws_other_names(monkeypatch: pytest.MonkeyPatch) -> None:
    tempfile = load(monkeypatch, "tempfile", SimpleNamespace(_name_sequence=iter("abc")))
    identity.reseed_generators()
    assert tempfile._name_sequence is None


def test_random_begins_with_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    state = random.getstate()
    load(monkeypatch, "random", random)
    try:
        identity.seed_generators(7)
        assert random.random() == random.Random(7).random()
        identity.reseed_generators()
        assert random.random() != random.Random(7).random()
    finally:
        random.setstate(state)
