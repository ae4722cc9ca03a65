"""Medians, the ninth decile and targets, as scripts/bench writes them."""

from __future__ import annotations

import json

import pytest

from tests.bench.figures import Figure, Target, as_json, table, verdicts

FAST = Figure("fast", "ms", (1.0, 3.0, 2.0))
SLOW = Figure("slow", "ms", (10.0,))
FIGURES = {"fast": FAST, "slow": SLOW}


@pytest.mark.parametrize(
    ("samples", "median", "p90"),
    [
        ((5.0,), 5, 5),
        ((1.0, 2.0), 1.5, 2),
        (tuple(map(float, range(1, 11))), 5.5, 9),
        (tuple(map(float, range(11, 0, -1))), 6, 10),
    ],
)
def test_medians_and_deciles(samples: tuple[float, ...], median: float, p90: float) -> None:
    figure = Figure("f", "s", samples)
    assert (figure.median, figure.p90) == (median, p90)


def test_the_table_has_a_row_for_each_figure() -> None:
    assert table([FAST, SLOW])[2:] == [
        "| fast | ms | 2 | 3 | 1 | 3 | 3 |",
        "| slow | ms | 10 | 10 | 10 | 10 | 1 |",
    ]


@pytest.mark.parametrize(
    ("target", "row"),
    [
        (Target("t", "slow", "fast", most=5), "| t | ≤ 5 | 5 | yes |"),
        (Target("t", "slow", "fast", most=4.9), "| t | ≤ 4.9 | 5 | no |"),
        (Target("t", "slow", "fast", least=5), "| t | ≥ 5 | 5 | yes |"),
        (Target("t", "slow", "fast", least=5.1), "| t | ≥ 5.1 | 5 | no |"),
    ],
)
def test_a_target_is_met_or_not(target: Target, row: str) -> None:
    assert verdicts([target], FIGURES)[2:] == [row]


def test_a_target_without_its_figures_is_left_out() -> None:
    assert len(verdicts([Target("t", "slow", "absent", most=1)], FIGURES)) == 2


def test_json_holds_every_sample() -> None:
    (row,) = json.loads(json.dumps(as_json([FAST])))
    assert row["samples"] == [1.0, 3.0, 2.0]
    assert (row["median"], row["n"]) == (2.0, 3)
