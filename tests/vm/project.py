"""A small project of its own, run by a pytest process of its own, and what that left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pytest_smol.host import cache_directory
from tests.kvm.l1 import REQUIRED

__all__ = [
    "Case",
    "Project",
    "Result",
    "Run",
    "machines",
    "share_boot_files",
    "small_file_system",
    "wait_until",
]

#: The longest that one run may take before it counts as hanging, in seconds; generous, for a busy host.
LIMIT = 900.0


def wait_until(condition: Callable[[], object], what: str, limit: float = LIMIT) -> None:
    """Wait for ``condition`` to hold. Raises AssertionError that names ``what`` after ``limit`` seconds."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"waited {limit:g} s in vain for {what}"
        time.sleep(0.02)


def _is_pending(pid: int, number: signal.Signals) -> bool:
    """Whether a signal to the child ``pid`` is yet to be delivered (proc(5), ShdPnd)."""
    status = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
    (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith("ShdPnd:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def machines(*places: Path) -> dict[int, str]:
    """The processes that have a file below one of ``places`` on their command line, QEMUs all, by pid."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except OSError:  # it has just ended
                continue
            if any(f"mem-path={place}/" in line for place in places):
                found[int(entry.name)] = line
    return found


def share_boot_files(home: Path) -> None:
    """Let the cache below the XDG_CACHE_HOME ``home`` have the user's kernel, but nothing else."""
    boot = cache_directory.location(os.environ) / "boot"
    boot.mkdir(parents=True, exist_ok=True)
    own = home / "pytest-smol"
    own.mkdir(mode=0o700, parents=True)
    (own / "boot").symlink_to(boot)


@contextmanager
def small_file_system(place: Path, size: int) -> Iterator[Path]:
    """A file system of ``size`` MiB at the new directory ``place``. Skips where none can be mounted."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(place)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@dataclass(frozen=True)
class Case:
    """One test of a junit report: ``passed``, ``failed``, ``error`` or ``skipped``."""

    outcome: str
    message: str
    text: str
    properties: Mapping[str, str]


_OUTCOMES = {"failure": "failed", "error": "error", "skipped": "skipped"}


def _case(element: ET.Element) -> Case:
    properties = {each.get("name", ""): each.get("value", "") for each in element.iter("property")}
    output = "".join(each.text or "" for each in element if each.tag in ("system-out", "system-err"))
    for child in element:
        if child.tag in _OUTCOMES:
            text = (child.text or "") + output
            return Case(_OUTCOMES[child.tag], child.get("message", ""), text, properties)
    return Case("passed", "", output, properties)


@dataclass(frozen=True)
class Result:
    """How a run ended: its wait status, what it wrote, and its tests by name."""

    status: int
    stdout: str
    stderr: str
    cases: Mapping[str, Case]
    junit: str = ""

    @property
    def output(self) -> str:
        return self.stdout + self.stderr

    def outcomes(self) -> dict[str, str]:
        return {name: case.outcome for name, case in self.cases.items()}


class Run:
    """A pytest process that may still be running. Its output is in files, so that it never waits for us."""

    def __init__(self, argv: Sequence[str], cwd: Path, env: Mapping[str, str], logs: Path) -> None:
        logs.mkdir()
        logs.chmod(0o777)  # the run may be another user's
        self._stdout, self._stderr, self._junit = logs / "stdout", logs / "stderr", logs / "junit.xml"
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*argv, f"--junitxml={self._junit}"],
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )

    @property
    def stdout(self) -> str:
        return self._stdout.read_text("utf-8", "replace")

    def wait_for(self, word: str) -> None:
        """Wait until the run has written ``word`` to its standard output."""
        wait_until(lambda: word in self.stdout or self.process.poll() is not None, f"{word!r} in the output")
        assert word in self.stdout, self.stdout + self._stderr.read_text("utf-8", "replace")

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def interrupt_twice(self) -> None:
        """Send SIGINT again as soon as the first one is delivered: of two that are pending one is lost."""
        self.send(signal.SIGINT)
        wait_until(lambda: not _is_pending(self.process.pid, signal.SIGINT), "the delivery of SIGINT")
        self.send(signal.SIGINT)

    def result(self) -> Result:
        """Wait for its end."""
        try:
            status = self.process.wait(LIMIT)
        finally:
            self.process.kill()
            self.process.wait()
        cases = {}
        if self._junit.exists() and self._junit.stat().st_size:
            elements = ET.parse(self._junit).getroot().iter("testcase")
            cases = {element.get("name", ""): _case(element) for element in elements}
        junit = self._junit.read_text("utf-8") if self._junit.exists() else ""
        return Result(status, self.stdout, self._stderr.read_text("utf-8", "replace"), cases, junit)


@dataclass
class Project:
    """A directory with tests, and everything that a run of them may write to."""

    home: Path
    python: str = sys.executable
    prefix: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root = self.home / "project"
        self.temporary = self.home / "tmp"
        self._runs = 0
        for directory in (self.root, self.temporary):
            directory.mkdir(parents=True)
        self.write("pytest.ini", "[pytest]\naddopts = -p no:cacheprovider\n")

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def start(self, *args: str, **env: str) -> Run:
        """Start pytest with ``args`` in the project, and with ``env`` added to the environment."""
        self._runs += 1
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        environment = {**inherited, "TMPDIR": str(self.temporary), **self.env, **env}
        # Where scripts/kvm runs tests of machines, a probe that fails on a busy host must not pass unseen.
        kvm = ["--smol-accel=kvm"] if REQUIRED in os.environ else []
        argv = [*self.prefix, self.python, "-m", "pytest", *kvm, *args]
        return Run(argv, self.root, environment, self.home / f"run-{self._runs}")

    def run(self, *args: str, **env: str) -> Result:
        """Run pytest with ``args`` in the project to its end."""
        return self.start(*args, **env).result()

    def left_behind(self) -> list[str]:
        """Machines that still run, and files in the temporary directory."""
        running = [f"process {pid}: {line}" for pid, line in machines(self.home).items()]
        return running + [str(path) for path in self.temporary.iterdir()]
