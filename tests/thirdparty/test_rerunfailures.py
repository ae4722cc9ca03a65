"""pytest-rerunfailures with tests in machines."""

from __future__ import annotations

import pytest

from tests.thirdparty.bench import Bench

pytestmark = pytest.mark.vm

FLAKY = """
    import pytest

    calls = []

    @pytest.fixture
    def counted():
        calls.append("call")
        yield len(calls)
        print("torn down")

    def test_third_time(counted):
        print("call", counted)
        assert counted == 3

    def test_never():
        raise ValueError("never")

    @pytest.mark.flaky(reruns=1, reruns_delay=0.01)
    def test_marked():
        raise OSError("marked")

    @pytest.fixture
    def broken():
        raise ValueError("set-up")

    def test_broken(broken):
        pass

    @pytest.fixture
    def breaks():
        yield
        raise ValueError("tear-down")

    def test_breaks(breaks):
        pass

    def test_passes():
        pass
"""


def test_reruns_are_shown_and_counted(bench: Bench) -> None:
    bench.write("test_it.py", FLAKY)
    bench.same(
        "--reruns 2 -rRA --junitxml=r.xml",
        "--reruns 2 --only-rerun ValueError --rerun-except tear -v -x",
        plugins=("rerunfailures",),
    )


def test_a_flaky_test_can_fail_the_run(bench: Bench) -> None:
    bench.write("test_it.py", FLAKY)
    outcome = bench.same("--reruns 2 --fail-on-flaky -k third_time", plugins=("rerunfailures",))
    assert outcome.status == 7
