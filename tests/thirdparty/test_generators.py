"""Generators that numpy and cryptography keep in memory: each fork has its own numbers, or the seed's."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.plugin.lab import Outcome
from tests.thirdparty.bench import Bench

pytestmark = pytest.mark.vm

DRAWS = """
    import ssl
    import numpy
    import pytest
    from cryptography.hazmat.primitives.asymmetric import ed25519
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    def key():
        return ed25519.Ed25519PrivateKey.generate().private_bytes_raw().hex()

    # All generators are in use when the machine is frozen.
    numpy.random.random()
    print("state", hash(numpy.random.get_state()[1].tobytes()))
    ssl.RAND_bytes(8)
    key()

    @pytest.mark.parametrize("number", range(3))
    def test_draws(number):
        print("drawn numpy", numpy.random.random().hex())
        print("drawn numpy-integers", "-".join(map(str, numpy.random.randint(0, 1 << 30, 4))))
        print("drawn default_rng", numpy.random.default_rng().random().hex())
        print("drawn ssl", ssl.RAND_bytes(16).hex())
        print("drawn cryptography-key", key())
        print("drawn cryptography-aead", AESGCM.generate_key(128).hex())
"""

#: What ``--smol-seed`` repeats; all else is meant to be unpredictable.
SEEDED = {"numpy", "numpy-integers"}


@pytest.fixture
def project(bench: Bench) -> Bench:
    bench.write("test_draws.py", DRAWS)
    return bench


def drawn(outcome: Outcome) -> dict[str, list[str]]:
    """What each generator gave in the three tests."""
    values: dict[str, list[str]] = {}
    for name, value in _lines(outcome):
        values.setdefault(name, []).append(value)
    assert values, outcome
    assert {len(each) for each in values.values()} == {3}, outcome
    return values


def _lines(outcome: Outcome) -> Iterator[tuple[str, str]]:
    for found in re.finditer(r"^drawn (\S+) (\S+)$", outcome.text, re.MULTILINE):
        yield found[1], found[2]


def test_forks_share_no_numbers(project: Bench) -> None:
    values = drawn(project.smol("-rP", "--smol-scope=test"))
    assert set(values) > SEEDED
    for name, each in values.items():
        assert len(set(each)) == 3, name


def test_a_seed_gives_numpys_numbers_again_and_no_keys(project: Bench) -> None:
    first, second = (drawn(project.smol("-rP", "--smol-scope=test", "--smol-seed=7")) for _ in range(2))
    for name in first:
        assert len(set(first[name])) == 3, name
        assert (first[name] == second[name]) == (name in SEEDED), name
