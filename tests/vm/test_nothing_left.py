"""Whatever ends a run, nothing of it is left: no process, no file, no socket, and no memory in a long run."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_smol.pool.pool import forks_ahead
from tests.vm.project import Project, Run, machines, share_boot_files, wait_until

pytestmark = pytest.mark.vm

#: Sockets, pidfd, eventfd, QEMU's standard error, and spare.
FDS_OF_A_MACHINE = 16

STAGES = """
import os, sys, time

def report(stage):
    print("GUEST", stage, flush=True)

def linger(stage):
    report(stage)
    time.sleep(600)

if os.environ["STAGE"] == "collection":
    linger("collection")

def test_first():
    assert True

def test_second():
    if os.environ["STAGE"] == "test":
        linger("test")
"""

GROWTH = '''
"""A plugin for the host: writes down what its process holds after the 10th and after the last test."""
import json, os, pathlib, threading

LEVELS = []

def measure():
    pid = os.getpid()
    children = [pathlib.Path(f"/proc/self/task/{task}/children").read_text().split()
                for task in os.listdir("/proc/self/task")]
    return {
        "rss": int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
        "fds": sorted(os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                      if os.path.lexists(f"/proc/{pid}/fd/{fd}")),
        "threads": threading.active_count(),
        "children": sum(map(len, children)),
    }

def pytest_runtest_logfinish(nodeid):
    if "SMOL_GUEST" not in os.environ and nodeid.endswith(("[10]", "[199]")):
        LEVELS.append(measure())

def pytest_sessionfinish():
    if LEVELS:
        pathlib.Path(os.environ["LEVELS"]).write_text(json.dumps(LEVELS))
'''


@pytest.fixture
def project(project: Project) -> Project:
    """With a cache of its own for the boot stage, and a test module that lingers where $STAGE says."""
    project.write("pytest.ini", "[pytest]\naddopts = -p no:cacheprovider\nsmol_env = STAGE\n")
    project.write("test_stages.py", STAGES)
    return project


def nothing_left(project: Project) -> bool:
    return project.left_behind() == [] and unfinished(project) == []


def unfinished(project: Project) -> list[str]:
    """What a build of a base snapshot left in the project's own cache."""
    return [str(path) for path in (project.home / "cache").glob("pytest-smol/base/.*")]


def sockets_of(place: Path) -> list[str]:
    return [line for line in Path("/proc/net/unix").read_text().splitlines() if str(place) in line]


def reach_boot(project: Project) -> Run:
    """A run whose base machine is booting, in a cache where no snapshot is."""
    cache = project.home / "cache"
    share_boot_files(cache)
    run = project.start("--smol", "-s", XDG_CACHE_HOME=str(cache), STAGE="boot")
    wait_until(
        lambda: " -kernel " in str(machines(project.home)) or run.process.poll() is not None,
        "a machine that boots",
    )
    assert machines(cache) == {}, "a guest's memory is mapped from the cache"
    return run


def reach_collection(project: Project) -> Run:
    run = project.start("--smol", "-s", STAGE="collection")
    # What modules print while they are imported is shown with the header, which waits for the collection.
    wait_until(
        lambda: " -incoming " in str(machines(project.home)) or run.process.poll() is not None,
        "the machine that collects",
    )
    return run


def reach_test(project: Project) -> Run:
    run = project.start("--smol", "-s", STAGE="test")
    run.wait_for("GUEST test")
    return run


STAGE = {"boot": reach_boot, "collection": reach_collection, "test": reach_test}
stages = pytest.mark.parametrize("reach", STAGE.values(), ids=STAGE.keys())
_KVM, _LONG = pytest.mark.kvm, pytest.mark.kvm_long
stages_kvm, stages_kvm_long = (
    pytest.mark.parametrize(
        "reach", [reach_boot, reach_collection, pytest.param(reach_test, marks=marks)], ids=STAGE.keys()
    )
    for marks in ([_KVM], [_KVM, _LONG])
)


@pytest.mark.parametrize("text", ["assert True", "assert False", "import os; os._exit(1)"])
def test_after_a_run(project: Project, text: str) -> None:
    project.write("test_stages.py", f"def test_it():\n    {text}\n")
    result = project.run("--smol")
    assert result.status == (0 if text == "assert True" else 1), result.output
    assert project.left_behind() == []
    assert sockets_of(project.home) == []


@stages_kvm_long
def test_interrupted(project: Project, reach: Callable[[Project], Run]) -> None:
    """Once, as by Ctrl-C: exit status 2 and pytest's own summary."""
    run = reach(project)
    run.send(signal.SIGINT)
    result = run.result()
    assert result.status == 2, result.output
    assert "KeyboardInterrupt" in result.output
    assert "INTERNALERROR" not in result.output
    if reach is reach_test:
        assert "1 passed" in result.stdout
    assert nothing_left(project)
    assert sockets_of(project.home) == []


@stages
def test_interrupted_twice(project: Project, reach: Callable[[Project], Run]) -> None:
    """By an impatient user. Python itself may then die with a traceback, but leaves nothing."""
    run = reach(project)
    run.interrupt_twice()
    result = run.result()
    assert result.status != 0
    assert "INTERNALERROR" not in result.output
    wait_until(lambda: not machines(project.home), "the end of all machines")
    assert nothing_left(project)


@stages
def test_terminated(project: Project, reach: Callable[[Project], Run]) -> None:
    run = reach(project)
    run.send(signal.SIGTERM)
    result = run.result()
    assert result.status == 128 + signal.SIGTERM, result.output
    assert "INTERNALERROR" not in result.output
    assert nothing_left(project)


@stages_kvm
def test_killed(project: Project, reach: Callable[[Project], Run]) -> None:
    """Machines end with the process that made them; the next run sweeps up what lies around."""
    run = reach(project)
    run.send(signal.SIGKILL)
    run.process.wait()
    wait_until(lambda: not machines(project.home), "the end of all machines", limit=30)
    assert project.left_behind() != []
    cache = project.home / "cache"
    env = {"XDG_CACHE_HOME": str(cache)} if cache.exists() else {}
    result = project.run("--smol", STAGE="none", **env)
    assert result.status == 0, result.output
    assert nothing_left(project)


def test_five_hundred_forks(project: Project) -> None:
    project.write("growth.py", GROWTH)
    parameters = "import pytest\n\n@pytest.mark.parametrize('number', range(500))\n"
    project.write("test_stages.py", parameters + "def test_number(number):\n    assert number >= 0\n")
    levels = project.home / "levels.json"
    result = project.run("--smol", "--smol-scope=test", "-p", "growth", LEVELS=str(levels))
    assert result.outcomes() == {f"test_number[{number}]": "passed" for number in range(500)}
    early, late = json.loads(levels.read_text())
    most = 2 + forks_ahead({})  # one that runs, those made ahead, and one that is cleared away
    assert len(late["fds"]) - len(early["fds"]) <= (most - 1) * FDS_OF_A_MACHINE, (early["fds"], late["fds"])
    assert late["threads"] - early["threads"] <= most - 1
    assert max(early["children"], late["children"]) <= most
    # pytest keeps some kilobytes for each test's reports; one leaked fork would hold some hundred of them.
    assert late["rss"] - early["rss"] < 16 << 20
    assert project.left_behind() == []
