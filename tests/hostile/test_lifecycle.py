"""A run that dies, or whose host runs out of something: its siblings and the next run pass."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_smol.settings import Settings
from tests.vm.project import Project, Run, machines, share_boot_files, small_file_system, wait_until

pytestmark = pytest.mark.vm

#: Of a machine, in bytes.
MEMORY = Settings().memory << 20

DEADLY = '''
"""A plugin for the host: ends its process without a word where $DIES says."""
import os, signal

def deadly(kind, name, dies):
    original = getattr(kind, name)
    def method(self, *args, **kwargs):
        result = original(self, *args, **kwargs)
        if dies(*args):
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(kind, name, method)

if "SMOL_GUEST" not in os.environ:
    from pytest_smol.pool.pool import Pool
    from pytest_smol.engines.qemu.qmp import QmpClient

    restored = []

    def restores(command, *_):
        restored.extend(["a machine"] if command == "migrate-incoming" else [])
        return len(restored) == {"session restore": 1, "fork restore": 2}.get(os.environ["DIES"])

    deadly(QmpClient, "execute", restores)
    deadly(Pool, "retire", lambda *_: os.environ["DIES"] == "burial")
'''

TEARDOWN = """
import os, time
import pytest

@pytest.fixture
def slow():
    yield
    if os.environ["DIES"] == "teardown":
        print("GUEST teardown", flush=True)
        time.sleep(600)

def test_first(): pass
def test_second(slow): pass
def test_third(): pass
"""

DIRTY = """
import os, time
import pytest

@pytest.mark.parametrize("user", ["host", pytest.param("root", marks=pytest.mark.smol(user="root"))])
def test_clean(user):
    assert not os.path.exists("/dev/shm/dirt")

def test_dirty():
    available = next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemAvail"))
    dirt = os.urandom(1 << 20) * ((available >> 10) - 16)
    print("GUEST dirty", len(dirt) >> 20, flush=True)
    time.sleep(600)
"""

DISK = """
import pytest

def test_before(): pass

def test_touches_new_memory():
    assert len(b"x" * (60 << 20))

@pytest.mark.smol(memory=160)
def test_needs_another_snapshot(): pass

def test_after():
    assert len(b"x" * (60 << 20))
"""

FILLS = '''
"""A plugin for the host: fills the disk after the first test, and clears it before the last."""
import os, pathlib, tempfile

def fill(path):
    with path.open("wb", 0) as file:
        try:
            while file.write(bytes(1 << 20)):
                continue
        except OSError:
            return

def pytest_runtest_logfinish(nodeid):
    path = pathlib.Path(tempfile.gettempdir(), "everything-else")
    if "SMOL_GUEST" not in os.environ:
        if nodeid.endswith("test_before"):
            fill(path)
        elif nodeid.endswith("another_snapshot"):
            path.unlink()
'''


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.write("pytest.ini", "[pytest]\naddopts = -p no:cacheprovider\nsmol_env = DIES\n")
    return project


def ended(project: Project) -> bool:
    return not machines(project.home)


@pytest.mark.kvm
@pytest.mark.kvm_long
def test_killed_wherever(project: Project) -> None:
    """Each time the machines end with the process; what lies around the next run sweeps up."""
    project.write("deadly.py", DEADLY)
    project.write("test_it.py", TEARDOWN)
    for place in ("session restore", "fork restore", "burial"):
        result = project.run("--smol", "-p", "deadly", DIES=place)
        assert result.status == -signal.SIGKILL, f"{place}: {result.output}"
        wait_until(lambda: ended(project), f"the end of all machines, {place}", limit=30)
        assert len(project.left_behind()) == 1  # what lay around before was swept up
    run = project.start("--smol", "-s", DIES="teardown")
    run.wait_for("GUEST teardown")
    run.send(signal.SIGKILL)
    assert run.result().status == -signal.SIGKILL
    wait_until(lambda: ended(project), "the end of all machines", limit=30)
    assert len(project.left_behind()) == 1
    result = project.run("--smol", DIES="nowhere")
    assert result.status == 0, result.output
    assert project.left_behind() == []


def test_interrupted_twice_in_a_teardown(project: Project) -> None:
    project.write("test_it.py", TEARDOWN)
    run = project.start("--smol", "-s", DIES="teardown")
    run.wait_for("GUEST teardown")
    run.interrupt_twice()
    result = run.result()
    assert result.status != 0
    assert "INTERNALERROR" not in result.output
    wait_until(lambda: ended(project), "the end of all machines")
    assert project.left_behind() == []


def resident(project: Project) -> int:
    """Memory of the project's machines in bytes."""
    pages = (Path(f"/proc/{pid}/statm").read_text().split()[1] for pid in machines(project.home))
    return sum(map(int, pages)) * 4096


@pytest.mark.kvm
@pytest.mark.kvm_long
def test_two_machines_that_dirty_all_their_memory(tmp_path: Path) -> None:
    """At once. Each costs what it has been given; a third run at the same time sees none of it."""
    projects = [Project(tmp_path / str(number)) for number in range(3)]
    for project in projects:
        project.write("test_dirty.py", DIRTY)
    args = ("--smol", "--smol-scope=test", "-s")
    runs: list[Run] = [project.start(*args, "-k", "dirty") for project in projects[:2]]
    for run, project in zip(runs, projects, strict=False):
        run.wait_for("GUEST dirty")
        assert MEMORY // 2 < resident(project) < MEMORY + (128 << 20)
    result = projects[2].run(*args, "-k", "clean")
    assert set(result.outcomes().values()) == {"passed"}, result.output
    for run in runs:
        run.send(signal.SIGINT)
        assert run.result().status == 2
    assert [project.left_behind() for project in projects] == [[], [], []]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for the memory of one machine, and little more."""
    with small_file_system(tmp_path / "small", 700) as place:
        yield place


def test_a_disk_that_fills_up_in_the_middle_of_a_run(project: Project, small: Path) -> None:
    """Machines that touch memory for the first time then die; those that come when there is room do not."""
    project.write("fills.py", FILLS)
    project.write("test_disk.py", DISK)
    result = project.run("--smol", "--smol-scope=test", "-p", "fills", TMPDIR=str(small), DIES="nowhere")
    assert result.status == 1, result.output
    assert "INTERNALERROR" not in result.output
    cases = {name: (case.outcome, case.message + case.text) for name, case in result.cases.items()}
    outcome, text = cases.pop("test_touches_new_memory")
    assert outcome == "failed"
    assert "SIGBUS" in text
    assert "hint: " in text
    outcome, text = cases.pop("test_needs_another_snapshot")
    assert outcome == "error"
    assert "MiB free" in text
    assert {name: outcome for name, (outcome, _) in cases.items()} == {
        "test_before": "passed",
        "test_after": "passed",
    }
    assert list(small.iterdir()) == []


def test_a_disk_that_fills_up_while_a_base_is_made(project: Project, small: Path) -> None:
    project.write("test_it.py", "def test_it(): pass\n")
    cache = project.home / "cache"
    share_boot_files(cache)
    run = project.start("--smol", XDG_CACHE_HOME=str(cache), TMPDIR=str(small), DIES="nowhere")
    wait_until(lambda: machines(small) or run.process.poll() is not None, "a machine that boots")
    with (small / "everything-else").open("wb", 0) as file, pytest.raises(OSError, match="No space"):
        while file.write(bytes(1 << 20)):
            continue
    result = run.result()
    assert result.status not in (0, 1), result.output
    assert "INTERNALERROR" not in result.output
    assert "Traceback" not in result.output
    assert "hint: where the guest's memory is kept no space may be left" in result.output
    assert machines(small) == {}
    assert [path.name for path in small.iterdir()] == ["everything-else"]
    assert [path for path in (cache / "pytest-smol/base").iterdir() if path.suffix != ".lock"] == []
    assert project.left_behind() == []
