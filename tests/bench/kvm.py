"""What forks cost on KVM. Where this host has none, an emulated one is measured.

The clock of that counts instructions, one as one nanosecond, so a busy host changes no figure, and "ms"
stands for a million instructions, of the host's kernel, QEMU and pytest as of the guest. docs/performance.md
says what such counts leave out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_smol.engines.qemu import accelerator
from pytest_smol.errors import SmolError
from tests.bench import environments
from tests.bench.calibration import native_ms
from tests.bench.figures import Figure, as_json, differences, table
from tests.kvm.l1 import agent
from tests.kvm.l1.facts import facts
from tests.kvm.l1.files import ROOT, view_of_host
from tests.kvm.l1.machine import L1, Job
from tests.kvm.l1.run import MEMORY, environment, facts_of, report
from tests.suites.run import cache_folder

__all__ = ["factors", "main"]

#: How far two runs may be apart in a count.
TOLERANCE = 0.02


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench --kvm", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--emulated", action="store_true", help="use an emulated host in any case")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="an earlier --json: say what differs")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="samples of each figure (5)")
    return parser.parse_args(argv)


def figures_of(output: bytes) -> list[Figure]:
    """The figures in the last line that ``tests.bench.counted`` wrote. Raises ValueError."""
    rows = json.loads(output.splitlines()[-1]) if output else []
    return [Figure(row["name"], row["unit"], tuple(row["samples"])) for row in rows]


def factors(found: Sequence[Figure], native: Mapping[str, float]) -> dict[str, float]:
    """For each command of the calibration: its time in ``found`` divided by its processor time here."""
    known = {figure.name: figure.median for figure in found}
    return {name: known[f"calibration: {name}"] / value for name, value in native.items()}


def _measure_emulated(command: Sequence[str]) -> tuple[list[Figure], Mapping[str, str]]:
    written: list[bytes] = []

    def take(stream: str, data: bytes) -> None:
        if stream == "stdout":
            written.append(data)
        else:
            os.write(2, data)

    with L1(view_of_host([cache_folder()]), MEMORY, counted=True) as l1:
        rows = facts_of(l1)
        done = l1.run(Job(command, str(ROOT), environment(agent.TEMPORARY)), take)
    if done.status:
        raise SmolError(f"the measurement in the emulated host ended with status {done.status}")
    return figures_of(b"".join(written)), {"host": "emulated by QEMU's TCG, instructions are counted", **rows}


def _measure_here(command: Sequence[str]) -> tuple[list[Figure], Mapping[str, str]]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True)
    return figures_of(done.stdout), {"host": "this one", **facts()}


def main(argv: Sequence[str]) -> int:
    """Measure, print one report; the status is 1 where a count differs from those of ``--compare``."""
    arguments = parse_arguments(argv)
    begin = time.monotonic()
    here = not arguments.emulated and accelerator.verdict(accelerator.probe()) == ""
    with tempfile.TemporaryDirectory(prefix="smol-bench-") as folder:
        ours = environments.ours(Path(folder))
    forked = environments.python_with("forked", ("pytest~=8.4.0", "pytest-forked"))
    native = native_ms(10)
    command = [sys.executable, "-m", "tests.bench.counted", str(forked), str(ours), str(arguments.repeats)]
    try:
        found, rows = (_measure_here if here else _measure_emulated)(command)
    except SmolError as error:
        print(f"scripts/bench --kvm: {error}", file=sys.stderr)
        return 1
    scale = {name: f"{value:.2f}" for name, value in factors(found, native).items()}
    middle = statistics.median(factors(found, native).values())
    took = {"took": f"{time.monotonic() - begin:.0f} s"}
    calibration = {"time here / time natively": f"{middle:.2f} in the middle of {scale}"}
    print("\n".join([report({**rows, **calibration, **took}), "", *table(found)]))
    if arguments.json:
        document = {"machine": {**rows, **calibration}, "figures": as_json(found)}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    if not arguments.compare:
        return 0
    earlier = json.loads(arguments.compare.read_text("utf-8"))["figures"]
    apart = differences(found, {row["name"]: row["median"] for row in earlier}, TOLERANCE)
    print("\n".join(["", *(apart or [f"no figure differs by more than {TOLERANCE:.0%}"])]))
    return int(bool(apart))
