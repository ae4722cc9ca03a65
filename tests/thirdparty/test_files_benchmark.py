"""pytest-benchmark with tests in machines: one table of all, and files that it saves and compares."""

from __future__ import annotations

import json

import pytest

from tests.thirdparty.bench import Bench

pytestmark = pytest.mark.vm

BENCHMARK = ("pytest_benchmark.plugin",)
QUICK = ["--benchmark-max-time=0.05", "--benchmark-min-rounds=2"]

FIRST = """
    def test_sum(benchmark): assert benchmark(sum, [1, 2]) == 3

    def test_extra(benchmark):
        benchmark.extra_info["key"] = 1
        benchmark.pedantic(sorted, ([2, 1],), rounds=5, iterations=3)

    def test_plain(): pass
"""

SECOND = """
    import pytest

    @pytest.mark.benchmark(group="other")
    def test_len(benchmark): benchmark(len, "abc")

    def test_fails(benchmark): benchmark(int, "x")
"""


def test_benchmarks_of_all_machines_are_saved_and_compared(bench: Bench) -> None:
    bench.write("test_a.py", FIRST)
    bench.write("test_b.py", SECOND)
    saved = bench.smol(*QUICK, "--benchmark-autosave", "--benchmark-json=out.json", plugins=BENCHMARK)
    assert saved.status == 1, saved
    data = json.loads(saved.files["out.json"])
    found = {each["name"]: each for each in data["benchmarks"]}
    assert list(found) == ["test_sum", "test_extra", "test_len"]
    assert found["test_extra"]["extra_info"] == {"key": 1}
    assert found["test_extra"]["stats"]["rounds"] == 5
    assert found["test_extra"]["stats"]["iterations"] == 3
    assert "benchmark 'other': 1 tests" in saved.text
    assert "benchmark: 2 tests" in saved.text
    compared = bench.smol(*QUICK, "--benchmark-compare", "--benchmark-only", plugins=BENCHMARK)
    assert "Comparing against benchmarks from" in "\n".join([*compared.out, *compared.err])
    assert "(NOW)" in compared.text
    assert "1 skipped" in compared.text


def test_benchmarks_are_skipped(bench: Bench) -> None:
    bench.write("test_a.py", FIRST)
    bench.same("--benchmark-skip -v", plugins=BENCHMARK)
