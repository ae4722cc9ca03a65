"""Measures what pytest-smol and the alternatives cost, and writes one table.

Every figure is a median of samples that were taken in turn with those it is compared with. Nothing here
passes or fails: the machine is shared, and a ratio of one run is what can be said.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_smol.engines.qemu import accelerator, program
from tests.bench import contents, environments, files, kvm, machines, peers, runs
from tests.bench.figures import Figure, Target, as_json, table, verdicts

TARGETS = (
    Target(
        "fork to restored / QEMU's own start and quit", "fork to restored", "QEMU: start and quit", most=1.5
    ),
    Target("fork to report of a trivial test / the same", "fork to report", "QEMU: start and quit", most=5),
    Target("the same, made ahead", "fork to report, made ahead", "QEMU: start and quit", most=4),
    Target(
        "first failing test / a passing one",
        "in the fork: a failing test",
        "in the fork: a passing test",
        most=6,
    ),
    Target(
        "virtme-ng's boot (s) / a test of ours (ms, 200 tests)",
        "virtme-ng: boot, run, power off",
        "200 trivial tests, each: smol, test scope",
        least=0.06,
    ),
    Target(
        "quicksand's revert and run / a test of ours (200 tests)",
        "quicksand: revert and run",
        "200 trivial tests, each: smol, test scope",
        least=2.5,
    ),
    Target("jinja2: module scope / one machine", "jinja2: module scope", "jinja2: one machine", most=1.25),
    Target(
        "stat storm: ours in a fork / virtiofsd",
        "stat_storm: ours, in a fork",
        "stat_storm: virtiofsd",
        least=1,
    ),
    Target(
        "small files: ours in a fork / virtiofsd",
        "small_files: ours, in a fork",
        "small_files: virtiofsd",
        least=1,
    ),
)


def sections(arguments: argparse.Namespace) -> dict[str, Callable[[Path], Iterator[Figure]]]:
    """What can be measured, by name; each is given a directory of its own."""
    few = max(1, arguments.repeats // 4)
    live = [int(number) for number in arguments.live.split(",")]
    counts = [int(number) for number in arguments.tests.split(",")]
    return {
        "forks": lambda folder: machines.measure(folder, arguments.repeats),
        "live": lambda folder: machines.measure_live(folder, live),
        "trivial": lambda folder: runs.trivial_suites(environments.ours(folder), counts, few),
        "machines": lambda folder: runs.many_machines(environments.ours(folder), max(counts)),
        "start": lambda folder: runs.first_result(environments.ours(folder), arguments.repeats),
        "suite": lambda folder: runs.real_suite("jinja2", few),
        "contents": lambda folder: contents.measure(arguments.repeats),
        "files": lambda folder: files.measure(folder, few),
        "quicksand": lambda folder: peers.quicksand(arguments.repeats),
        "virtme-ng": lambda folder: peers.virtme_ng(few),
    }


def machine() -> dict[str, str]:
    """What the figures were read on."""
    cpuinfo = Path("/proc/cpuinfo").read_text("utf-8")
    model = next(
        (line.partition(":")[2].strip() for line in cpuinfo.splitlines() if "model name" in line), "?"
    )
    meminfo = Path("/proc/meminfo").read_text("ascii").split()
    chosen = accelerator.choose("auto")
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "processor": f"{len(os.sched_getaffinity(0))} x {model}",
        "memory": f"{int(meminfo[1]) >> 20} GiB",
        "kernel": platform.release(),
        "emulator": f"QEMU {program.find('qemu-system-x86_64').version_text}, {chosen.name}",
        "python": f"{platform.python_version()}, pytest {pytest.__version__}",
        "load": "{:.1f} {:.1f} {:.1f} (1, 5, 15 minutes, at the end)".format(*os.getloadavg()),
    }


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there")
    parser.add_argument(
        "--repeats", type=int, default=20, metavar="N", help="samples of the quick figures (20)"
    )
    parser.add_argument("--tests", default="20,200,1000", metavar="N,N", help="sizes of the trivial suites")
    parser.add_argument("--live", default="1,10,50,100", metavar="N,N", help="numbers of live forks")
    parser.add_argument(
        "only",
        nargs="*",
        metavar="SECTION",
        help="forks, live, trivial, machines, start, suite, contents, files, ...",
    )
    parser.add_argument("--kvm", action="store_true", help="figures of KVM (scripts/bench --kvm --help)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure what ``argv`` says and print it; ``--kvm`` before all else is another program's."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["--kvm"]:
        return kvm.main(words[1:])
    arguments = parse_arguments(argv)
    found: list[Figure] = []
    known = sections(arguments)
    unknown = set(arguments.only) - known.keys()
    if unknown:
        print(f"no such section: {', '.join(sorted(unknown))}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    for name in arguments.only or known:
        print(f"measuring {name}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="smol-bench-") as folder:
            try:
                found += known[name](Path(folder))
            except peers.PeerMissing as missing:
                print(f"  left out: {missing}", file=sys.stderr, flush=True)
    described = machine()
    lines = [f"- {key}: {value}" for key, value in described.items()]
    print("\n".join([*lines, "", *table(found), "", *verdicts(TARGETS, {each.name: each for each in found})]))
    if arguments.json:
        document = {"machine": described, "figures": as_json(found)}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
