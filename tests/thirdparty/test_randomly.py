"""pytest-randomly with tests in machines: the seed that the header shows is the guest's."""

from __future__ import annotations

import re

import pytest

from tests.thirdparty.bench import Bench

pytestmark = pytest.mark.vm

DRAWS = """
    import random
    import pytest

    @pytest.mark.parametrize("number", range(6))
    def test_draws(number):
        print("draw", number, random.random())

    class TestOther:
        def test_a(self):
            print("draw a", random.random())
        def test_b(self):
            print("draw b", random.random())
"""


@pytest.fixture
def project(bench: Bench) -> Bench:
    for name in ("a", "b", "c"):
        bench.write(f"test_{name}.py", DRAWS)
    return bench


def test_one_seed_gives_one_order_and_the_same_numbers_wherever(project: Bench) -> None:
    project.same("-v -rP --randomly-seed=7", plugins=("randomly",))


def test_the_seed_of_the_header_repeats_the_run(project: Bench) -> None:
    drawn = project.smol("-v", "-rP", plugins=("randomly",))
    found = re.search(r"Using --randomly-seed=(\d+)", drawn.text)
    assert found is not None, drawn
    again = project.plain("-v", "-rP", "-p", "randomly", f"--randomly-seed={found[1]}", plugins=("randomly",))
    assert drawn.comparable() == again.comparable()
    last = project.smol("-v", "-rP", "--randomly-seed=last", plugins=("randomly",))
    assert drawn.comparable() == last.comparable()


def test_each_scope_keeps_the_order(project: Bench) -> None:
    project.same("-v -rP --randomly-seed=7 --smol-scope=test -k draws", plugins=("randomly",))
