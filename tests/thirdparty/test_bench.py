"""Comparisons of runs with real plugins fail where tests that belong in machines run on the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from tests.plugin.lab import Outcome
from tests.thirdparty.bench import Bench

TESTS = "def test_passes(): pass\ndef test_fails(): assert 0\n"


@pytest.fixture
def without_host_side(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A bench whose ``--smol`` does nothing."""
    run = bench.run

    def on_host(
        *args: str, plugins: Sequence[str] | None = (), env: Mapping[str, str] | None = None
    ) -> Outcome:
        return run(*[arg for arg in args if arg != "--smol"], plugins=plugins, env=env)

    monkeypatch.setattr(bench, "run", on_host)
    return bench


@pytest.mark.parametrize("run", ["", "-v", "-n2", "-k fails"])
def test_a_run_without_machines_is_not_the_same(without_host_side: Bench, run: str) -> None:
    without_host_side.write("test_it.py", TESTS)
    with pytest.raises(AssertionError, match=r"on the host ran test_it\.py::test_fails"):
        without_host_side.same(run, plugins=("xdist",))


def test_a_run_without_tests_proves_nothing(without_host_side: Bench) -> None:
    without_host_side.write("test_it.py", TESTS)
    with pytest.raises(AssertionError, match="no test ran"):
        without_host_side.same("-k nothing")
    with pytest.raises(AssertionError, match="was to run no test"):
        without_host_side.both("", runs_tests=False)
