"""What the tests with hostile guests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hostile.arena import Arena


@pytest.fixture
def arena() -> Iterator[Arena]:
    with Arena() as made:
        yield made
