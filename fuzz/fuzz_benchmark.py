"""What a guest says that pytest-benchmark measured, through the bridge to it.

The invariant: ValueError, or a benchmark that can be summed up, shown and written as strict JSON; with the
real plugin its own statistics, where it is installed.
"""

from __future__ import annotations

import json
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any, cast

from fuzz.support.changes import changed
from fuzz.support.plugins import bridge_of, config_of, in_place, real
from fuzz.support.supply import Supply

__all__ = ["run", "stand_in"]

_SAMPLE = {
    "name": "test_it",
    "fullname": "test_a.py::test_it",
    "group": None,
    "param": "x",
    "params": {"x": 1, "y": [1, {"z": None}]},
    "extra_info": {"a": 1, "b": "text"},
    "iterations": 2,
    "options": {"disable_gc": False, "timer": "perf_counter", "min_rounds": 5, "max_time": 1.0},
    "has_error": False,
    "data": [0.5, 1, 0.25],
}

_GROUPS = ("group", "param:x", "name,fullname", "func", "group,param:y")


def stand_in() -> ModuleType:
    """A stand-in for pytest_benchmark.stats."""
    stats: Any = ModuleType("pytest_benchmark.stats")
    stats.Metadata = lambda fixture, iterations, options: SimpleNamespace(
        **vars(fixture), iterations=iterations, options=options, stats=SimpleNamespace(data=[])
    )
    return cast(ModuleType, stats)


@cache
def _module() -> ModuleType:
    return real("pytest_benchmark.stats") or stand_in()


def run(data: bytes) -> None:
    """One benchmark as ``data`` changes it."""
    supply = Supply(data)
    config = config_of("benchmark")
    config._benchmarksession = SimpleNamespace(benchmarks=[], group_by=supply.choice(_GROUPS))
    bridge = bridge_of("benchmark", config)
    said = changed(json.loads(json.dumps(_SAMPLE)), supply)
    try:
        with in_place(pytest_benchmark__stats=_module()):
            assert bridge.take(said) == []
    except ValueError:
        return
    (bench,) = config._benchmarksession.benchmarks
    _use(bench, config._benchmarksession.group_by)


def _use(bench: Any, group_by: str) -> None:
    """What pytest-benchmark makes of it at the end of a run."""
    fields = [bench.name, bench.fullname, bench.group, bench.param, bench.params, bench.extra_info]
    shown = json.dumps([*fields, bench.options, bench.stats.data], allow_nan=False)
    shown.encode("ascii")
    assert all(text is None or text.isprintable() for text in (bench.name, bench.fullname, bench.group))
    for grouping in group_by.split(","):
        if grouping.startswith("param:"):
            str(bench.params[grouping.removeprefix("param:")]).encode("utf-8")
    if hasattr(bench, "as_dict") and bench:
        json.dumps(bench.as_dict(include_data=True), allow_nan=False).encode("utf-8")
        json.dumps(bench.as_dict(include_data=False, flat=True), allow_nan=False)
