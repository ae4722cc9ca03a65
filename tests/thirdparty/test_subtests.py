"""pytest-subtests together with pytest's own subtests, which were derived from it."""

from __future__ import annotations

import pytest

from tests.thirdparty.bench import Bench

pytestmark = pytest.mark.vm


def test_subtests_of_the_plugin(bench: Bench) -> None:
    bench.write(
        "test_it.py",
        """
        def test_it(subtests):
            for n in range(3):
                with subtests.test("odd", n=n):
                    print("subtest", n)
                    assert n % 2
        """,
    )
    bench.same("-v -rA", plugins=("subtests",))
