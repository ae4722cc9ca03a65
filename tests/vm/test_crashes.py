"""Tests that take down their machine: each is one failed test that says why, and nothing else is harmed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.vm.project import Project, Result

pytestmark = pytest.mark.vm

EXAMPLES = Path(__file__).parents[2] / "examples"

#: The tests of examples/test_crashes.py: what each one's report must name.
REASONS = {
    "test_kernel_panic": "the guest kernel panicked: sysrq triggered crash",
    "test_power_off": "the guest powered itself off",
    "test_kill_every_process": "the test process was killed by SIGKILL",
    "test_exit_at_once": "the test process exited with status 0 before the test was over",
    "test_segmentation_fault": "the test process was killed by SIGSEGV",
    "test_fork_bomb": "the test was not over after 10 s",
    "test_memory_exhaustion": "because the guest ran out of memory",
    "test_hang": "the test was not over after 5 s",
}

#: Those of them that take more than a moment.
SLOW = ("test_fork_bomb", "test_memory_exhaustion", "test_hang")

MODULE = """
import os, signal
from pathlib import Path
import pytest

TRACE = Path("/tmp/trace")

@pytest.fixture(scope="module")
def counted():
    TRACE.write_text(TRACE.read_text() + "x" if TRACE.exists() else "x")
    return TRACE

def test_first(counted):
    TRACE.write_text(counted.read_text() + "first")

def test_shares_the_machine():
    assert TRACE.read_text() == "xfirst"

def test_dies(counted):
    os.kill(os.getpid(), signal.SIGKILL)

def test_has_a_machine_of_its_own_then():
    assert not TRACE.exists()

def test_has_its_fixture_set_up_again(counted):
    assert TRACE.read_text() == "x"

@pytest.fixture
def dies_in_setup():
    os._exit(3)

@pytest.fixture
def dies_in_teardown():
    yield
    os._exit(4)

def test_setup(dies_in_setup):
    pass

def test_teardown(dies_in_teardown):
    pass

def test_last():
    pass
"""

HANG = """
import threading

def wait_for_what_never_comes():
    threading.Event().wait()

def test_hangs():
    wait_for_what_never_comes()

def test_next():
    pass
"""


def check(result: Result, reasons: dict[str, str]) -> None:
    """All of ``reasons`` failed, and for those; everything else passed."""
    failed = {name for name, case in result.cases.items() if case.outcome != "passed"}
    assert failed == reasons.keys(), result.output
    for name, reason in reasons.items():
        case = result.cases[name]
        assert reason in case.message, f"{name}: {case.message}\n{case.text}"


@pytest.fixture
def examples(project: Project) -> Project:
    for name in ("test_crashes.py", "test_destructive.py"):
        shutil.copyfile(EXAMPLES / name, project.root / name)
    return project


@pytest.mark.kvm
@pytest.mark.kvm_long
def test_examples(examples: Project) -> None:
    """By their markers: a machine for each test."""
    result = examples.run()
    check(result, REASONS)
    assert result.status == 1
    assert "Fatal Python error: Segmentation fault" in result.stdout
    assert "in test_hang" in result.stdout
    assert "Captured guest console" in result.stdout
    assert "INTERNALERROR" not in result.output
    assert examples.left_behind() == []


def test_examples_that_share_a_machine(examples: Project) -> None:
    """With --smol, in one module that is cut by every death."""
    quick = {name: reason for name, reason in REASONS.items() if name not in SLOW}
    result = examples.run(
        "--smol", "--smol-scope=module", "test_crashes.py", "-k", f"not {' and not '.join(SLOW)}"
    )
    check(result, quick)
    assert examples.left_behind() == []


@pytest.mark.kvm
@pytest.mark.kvm_long
def test_death_in_the_middle_of_a_module(project: Project) -> None:
    project.write("test_middle.py", MODULE)
    result = project.run("--smol")
    reasons = {
        "test_dies": "the test process was killed by SIGKILL",
        "test_setup": "the test process exited with status 3",
        "test_teardown": "the test process exited with status 4",
    }
    check(result, reasons)
    assert project.left_behind() == []


@pytest.mark.kvm
@pytest.mark.kvm_long
def test_a_hang_shows_where(project: Project) -> None:
    project.write("test_hang.py", HANG)
    result = project.run("--smol", "--smol-timeout=3")
    check(result, {"test_hangs": "the test was not over after 3 s"})
    assert "in wait_for_what_never_comes" in result.stdout
    assert "in test_hangs" in result.stdout
    assert "raise --smol-timeout" in result.stdout
    assert project.left_behind() == []


#: What a module may do when it is imported, so that collection would never end.
ENDLESS = {
    "a loop": "while True: pass\n",
    "a fork bomb": """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
""",
}


@pytest.mark.parametrize("source", ENDLESS.values(), ids=ENDLESS.keys())
def test_collection_without_end(project: Project, source: str) -> None:
    """The time limit of a test is that of a module's collection too: else this would take ten minutes."""
    project.write("test_endless.py", source)
    result = project.run("--smol", "--smol-timeout=10")
    assert result.status == pytest.ExitCode.INTERRUPTED, result.output
    assert "ERROR collecting test_endless.py" in result.stdout
    assert "collection was not over in time" in result.stdout or "ran out of memory" in result.stdout
    assert project.left_behind() == []
