"""Whole runs of pytest as a user starts them: trivial suites, a real one, the wait for a first result."""

from __future__ import annotations

import itertools
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.environments import python_with
from tests.bench.figures import Figure
from tests.suites.run import build_wheel, prepared, run
from tests.suites.table import SUITES

__all__ = ["Way", "first_result", "many_machines", "real_suite", "run_pytest", "trivial_suites"]

_LIMIT = 3600

_MODULE = """
import pytest

@pytest.mark.parametrize("number", range({count}))
def test_trivial(number):
    assert number >= 0
"""


@dataclass(frozen=True)
class Way:
    """One way to run a suite: its name in the table, its arguments, and what it needs that ours has not."""

    name: str
    arguments: tuple[str, ...]
    requirements: tuple[str, ...] = ()


WAYS = (
    Way("plain pytest", ("-p", "no:smol")),
    Way("pytest-forked (pytest 8.4)", ("--forked",), ("pytest~=8.4.0", "pytest-forked")),  # fails with 9.2
    Way("pytest-xdist -n 2", ("-p", "no:smol", "-n", "2")),
    Way("smol, module scope", ("--smol",)),
    Way("smol, test scope", ("--smol", "--smol-scope=test")),
    Way("smol, test scope, -n 2", ("--smol", "--smol-scope=test", "-n", "2")),
)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHON"))}


def run_pytest(python: Path, project: Path, arguments: Sequence[str], first: str = "") -> tuple[float, float]:
    """Seconds from the start of pytest to the word ``first`` in its output, and to its end."""
    command: list[str | Path] = [python, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    begin = time.perf_counter()
    with subprocess.Popen(
        command,
        cwd=project,
        env={**_environment(), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        shown, seen = "", 0.0
        while line := process.stdout.readline():
            shown += line
            if first and not seen and first in line:
                seen = time.perf_counter() - begin
        status = process.wait(_LIMIT)
    if status:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {status}:\n{shown[-3000:]}")
    return seen, time.perf_counter() - begin


def trivial_suites(python: Path, counts: Sequence[int], repeats: int) -> Iterator[Figure]:
    """Milliseconds per test of suites of trivial tests, all ways in turn."""
    for count in counts:
        with tempfile.TemporaryDirectory(prefix="smol-bench-") as folder:
            project = Path(folder)
            (project / "pytest.ini").write_text("[pytest]\n", "utf-8")
            (project / "test_trivial.py").write_text(_MODULE.format(count=count), "utf-8")
            pythons = {
                way: python_with("forked", way.requirements) if way.requirements else python for way in WAYS
            }
            for way in WAYS:  # the first run of each makes what later runs find
                run_pytest(pythons[way], project, (*way.arguments, "--collect-only", "-q"))
            samples: dict[str, list[float]] = {way.name: [] for way in WAYS}
            for _ in range(repeats):
                for way in WAYS:
                    taken = run_pytest(pythons[way], project, (*way.arguments, "-q"))[1]
                    samples[way.name].append(taken * 1000 / count)
            for name, values in samples.items():
                yield Figure(f"{count} trivial tests, each: {name}", "ms", tuple(values))


def many_machines(python: Path, count: int) -> Iterator[Figure]:
    """Milliseconds per test and memory of pytest's process, by tenths of a run of ``count`` machines."""
    with tempfile.TemporaryDirectory(prefix="smol-bench-") as folder:
        project = Path(folder)
        (project / "pytest.ini").write_text("[pytest]\n", "utf-8")
        (project / "test_trivial.py").write_text(_MODULE.format(count=count), "utf-8")
        command = [python, "-m", "pytest", "-p", "no:cacheprovider", "--smol", "--smol-scope=test", "-v"]
        times, sizes = [], []
        with subprocess.Popen(
            command, cwd=project, env=_environment(), stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if "PASSED" in line:
                    times.append(time.perf_counter())
                    sizes.append(_resident(process.pid))
            if process.wait(_LIMIT) or len(times) != count:
                raise RuntimeError(f"{len(times)} of {count} tests passed")
    taken = [(later - earlier) * 1000 for earlier, later in itertools.pairwise(times)]
    tenth = max(2, count // 10)
    for begin in range(0, count, tenth):
        name = f"machines {begin + 1} to {min(begin + tenth, count)} of {count}"
        yield Figure(f"{name}: time for each", "ms", tuple(taken[begin : begin + tenth]))
        yield Figure(f"{name}: pytest's memory", "MB", tuple(sizes[begin : begin + tenth]))


def _resident(pid: int) -> float:
    """MB that a process has in memory: VmRSS of proc(5)."""
    status = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1024


def first_result(python: Path, repeats: int) -> Iterator[Figure]:
    """Seconds until a project of one test shows its result: snapshot cached, and not."""
    with tempfile.TemporaryDirectory(prefix="smol-bench-") as folder:
        project = Path(folder)
        (project / "pytest.ini").write_text("[pytest]\n", "utf-8")
        (project / "test_one.py").write_text("def test_one():\n    assert True\n", "utf-8")
        arguments = ("--smol", "-v")
        run_pytest(python, project, arguments)
        warm = [run_pytest(python, project, arguments, "PASSED") for _ in range(repeats)]
        plain = [run_pytest(python, project, ("-p", "no:smol", "-v"), "PASSED") for _ in range(repeats)]
        cold = [_cold(python, project, arguments) for _ in range(max(1, repeats // 5))]
    yield Figure("first result, plain pytest", "s", tuple(first for first, _ in plain))
    yield Figure("first result, warm", "s", tuple(first for first, _ in warm))
    yield Figure("whole run of one test, warm", "s", tuple(end for _, end in warm))
    yield Figure("first result, no base snapshot yet", "s", tuple(cold))


def _cold(python: Path, project: Path, arguments: Sequence[str]) -> float:
    """Seconds until the first result where the base snapshot has to be made."""
    (project / "conftest.py").touch()
    code = "from pytest_smol.host import cache_directory; print(cache_directory.directory() / 'base')"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    for manifest in Path(done.stdout.strip()).glob("*/manifest.json"):
        manifest.unlink()
    return run_pytest(python, project, arguments, "PASSED")[0]


def real_suite(name: str, repeats: int) -> Iterator[Figure]:
    """Seconds of a real suite: plain, a machine for each module, and one machine for all of it."""
    ways = {
        "plain": ["-p", "no:smol"],
        "module scope": ["--smol"],
        "one machine": ["--smol", "--smol-scope=session"],
    }
    samples: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory(prefix="smol-bench-") as folder:
        wheel = build_wheel(Path(folder))
        with prepared(name, wheel, fresh=False) as (place, tree):
            run(place, SUITES[name], tree, "bench", [*ways["module scope"], "--collect-only"])
            for _ in range(repeats):
                for way, options in ways.items():
                    samples[way].append(run(place, SUITES[name], tree, "bench", options).seconds)
    for way, values in samples.items():
        yield Figure(f"{name}: {way}", "s", tuple(values))
