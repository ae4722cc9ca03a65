"""Runs of pytest on one project, plain and with fake machines, to lay side by side."""

from __future__ import annotations

import difflib
import re
import shutil
import signal
import textwrap
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from xml.etree import ElementTree

import pytest

# Here and not where it is needed: pytester forgets the modules that a test imports.
import pytest_smol.session.run as smol_session
from tests.plugin import kept_between_runs
from tests.plugin.fakes import FirstProcess, Guest, Record, factory_of

kept_between_runs.install()

#: The longest that one run of pytest may take, in seconds: a run that hangs fails, and stops no others.
#: Generous, for a busy host.
LIMIT = 900

#: What may differ between two runs of one suite, and what is put in its place.
_VOLATILE = (
    (re.compile(r"\bin \d+\.\d\ds(?: \(\d+:\d\d:\d\d\))?"), "in TIME"),
    (re.compile(r"\b\d+\.\d\ds (call|setup|teardown)"), r"TIME \1"),
    (re.compile(r"\(cache from \d+:\d\d:\d\d ago"), "(cache from TIME ago"),
    (re.compile(r"0x[0-9a-f]{6,}"), "ADDRESS"),
    (re.compile(r"/pytest-\d+/"), "/pytest-N/"),
    (re.compile(r"oldfd=\d+"), "oldfd=NUMBER"),
    (re.compile(r"([=_-])\1{3,}"), r"\1\1\1"),
)


#: Frames of pytester's in a traceback, which only the plain run has: it watches hooks there.
_PYTESTERS_FRAME = re.compile(r"pluggy/_manager\.py\S*: in (traced_hookexec|<lambda>)")


def normalised(lines: Iterable[str]) -> list[str]:
    """``lines`` without times, addresses and our own lines."""
    result = []
    left_out = 0
    for line in lines:
        if _PYTESTERS_FRAME.search(line):
            left_out = 2
        if left_out:  # the frame, and its line of code
            left_out -= 1
        elif not line.startswith("smol: "):
            result.append(_constant(line))
    return result


def _constant(line: str) -> str:
    for pattern, constant in _VOLATILE:
        line = pattern.sub(constant, line)
    return line


@dataclass
class Outcome:
    """One run: its exit status, the lines it wrote, and the hooks that were called."""

    status: int
    out: list[str]
    err: list[str]
    files: dict[str, str]
    #: The node ids of the tests that this process's pytest reported as begun, and that it set up itself.
    begun: frozenset[str] = frozenset()
    set_up: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return "\n".join([f"exit status {self.status}", *self.out, "--- stderr", *self.err])

    @property
    def text(self) -> str:
        return "\n".join(self.out)

    def comparable(self) -> list[str]:
        """All that a user sees of the run, but what may differ from run to run."""
        err = "\n".join(normalised(self.err)).rstrip().splitlines()
        return [f"exit status {self.status}", *normalised(self.out), "stderr:", *err]


def difference(plain: list[str], smol: list[str]) -> str:
    """How two runs differ, as diff(1) shows it; empty if they do not."""
    return "\n".join(difflib.unified_diff(plain, smol, "plain", "smol", lineterm="", n=1))


@contextmanager
def _limited(seconds: int) -> Iterator[None]:
    def expire(number: int, frame: object) -> NoReturn:
        raise SystemExit(f"a run of pytest took longer than {seconds} s")

    previous = signal.signal(signal.SIGALRM, expire)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def without_machines(outcome: Outcome, record: Record) -> str:
    """What of a run took place on the host although it belongs in machines; empty if nothing did.

    What counts is what arrived on the control channels of the machines: the
    session's guest has sent messages, and a fork has announced each test.
    """
    if not any(machine.received for machine in record.sessions):
        return "no guest session sent a message"
    announced = {nodeid for fork in record.ran for nodeid in fork}
    if outcome.begun - announced:
        return f"no fork announced {sorted(outcome.begun - announced)}"
    if outcome.set_up:
        return f"the host set up {sorted(outcome.set_up)}"
    return ""


def _calls(result: pytest.RunResult, hook: str) -> list[Any]:
    """The calls of ``hook`` in a run in this process; of a run elsewhere, or that failed early, none."""
    recorder = getattr(result, "reprec", None)
    return recorder.getcalls(hook) if isinstance(recorder, pytest.HookRecorder) else []


class Lab:
    """A pytester project, and ways to run it."""

    def __init__(
        self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, first: FirstProcess
    ) -> None:
        self._pytester = pytester
        self._monkeypatch = monkeypatch
        self._first = first
        self.record = Record()

    @property
    def path(self) -> Path:
        """The project's directory."""
        return self._pytester.path

    def project(self, **files: str) -> None:
        """Write files: ``test_a="..."`` is test_a.py, ``a__b`` is a/b.py, ``pytest_ini`` is pytest.ini."""
        for name, text in files.items():
            path = self._pytester.path / _path_of(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedented(text), encoding="utf-8")

    def plain(self, *args: str, apart: bool = False) -> Outcome:
        """A run without machines; ``apart`` in a process of its own, with none of pytester's frames."""
        if apart:
            return self._outcome(self._pytester.runpytest_subprocess(*args, timeout=LIMIT))
        return self._run(*args)

    def smol(self, *args: str, forks: Iterable[Guest] = (), session: Guest | None = None) -> Outcome:
        """A run whose machines are fake; give ``--smol`` where it is wanted. See :attr:`record` then."""
        self.record = Record()
        with self._monkeypatch.context() as patch:
            fake = factory_of(session or self._first, forks, self.record)
            patch.setattr(smol_session, "MachineFactory", fake)
            outcome = self._run(*args)
        assert self.record.closed == self.record.factories, "a factory was left open"
        return outcome

    def _run(self, *args: str) -> Outcome:
        with _limited(LIMIT):
            return self._outcome(self._pytester.runpytest_inprocess(*args, no_reraise_ctrlc=True))

    def _outcome(self, result: pytest.RunResult) -> Outcome:
        files = {path.name: path.read_text("utf-8") for path in self._pytester.path.glob("*.xml")}
        begun = frozenset(call.nodeid for call in _calls(result, "pytest_runtest_logstart"))
        set_up = frozenset(call.item.nodeid for call in _calls(result, "pytest_runtest_setup"))
        return Outcome(int(result.ret), result.outlines, result.errlines, files, begun, set_up)

    def both(
        self, *runs: str, apart: bool = False, on_host: Collection[str] = ()
    ) -> list[tuple[Outcome, Outcome]]:
        """Each of the command lines ``runs``, one after the other, plain and with ``--smol``.

        Raises AssertionError for one that did not collect and run its tests in
        machines. Those in ``on_host`` must start none: pytest refuses them, or
        answers them, before a session begins.
        """
        pristine = self._pytester.path.with_name(f"{self._pytester.path.name}-pristine")
        shutil.copytree(self._pytester.path, pristine, dirs_exist_ok=True)
        plain = [self.plain(*run.split(), apart=apart) for run in runs]
        for path in self._pytester.path.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        shutil.copytree(pristine, self._pytester.path, dirs_exist_ok=True)
        smol = [
            self._without_session(*run.split()) if run in on_host else self.in_machines(*run.split())
            for run in runs
        ]
        return list(zip(plain, smol, strict=True))

    def in_machines(self, *args: str) -> Outcome:
        """A run with ``--smol``. Raises AssertionError if a test ran on the host or no guest collected."""
        outcome = self.smol("--smol", *args)
        wrong = without_machines(outcome, self.record)
        assert not wrong, f"pytest --smol {' '.join(args)}: {wrong}\n{outcome}"
        return outcome

    def _without_session(self, *args: str) -> Outcome:
        """A run with ``--smol`` that pytest refuses or answers itself: it starts no machine and no test."""
        outcome = self.smol("--smol", *args)
        assert not self.record.factories, f"pytest --smol {' '.join(args)} made machines"
        assert not outcome.begun, f"pytest --smol {' '.join(args)} began {sorted(outcome.begun)}"
        return outcome

    def same(self, *runs: str, apart: bool = False, on_host: Collection[str] = ()) -> Outcome:
        """Assert that each of ``runs`` looks the same plain and with ``--smol``; gives the last, with.

        What :meth:`both` raises AssertionError for, this does too.
        """
        pairs = self.both(*(runs or ("",)), apart=apart, on_host=on_host)
        for plain, smol in pairs:
            differs = difference(plain.comparable(), smol.comparable())
            if differs:
                pytest.fail(differs, pytrace=False)
        return pairs[-1][1]


def _path_of(name: str) -> str:
    for suffix in ("ini", "toml", "txt", "cfg"):
        if name.endswith(f"_{suffix}"):
            return name.removesuffix(f"_{suffix}").replace("__", "/") + f".{suffix}"
    return name.replace("__", "/") + ".py"


def dedented(text: str) -> str:
    return textwrap.dedent(text).lstrip("\n")


def cases(junit_xml: str) -> list[str]:
    """The test cases of a report, one text each: attributes but the time, and all that is within."""
    found = []
    for suite in ElementTree.fromstring(junit_xml).iter("testsuite"):
        found.append(str({key: suite.get(key) for key in ("errors", "failures", "skipped", "tests")}))
        for case in suite:
            case.attrib.pop("time", None)
            found += normalised(ElementTree.tostring(case, encoding="unicode").splitlines())
    return found


def letters(text: str) -> dict[str, list[str]]:
    """The verdicts of a ``-v`` run by the test's name."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, _, verdict = line.partition(" ")
        if "::" in name and verdict.split(" ")[0] in ("PASSED", "FAILED", "ERROR", "SKIPPED", "XFAIL"):
            found.setdefault(name.rpartition("::")[2], []).append(verdict.split(" ")[0])
    return found
