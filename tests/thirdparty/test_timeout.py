"""pytest-timeout with tests in machines."""

from __future__ import annotations

import pytest

from tests.thirdparty.bench import Bench

pytestmark = pytest.mark.vm


def test_a_test_that_passes_in_time_looks_as_at_home(bench: Bench) -> None:
    bench.write("test_it.py", "def test_passes(): pass")
    bench.same("-v --timeout=60", plugins=("timeout",))
