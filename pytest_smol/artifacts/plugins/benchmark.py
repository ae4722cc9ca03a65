"""pytest-benchmark: one table for the benchmarks of all machines, with the times measured there."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_smol.artifacts.plugins.bridge import BasicBridge, RunLimit
from pytest_smol.artifacts.plugins.shapes import (
    MAX_INTEGER,
    Shape,
    checked,
    integer,
    json_value,
    list_of,
    maybe,
    one_of,
    printable,
    real,
    table_of,
)
from pytest_smol.artifacts.visible import VisibleFiles
from pytest_smol.reports.budget import weight

__all__ = ["BenchmarkBridge"]

#: The longest time that a benchmark may have measured, in seconds: a year.
MAX_TIME = 366 * 86400.0

#: The most rounds of one benchmark.
MAX_ROUNDS = 1 << 20

#: The most that a run keeps of benchmarks, in bytes; a round takes about 90.
MAX_KEPT = 256 << 20

_table = maybe(table_of(printable, json_value, 1000))

#: What pytest_benchmark.stats.Metadata is made of.
_BENCHMARK: Mapping[str, Shape] = {
    "name": printable,
    "fullname": printable,
    "group": maybe(printable),
    "param": maybe(printable),
    "params": _table,
    "extra_info": lambda value: _table(value) or {},
    "iterations": integer(1, MAX_INTEGER),
    "options": table_of(printable, json_value, 100),
    "has_error": one_of(True, False),
    "data": list_of(real(0, MAX_TIME), MAX_ROUNDS),
}


class BenchmarkBridge(BasicBridge):
    """Adds guests' benchmarks to those of the host's session."""

    def __init__(self, config: pytest.Config, visible: VisibleFiles) -> None:
        super().__init__(config, visible)
        self._limit = RunLimit(MAX_KEPT, f"{MAX_KEPT >> 20} MiB of benchmarks")

    def take(self, data: dict[str, Any]) -> list[str]:
        """Add the guest's benchmarks to the host's list. Raises ValueError."""
        fields = checked(data, _BENCHMARK)
        if not fields["data"] and not fields["has_error"]:
            raise ValueError("a benchmark without times failed")
        session = self._config._benchmarksession
        _check_grouping(str(getattr(session, "group_by", "group")), fields["params"])
        self._limit.take(weight(fields))
        times, iterations, options = (fields.pop(name) for name in ("data", "iterations", "options"))
        stats: Any = sys.modules["pytest_benchmark.stats"]
        bench = stats.Metadata(SimpleNamespace(**fields, cprofile_stats=None), iterations, options)
        bench.stats.data = times
        session.benchmarks.append(bench)
        return []


def _check_grouping(group_by: str, params: Mapping[str, Any] | None) -> None:
    """Refuse a benchmark without a parameter that ``--benchmark-group-by=param:NAME`` looks up."""
    for grouping in group_by.split(","):
        name = grouping.removeprefix("param:")
        if name != grouping and name not in (params or {}):
            raise ValueError(f"a benchmark with the parameter {name} is expected")
