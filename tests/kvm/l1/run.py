"""Runs the project's tests, or any command, where KVM works: on this host, else in an emulated one."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_smol.engines.qemu import accelerator
from pytest_smol.errors import (
    AcceleratorUnusable,
    KernelUnavailable,
    NotEnoughMemory,
    QemuTooOld,
    SmolError,
    ToolMissing,
)
from pytest_smol.host.resources import available_memory
from tests.kvm.l1 import ALL, COUNTED, EMULATED, REQUIRED, SKIPPED, agent
from tests.kvm.l1.facts import facts
from tests.kvm.l1.files import ROOT, view_of_host
from tests.kvm.l1.machine import L1, Done, Job
from tests.kvm.l1.uevents import VmCounter

__all__ = ["OWN_JUNIT", "arguments_of", "environment", "facts_of", "main", "outcomes", "report"]

#: L1's memory in MiB. Guests of the tests have 512, and their memory is in L1's tmpfs.
MEMORY = 3072

#: Variables of the environment that a command in L1 gets.
PASSED = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TERM", "COLUMNS", "CI", "PYTEST_ADDOPTS")

#: The exit status of a shell whose command was interrupted.
INTERRUPTED = 128 + signal.SIGINT

#: The exit status where no command could be run at all, as that of env(1).
FAILED = 125

#: Errors that say that a host cannot be emulated here, whatever is tried.
UNAVAILABLE = (AcceleratorUnusable, KernelUnavailable, NotEnoughMemory, QemuTooOld, ToolMissing)

#: What this host has to have besides L1's memory, in bytes.
SPARE = 512 << 20


@dataclass(frozen=True)
class Arguments:
    """The command line: where to run, what, and the file that its junit report is to be written to.

    ``bring`` is another file that is brought from an emulated host, which is ended after ``limit`` seconds.
    With ``or_skip`` it is no failure that there is neither KVM nor an emulated host.
    """

    emulated: bool
    counted: bool
    or_skip: bool
    memory: int
    argv: tuple[str, ...]
    junit: str
    bring: str = ""
    limit: float = float("inf")


def arguments_of(argv: Sequence[str]) -> Arguments:
    """The parsed command line; options of this program come first, and all else is pytest's."""
    parser = argparse.ArgumentParser(prog="scripts/kvm", description=__doc__, allow_abbrev=False)
    parser.add_argument("--emulated", action="store_true", help="use an emulated host in any case")
    parser.add_argument(
        "--counted",
        action="store_true",
        help="let the clocks of the emulated host count nothing but instructions",
    )
    parser.add_argument(
        "--or-skip",
        action="store_true",
        help=f"exit with {SKIPPED} where no host can be emulated, as its parts cannot be had",
    )
    parser.add_argument(
        "--bring",
        default="",
        metavar="FILE",
        help="bring a file that the command wrote from an emulated host",
    )
    parser.add_argument(
        "--limit", type=float, default=float("inf"), metavar="S", help="end an emulated host after S seconds"
    )
    parser.add_argument("--memory", type=int, default=MEMORY, help="of the emulated host, in MiB")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="PYTEST ARGUMENT... | -- COMMAND...")
    own, rest = _split(argv)
    found = parser.parse_args(own)
    if rest[:1] == ["--"]:
        if not rest[1:]:
            parser.error("there is no command after --")
        command, junit = rest[1:], ""
    else:
        junit = _junit_of(rest)
        own_junit = [] if junit else [f"--junitxml={OWN_JUNIT}"]
        command = [sys.executable, "-m", "pytest", *(rest or ALL), *own_junit]
        junit = junit or OWN_JUNIT
    emulated = found.emulated or found.counted
    bring = os.path.abspath(found.bring) if found.bring else ""
    return Arguments(
        emulated, found.counted, found.or_skip, found.memory, tuple(command), junit, bring, found.limit
    )


#: Options of this program that take a value.
_WITH_VALUE = ("--memory", "--bring", "--limit")
_FLAGS = ("--emulated", "--counted", "--or-skip", "-h", "--help")

#: Where pytest writes its junit report if the user names no place; it is read for the summary, then removed.
OWN_JUNIT = f"/tmp/smol-kvm-{os.getpid()}.xml"


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The options of this program at the beginning of ``argv``, and the rest."""
    here = 0
    while here < len(argv) and (argv[here] in _FLAGS or argv[here].split("=")[0] in _WITH_VALUE):
        here += 2 if argv[here] in _WITH_VALUE else 1
    return list(argv[:here]), list(argv[here:])


def _junit_of(argv: Sequence[str]) -> str:
    """The absolute path of the junit report that pytest's arguments ask for, else an empty text."""
    for here, word in enumerate(argv):
        name, mark, value = word.partition("=")
        if name in ("--junitxml", "--junit-xml"):
            path = value if mark else "".join(argv[here + 1 : here + 2])
            return os.path.join(os.getcwd(), path) if path else ""
    return ""


def outcomes(junit: bytes) -> str:
    """The numbers of a junit report in one clause; empty for none. Raises ET.ParseError."""
    suites = list(ET.fromstring(junit).iter("testsuite")) if junit else []
    if not suites:
        return ""
    total = {name: sum(int(each.get(name, 0)) for each in suites) for name in _NUMBERS}
    passed = total["tests"] - total["failures"] - total["errors"] - total["skipped"]
    bad = total["failures"] + total["errors"]
    return f"{passed} passed, {bad} failed, {total['skipped']} skipped"


_NUMBERS = ("tests", "failures", "errors", "skipped")


def environment(temporary: str, *, counted: bool = False) -> dict[str, str]:
    """The environment of a command in L1, whose clock may be one that counts instructions."""
    kept = {name: os.environ[name] for name in PASSED if name in os.environ}
    return {
        "PATH": os.defpath,
        **kept,
        "TMPDIR": temporary,
        REQUIRED: "1",
        EMULATED: "1",
        **({COUNTED: "1"} if counted else {}),
        "PYTHONPATH": str(ROOT),
    }


def _sink(stream: str, data: bytes) -> None:
    os.write(1 if stream == "stdout" else 2, data)


def facts_of(l1: L1) -> dict[str, str]:
    """What the emulated host offers to KVM, as rows for the report."""
    written: list[bytes] = []
    asked = Job((sys.executable, "-m", "tests.kvm.l1.facts"), str(ROOT), environment(agent.TEMPORARY))
    l1.run(asked, lambda stream, data: written.append(data) if stream == "stdout" else None)
    return dict(json.loads(b"".join(written) or b"{}"))


def run_emulated(arguments: Arguments) -> tuple[Done, Mapping[str, str]]:
    """Run the command in L1; gives its end, and rows for the report."""
    if available_memory() < (arguments.memory << 20) + SPARE:
        raise NotEnoughMemory(f"an emulated host of {arguments.memory} MiB does not fit in the free memory")
    with L1(view_of_host(), arguments.memory, counted=arguments.counted) as l1:
        print(f"L1 is up after {l1.boot_time:.1f} s: Linux {l1.facts['kernel']}", flush=True)
        rows = facts_of(l1)
        files = [path for path in (arguments.junit, arguments.bring) if path]
        env = environment(agent.TEMPORARY, counted=arguments.counted)
        done = l1.run(Job(arguments.argv, os.getcwd(), env, files), _sink, arguments.limit)
    rows["machines"] = f"{done.machines} made by KVM, probes and makers of snapshots among them"
    return done, {"host": "emulated by QEMU's TCG", **rows}


def run_here(arguments: Arguments) -> tuple[Done, Mapping[str, str]]:
    """Run the command on this host; gives its end, and rows for the report."""
    counter = VmCounter()
    process = subprocess.Popen(arguments.argv, env={**os.environ, REQUIRED: "1", "PYTHONPATH": str(ROOT)})
    try:
        status = process.wait()
    except KeyboardInterrupt:  # the terminal has sent it to the command as well
        status = process.wait()
    made = counter.count()
    counter.close()
    path = Path(arguments.junit)
    files = {arguments.junit: path.read_bytes()} if arguments.junit and path.is_file() else {}
    rows = {
        "host": "this one",
        **facts(),
        "machines": f"{made} made by KVM, probes and makers of snapshots among them",
    }
    return Done(status if status >= 0 else 128 - status, files, made), rows


def report(rows: Mapping[str, str]) -> str:
    """Rows as lines, aligned."""
    width = max(map(len, rows)) + 1
    lines = [f"{name + ':':<{width}} {text}" for name, text in rows.items()]
    return "\n".join(["", "report of scripts/kvm", "---------------------", *lines])


def main(argv: Sequence[str]) -> int:
    """Run what ``argv`` says; gives the exit status of the command."""
    arguments = arguments_of(argv)
    begin = time.monotonic()
    here = not arguments.emulated and accelerator.verdict(accelerator.probe()) == ""
    try:
        done, rows = (run_here if here else run_emulated)(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except SmolError as error:
        skipped = arguments.or_skip and isinstance(error, UNAVAILABLE)
        print(f"scripts/kvm: {'skipped: ' if skipped else ''}{error}", file=sys.stderr)
        return SKIPPED if skipped else FAILED
    content = done.files.get(arguments.junit, b"")
    if arguments.junit == OWN_JUNIT:
        Path(OWN_JUNIT).unlink(missing_ok=True)
    elif content and not here:
        Path(arguments.junit).write_bytes(content)
    if arguments.bring in done.files:
        Path(arguments.bring).write_bytes(done.files[arguments.bring])
    counts = outcomes(content)
    took = f"{time.monotonic() - begin:.0f} s"
    print(report({**rows, **({"tests": counts} if counts else {}), "status": str(done.status), "took": took}))
    return done.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
