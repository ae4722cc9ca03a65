"""hypothesis with tests in machines: what it found is tried first by the next run."""

from __future__ import annotations

import pytest

from tests.thirdparty.bench import Bench

pytestmark = pytest.mark.vm

HYPOTHESIS = ("_hypothesis_pytestplugin",)

FAILS = """
    from hypothesis import given, settings, strategies as st

    @settings(deadline=None)
    @given(st.integers())
    def test_small(x): assert x < 1234

    @settings(deadline=1)
    @given(st.integers())
    def test_slow(x):
        import time
        time.sleep(0.02)
"""


def test_a_failure_found_in_a_machine_is_tried_first_everywhere(bench: Bench) -> None:
    bench.write("test_it.py", FAILS)
    statistics = "--hypothesis-show-statistics"
    first = bench.smol(statistics, plugins=HYPOTHESIS)
    assert first.status == 1
    assert "x=1234," in first.text
    assert "DeadlineExceeded" in first.text
    assert "during generate phase" in first.text
    assert "during reuse phase" not in first.text
    examples = [name for name in first.files if name.startswith(".hypothesis/examples/")]
    assert examples
    for outcome in (bench.plain(statistics, plugins=HYPOTHESIS), bench.smol(statistics, plugins=HYPOTHESIS)):
        assert "during reuse phase" in outcome.text
        assert "x=1234," in outcome.text


def test_a_seed_gives_the_same_examples(bench: Bench) -> None:
    bench.write(
        "test_it.py",
        """
        from hypothesis import given, settings, strategies as st

        @settings(deadline=None, max_examples=8)
        @given(st.lists(st.integers()))
        def test_it(x): print(x)
        """,
    )
    first, again = (bench.smol("-rP", "--hypothesis-seed=3", plugins=HYPOTHESIS) for _ in range(2))
    # Not those of a plain run: hypothesis also tries constants of the modules that are loaded.
    assert again.comparable() == first.comparable()
    assert first.text.count("[") > 8
