"""How the costs of forks are compared with the recorded ones."""

from __future__ import annotations

import pytest

from tests.kvm.costs import apart


@pytest.mark.parametrize(
    ("found", "recorded", "wrong"),
    [
        (1040, 1000, False),
        (960, 1000, False),
        (1060, 1000, True),
        (900, 1000, True),
        (3, 0, False),
        (4, 0, True),
    ],
)
def test_a_cost_is_the_recorded_one_within_a_twentieth(found: float, recorded: float, wrong: bool) -> None:
    assert bool(apart({"a": found}, {"a": recorded})) == wrong


def test_a_cost_that_is_not_taken_any_more_is_noticed() -> None:
    assert apart({}, {"exits": 100}) == ["exits: 0, recorded 100"]
