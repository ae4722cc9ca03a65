"""Debuggers and shells in guests, used through a real terminal, compared with the same in a plain run."""

from __future__ import annotations

import difflib
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.vm.dialogue import Dialogue
from tests.vm.project import Project

pytestmark = pytest.mark.vm

MODULE = """
import time

def total_of(numbers):
    total = 0
    for number in numbers:
        total += number
    return total

def test_passes():
    pass

def test_fails():
    print("captured words")
    value = 42
    assert value == total_of([1, 2])

def test_breaks():
    print("before")
    breakpoint()
    assert total_of([3, 4]) == 7

def test_last():
    pass
"""

BROKEN = """
numbers = [1, 2]
breakpoint()
missing
"""

READS = """
import sys

def test_input():
    assert input("name? ") == "joe"

def test_lines():
    assert sys.stdin.readline() == "é\\n"
    assert sys.stdin.read() == "the rest\\n"

def test_end():
    assert sys.stdin.readline() == ""
"""

#: What the debugger prompts with, and the user waits for.
PROMPT = "(Pdb) "


@dataclass(frozen=True)
class Scenario:
    """Options of pytest, and what a user types at each prompt, or when the given words are shown."""

    args: Sequence[str]
    typed: Sequence[str | tuple[str, str]]
    module: str = MODULE
    #: What asks for the terminal, where the options do not lend it.
    asker: str = "test_it.py::test_breaks"


SCENARIOS = {
    "post mortem": Scenario(["--pdb", "-k", "fails"], ["p value + 1\r", "up\r", "l\r", "c\r"]),
    "post mortem quit": Scenario(["--pdb", "--pdbcls=pdb:Pdb"], ["q\r"]),
    "post mortem end of input": Scenario(["--pdb"], ["\x04"]),
    "set_trace": Scenario(["-k", "breaks or last"], ["n\r", "s\r", "ll\r", "r\r", "c\r"]),
    "set_trace quit": Scenario([], ["q\r"]),
    "set_trace end of input": Scenario(["-k", "breaks"], ["\x04"]),
    "uncaptured": Scenario(["-s", "-k", "breaks"], ["p 1\r", "c\r"]),
    "breakpoints": Scenario(["-k", "breaks"], ["b total_of\r", "c\r", "p numbers\r", "cl 1\r", "c\r"]),
    "trace": Scenario(["--trace", "-k", "passes"], ["n\r", "c\r"]),
    "line editing": Scenario(
        ["-k", "breaks"],
        ["p tim\t", ("p time", "\r"), ("\n(Pdb) ", "\x1b[A"), ("p time", "\x7f\x7f\x15c\r")],
    ),
    "interrupted": Scenario(
        ["-k", "breaks"],
        [
            "nonsense",
            ("nonsense", "\x03"),
            ("--KeyboardInterrupt--\n(Pdb) ", "print(1, 2); time.sleep(1000)\r"),
            ("\n1 2\n", "\x03"),
            ("*** KeyboardInterrupt\n(Pdb) ", "c\r"),
        ],
    ),
    "collection": Scenario(["--pdb"], ["p numbers\r", "c\r", "p numbers\r", "c\r"], BROKEN),
}

_OURS = re.compile(r"^smol: .*\n|collecting \d+ items? *|\r|\x1b\[0m", re.MULTILINE)
_VOLATILE = re.compile(r"in \d+\.\d\ds(?: \(\d+:\d\d:\d\d\))?|0x[0-9a-f]+")
#: A line across the terminal, which is the shorter the longer the time in it is.
_RULE = re.compile(r"={4,}")


def looks(text: str) -> str:
    """What is shown from the first test on, without what may differ."""
    text = _RULE.sub("====", _VOLATILE.sub("VOLATILE", _OURS.sub("", text)))
    return text[text.index("collected") if "collected" in text else 0 :]


def uncoloured(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@contextmanager
def dialogue(project: Project, *args: str) -> Iterator[Dialogue]:
    argv = [*project.prefix, project.python, "-m", "pytest", *args]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    env = {**inherited, "TMPDIR": str(project.temporary), **project.env}
    with Dialogue(argv, project.root, env) as talk:
        yield talk


def lend(talk: Dialogue, who: str = "test_it.py::test_breaks") -> None:
    """Let a test that asks for the terminal have it, as a user does without an option for it."""
    talk.expect(f"smol: {who} asks for this terminal")
    talk.expect("takes it back\n")
    talk.type("\r")


def is_asked(args: Sequence[str]) -> bool:
    """Whether a run with ``args`` asks the user before it lends the terminal."""
    return "--smol" in args and not {"--pdb", "--trace", "--smol-shell"} & set(args)


def played(project: Project, scenario: Scenario, *args: str) -> list[str]:
    """What a run looked like, and its exit status."""
    with dialogue(project, *args, *scenario.args) as talk:
        if is_asked([*args, *scenario.args]):
            lend(talk, scenario.asker)
        for step in scenario.typed:
            words, typed = step if isinstance(step, tuple) else (PROMPT, step)
            talk.expect(words)
            talk.type(typed)
        status = talk.end()
        assert not talk.is_raw
        return [*looks(talk.text).splitlines(), f"exit status {status}"]


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_a_debugger_is_as_in_a_plain_run(project: Project, scenario: Scenario) -> None:
    project.write("test_it.py", scenario.module)
    plain = played(project, scenario)
    smol = played(project, scenario, "--smol")
    differs = "\n".join(difflib.unified_diff(plain, smol, "plain", "smol", lineterm="", n=1))
    assert not differs, differs
    assert project.left_behind() == []


#: Hooks that the run ends with, each with a place to stop in.
ENDS = """
import sys

def pytest_sessionfinish(session):
    where = "finish of " + str(session.testscollected)
    breakpoint()

def pytest_terminal_summary(terminalreporter):
    where = "summary"
    breakpoint()
    terminalreporter.write_line("written by the summary")
"""


def test_hooks_of_the_end_have_debuggers_too(project: Project) -> None:
    """Without empty lines: whether pytest begins a new line depends on what this process has written."""
    project.write("conftest.py", ENDS)
    project.write("test_it.py", "def test_it(): pass\n")
    typed = ["p where\r", "c\r", "p where\r", "c\r"]
    scenario = Scenario([], typed, asker="the end of the run")
    plain = list(filter(None, played(project, scenario)))
    smol = list(filter(None, played(project, scenario, "--smol")))
    assert "'summary'" in smol
    differs = "\n".join(difflib.unified_diff(plain, smol, "plain", "smol", lineterm="", n=1))
    assert not differs, differs
    assert project.left_behind() == []


def test_a_debugger_that_is_quit_in_a_hook_of_the_end_is_one_line(project: Project) -> None:
    project.write("conftest.py", ENDS)
    project.write("test_it.py", "def test_it(): pass\n")
    with dialogue(project, "--smol") as talk:
        lend(talk, "the end of the run")
        for typed in ("c\r", "\x04"):
            talk.expect(PROMPT)
            talk.type(typed)
        assert talk.end() == 0
        assert not talk.is_raw
        assert "pytest_terminal_summary of the project's own plugins failed: bdb.BdbQuit" in talk.text
        assert "1 passed" in uncoloured(talk.text)
    assert project.left_behind() == []


def test_marked_tests_have_debuggers_too(project: Project) -> None:
    project.write("test_it.py", "import pytest\npytestmark = pytest.mark.smol" + MODULE)
    with dialogue(project, "-k", "breaks") as talk:
        lend(talk)
        talk.expect(PROMPT)
        talk.type("import os; open('/proc/cmdline').read().count('smol.guest')\r")
        talk.expect("\n1\n(Pdb) ")
        talk.type("c\r")
        assert talk.end() == 0
        assert "1 passed" in talk.text


def test_no_time_passes_and_the_size_of_the_window_follows(project: Project) -> None:
    project.write("test_it.py", MODULE)
    with dialogue(project, "--smol", "--smol-timeout=4", "-k", "breaks or last") as talk:
        lend(talk)
        talk.expect(PROMPT)
        talk.type("import os; tuple(os.get_terminal_size()), time.sleep(6)\r")
        talk.expect("((80, 24), None)\n(Pdb) ")
        talk.resize(33, 111)
        talk.type("while os.get_terminal_size() != (111, 33): time.sleep(0.1)\r")
        talk.expect(PROMPT)
        talk.expect(PROMPT)
        talk.type("c\r")
        assert talk.end() == 0
        assert "2 passed" in talk.text


def test_a_guest_that_dies_under_the_debugger_is_one_failed_test(project: Project) -> None:
    project.write("test_it.py", MODULE)
    with dialogue(project, "--smol", "-k", "breaks or last") as talk:
        lend(talk)
        talk.expect(PROMPT)
        assert talk.is_raw
        talk.type("import os; os.kill(os.getpid(), 9)\r")
        assert talk.end() == 1
        assert not talk.is_raw
        assert "the test process was killed by SIGKILL" in talk.text
        assert "1 failed, 1 passed" in uncoloured(talk.text)
    assert project.left_behind() == []


def test_a_run_that_is_ended_gives_the_terminal_back(project: Project) -> None:
    project.write("test_it.py", MODULE)
    with dialogue(project, "--smol", "-k", "breaks") as talk:
        lend(talk)
        talk.expect(PROMPT)
        talk.process.send_signal(signal.SIGTERM)
        assert talk.end() == 128 + signal.SIGTERM
        assert not talk.is_raw
        assert "ended by SIGTERM" in talk.text
    assert project.left_behind() == []


SHELL = """
import os

def test_fails(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open("evidence", "w").write("it was " + "here\\n")
    print("captured " + "words")
    assert not os.path.exists("evidence"), "a reason"

def test_next():
    pass
"""


@pytest.mark.parametrize("shell", ["/bin/bash", "/no/such/shell"])
def test_a_shell_opens_where_a_test_failed(project: Project, shell: str) -> None:
    """Where there is no such shell it is ``/bin/sh``."""
    project.write("test_it.py", SHELL)
    project.env["SHELL"] = shell
    project.env["PS1"] = "$ "
    with dialogue(project, "--smol", "--smol-shell") as talk:
        shown = talk.expect("a shell where test_it.py::test_fails failed; exit goes on with the run")
        assert "captured words" in shown
        assert "a reason" in shown
        talk.expect("# " if os.getuid() == 0 else "$ ")
        # One job, so that it has the terminal by the time that it speaks.
        talk.type("sh -c 'cat evidence; exec sleep 1000'\r")
        talk.expect("it was here\n")
        talk.type("\x03")
        talk.expect("# " if os.getuid() == 0 else "$ ")
        talk.type("sleep 1000 & jobs; exit\r")
        talk.expect("Running")
        assert talk.end() == 1
        assert not talk.is_raw
        assert "1 failed, 1 passed" in uncoloured(talk.text)
        assert uncoloured(talk.text).count("E       AssertionError: a reason") == 1
    assert project.left_behind() == []


def piped(project: Project, text: str, *args: str) -> list[str]:
    """What a run shows whose standard input is ``text``, and its exit status."""
    argv = [project.python, "-m", "pytest", *args]
    done = subprocess.run(
        argv, cwd=project.root, input=text, capture_output=True, text=True, timeout=300, check=False
    )
    return [*looks(done.stdout).splitlines(), f"exit status {done.returncode}"]


@pytest.mark.parametrize(
    ("text", "args"),
    [
        ("p value + 1\nc\np total_of\nc\n", ["--pdb"]),
        ("p value + 1\n", ["--pdb"]),
        ("", []),
        ("p 1\nb total_of\nc\nc\n", ["-s"]),
    ],
)
def test_without_a_terminal_a_debugger_reads_lines_as_in_a_plain_run(
    project: Project, text: str, args: Sequence[str]
) -> None:
    project.write("test_it.py", MODULE)
    assert piped(project, text, "--smol", *args) == piped(project, text, *args)


def test_input_reads_lines_of_standard_input_where_it_is_not_captured(project: Project) -> None:
    project.write("test_it.py", READS)
    text = "joe\né\nthe rest\n"
    assert piped(project, text, "--smol", "-s", "--smol-scope=test") == piped(project, text, "-s")
    assert piped(project, text, "--smol") == piped(project, text)


def test_the_escape_key_ends_a_test_that_keeps_the_terminal(project: Project) -> None:
    project.write("test_it.py", "def test_keeps():\n    breakpoint()\n\ndef test_next(): pass\n")
    with dialogue(project, "--smol", "--smol-timeout=5") as talk:
        lend(talk, "test_it.py::test_keeps")
        talk.expect(PROMPT)
        talk.type("import time; time.sleep(1000)\r")
        talk.expect("sleep(1000)")
        talk.type("\x1d\x1d")
        assert talk.end() == 1
        assert not talk.is_raw
        assert "the user took the terminal back (Ctrl-] twice)" in talk.text
        assert "1 failed, 1 passed" in uncoloured(talk.text)
    assert project.left_behind() == []


def test_a_test_that_nobody_asked_for_gets_no_terminal(project: Project) -> None:
    """It says that it is a debugger, as anything in a guest can."""
    project.write("test_it.py", MODULE)
    with dialogue(project, "--smol", "-k", "breaks or last") as talk:
        talk.expect("takes it back\n")
        talk.type("n")
        assert talk.end() == 1
        assert not talk.is_raw
        assert "test_it.py::test_breaks asked for the terminal, and did not get it" in talk.text
        assert "1 failed, 1 passed" in uncoloured(talk.text)
    assert project.left_behind() == []
