"""What messages take, by and large."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_smol.errors import ProtocolError
from pytest_smol.reports.budget import MessageBudget, weight


@pytest.mark.parametrize(
    ("value", "least"),
    [
        ("x" * 5000, 5000),
        ({"x" * 5000: None}, 5000),
        ("x" * 4999 + "\U0001f600", 20_000),
        ([[]] * 1000, 56_000),
        ({"a": [{"b": "x" * 5000}] * 3}, 15_000),
        (list(range(1000)), 28_000),
    ],
)
def test_content_and_objects_count(value: Any, least: int) -> None:
    assert least <= weight(value) <= 2 * least + 1000


def test_depth_is_no_burden() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    assert weight(value) > 100_000


def test_an_allowance_is_for_one_thing_at_a_time() -> None:
    budget = MessageBudget("the test", 1 << 20)
    message = {"type": "warning", "text": "x" * 600_000}
    budget.take(message)
    budget.begin()
    budget.take(message)
    with pytest.raises(ProtocolError, match="the test reported more than 1 MiB") as caught:
        budget.take(message)
    assert caught.value.remedy
