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
from pytest_smol.errors import SmolError
from tests.kvm.l1 import EMULATED, REQUIRED, agent
from tests.kvm.l1.facts import facts
from tests.kvm.l1.files import ROOT, view_of_host
from tests.kvm.l1.machine import L1, Done, Job
from tests.kvm.l1.uevents import VmCounter

__all__ = ["DEFAULT", "OWN_JUNIT", "arguments_of", "environment", "main", "outcomes", "report"]

#: What runs without arguments: the tests that are marked for it, in the folders that have some.
DEFAULT = ("-m", "kvm", "tests/kvm", "tests/vm", "tests/hostile")

#: L1's memory in MiB. Guests of the tests have 512, and their memory is in L1's tmpfs.
MEMORY = 3072

#: Variables of the environment that a command in L1 gets.
PASSED = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TERM", "COLUMNS", "CI", "PYTEST_ADDOPTS")

#: The exit status of a shell whose command was interrupted.
INTERRUPTED = 128 + signal.SIGINT

#: The exit status where no command could be run at all, as that of env(1).
FAILED = 125


@dataclass(frozen=True)
class Arguments:
    """The command line: where to run, what, and the file that its junit report is to be written to."""

    emulated: bool
    counted: bool
    memory: int
    argv: tuple[str, ...]
    junit: str


def arguments_of(argv: Sequence[str]) -> Arguments:
    """The parsed command line; options of this program come first, and all else is pytest's."""
    parser = argparse.ArgumentParser(prog="scripts/kvm", description=__doc__, allow_abbrev=False)
    parser.add_argument("--emulated", action="store_true", help="use an emulated host in any case")
    parser.add_argument(
        "--counted", action="store_true", help="let the clocks of the emulated host count instructions"
    )
    parser.add_argument("--memory", type=int, default=MEMORY, help="of the emulated host, in MiB")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="PYTEST ARGUMENT... | -- COMMAND...")
    own, rest = _split(argv)
    found = parser.parse_args(own)
    if rest[:1] == ["--"]:
        if not rest[1:]:
            parser.error("there is no command after --")
        return Arguments(found.emulated or found.counted, found.counted, found.memory, tuple(rest[1:]), "")
    junit = _junit_of(rest)
    wanted = [*(rest or DEFAULT), *([] if junit else [f"--junitxml={OWN_JUNIT}"])]
    argv = (sys.executable, "-m", "pytest", *wanted)
    return Arguments(
        found.emulated or found.counted, found.counted, found.memory, tuple(argv), junit or OWN_JUNIT
    )


#: Options of this program that take a value.
_WITH_VALUE = ("--memory",)
_FLAGS = ("--emulated", "--counted", "-h", "--help")

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


def environment(temporary: str) -> dict[str, str]:
    """The environment of a command in L1."""
    kept = {name: os.environ[name] for name in PASSED if name in os.environ}
    return {
        "PATH": os.defpath,
        **kept,
        "TMPDIR": temporary,
        REQUIRED: "1",
        EMULATED: "1",
        "PYTHONPATH": str(ROOT),
    }


def _sink(stream: str, data: bytes) -> None:
    os.write(1 if stream == "stdout" else 2, data)


def run_emulated(arguments: Arguments) -> tuple[Done, Mapping[str, str]]:
    """Run the command in L1; gives its end, and rows for the report."""
    with L1(view_of_host(), arguments.memory, counted=arguments.counted) as l1:
        print(f"L1 is up after {l1.boot_time:.1f} s: Linux {l1.facts['kernel']}", flush=True)
        env = environment(agent.TEMPORARY)
        written: list[bytes] = []
        asked = Job((sys.executable, "-m", "tests.kvm.l1.facts"), str(ROOT), env)
        l1.run(asked, lambda stream, data: written.append(data) if stream == "stdout" else None)
        rows = dict(json.loads(b"".join(written) or b"{}"))
        files = [arguments.junit] if arguments.junit else []
        done = l1.run(Job(arguments.argv, os.getcwd(), env, files), _sink)
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
        print(f"scripts/kvm: {error}\n{error.evidence}", file=sys.stderr)
        return FAILED
    content = done.files.get(arguments.junit, b"")
    if arguments.junit == OWN_JUNIT:
        Path(OWN_JUNIT).unlink(missing_ok=True)
    elif content and not here:
        Path(arguments.junit).write_bytes(content)
    counts = outcomes(content)
    took = f"{time.monotonic() - begin:.0f} s"
    print(report({**rows, **({"tests": counts} if counts else {}), "status": str(done.status), "took": took}))
    return done.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
