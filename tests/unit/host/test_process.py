"""Child processes: what they inherit, what they leave, and that they never outlive us."""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from pytest_smol.errors import HostError
from pytest_smol.host import process
from pytest_smol.host.process import ChildProcess, Spawner


class Start(Protocol):
    def __call__(self, script: str, fds: Sequence[int] = ()) -> ChildProcess: ...


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:

        def begin(script: str, fds: Sequence[int] = ()) -> ChildProcess:
            child = ChildProcess(["/bin/sh", "-c", script], fds)
            stack.callback(child.kill)
            return child

        yield begin


def wait_until_gone(pid: int) -> None:
    """Wait until the process has ended; it may still be a zombie."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([pidfd], [], [], 60)[0], f"process {pid} has not ended"
    finally:
        os.close(pidfd)


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", -signal.SIGTERM)]
)
def test_its_status_is_known_when_it_ends(start: Start, script: str, status: int) -> None:
    child = start(script)
    assert child.wait(60) == status
    assert child.returncode == status
    assert child.wait(0) == status


def test_it_is_not_reaped_before_it_is_killed(start: Start) -> None:
    child = start("exit 3")
    assert child.wait(60) == child.returncode == 3
    os.kill(child.pid, 0)  # the number is still its own
    child.kill()
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)
    assert child.returncode == 3


def test_no_child_is_left_where_pidfd_open_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Linux before 5.3, and under seccomp filters that do not know the call."""

    def refuse(pid: int) -> int:
        raise OSError(38, "Function not implemented")

    def children() -> str:
        return "".join(path.read_text() for path in Path("/proc/self/task").glob("*/children"))

    before = set(os.listdir("/proc/self/fd")), children()
    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(HostError, match="Function not implemented") as caught:
        ChildProcess(["/bin/sleep", "1000"], ())
    assert "pidfd_open" in caught.value.remedy
    assert (set(os.listdir("/proc/self/fd")), children()) == before


def test_a_child_that_another_reaped_has_ended(start: Start) -> None:
    child = start("exit 3")
    os.waitpid(child.pid, 0)
    assert child.wait(60) is not None


def test_a_process_that_runs_has_no_status(start: Start) -> None:
    child = start("exec sleep 1000")
    assert child.wait(0) is None
    assert child.wait(0.05) is None
    assert child.returncode is None


def test_what_it_says_on_standard_error_is_kept(start: Start) -> None:
    child = start("echo to nobody; echo one >&2; echo two >&2")
    child.wait(60)
    assert child.stderr() == "one\ntwo\n"
    child.kill()
    assert child.stderr() == ""


def test_what_it_says_can_be_read_while_it_runs(start: Start) -> None:
    ours, theirs = os.pipe()
    child = start(f"echo early >&2; echo ready >/dev/fd/{theirs}; exec sleep 1000", [theirs])
    os.close(theirs)
    os.read(ours, 10)
    os.close(ours)
    assert child.stderr() == "early\n"


def test_endless_and_undecodable_words_are_bounded(start: Start) -> None:
    child = start("head -c 1000000 /dev/zero | tr '\\0' '\\377' >&2")
    child.wait(60)
    assert child.stderr() == "\ufffd" * 65536


def test_only_the_descriptors_meant_for_it_are_inherited(start: Start) -> None:
    meant, other = os.memfd_create("meant"), os.memfd_create("other")
    os.set_inheritable(other, True)
    child = start("ls /proc/self/fd >&2", [meant])
    child.wait(60)
    assert {0, 1, 2, meant} <= set(map(int, child.stderr().split()))
    assert other not in set(map(int, child.stderr().split()))
    os.close(meant)
    os.close(other)


def test_it_gets_no_environment_but_its_path(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")
    child = start("env >&2")
    child.wait(60)
    names = {line.split("=")[0] for line in child.stderr().splitlines()}
    assert {"PATH", "LC_ALL"} <= names <= {"PATH", "LC_ALL", "PWD", "SHLVL", "_", "OLDPWD"}


def test_a_signal_from_the_terminal_is_not_for_it(start: Start) -> None:
    child = start("exec sleep 1000")
    assert os.getsid(child.pid) == child.pid != os.getsid(0)


# --- the end


def test_killing_ends_and_reaps_it_whatever_it_does(start: Start) -> None:
    child = start("trap '' TERM INT HUP; while :; do sleep 1; done")
    child.kill()
    assert not os.path.exists(f"/proc/{child.pid}")
    child.kill()
    assert child.returncode == -signal.SIGKILL


def test_what_has_ended_by_itself_is_only_reaped(start: Start) -> None:
    child = start("exit 5")
    child.wait(60)
    child.kill()
    assert child.returncode == 5


def test_no_descriptor_is_left_open(start: Start) -> None:
    before = set(os.listdir("/proc/self/fd"))
    start("exit 0").kill()
    assert set(os.listdir("/proc/self/fd")) <= before


@pytest.mark.skipif(not process._launcher(), reason="the host has no setpriv")
def test_it_dies_with_us() -> None:
    source = """
import time
from pytest_smol.host.process import ChildProcess
print(ChildProcess(["/bin/sleep", "1000"], ()).pid, flush=True)
time.sleep(1000)
"""
    parent = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    # It has what setpriv sets only once that has become the program itself.
    deadline = time.monotonic() + 60
    while os.path.basename(os.readlink(f"/proc/{pid}/exe")) == "setpriv":
        assert time.monotonic() < deadline
        select.select([], [], [], 0.01)
    parent.kill()
    parent.communicate()
    wait_until_gone(pid)


@pytest.fixture
def no_launcher_is_known() -> Iterator[None]:
    """Whether there is a launcher is looked up anew, in the test and after it."""
    process._launcher.cache_clear()
    yield
    process._launcher.cache_clear()


@pytest.mark.usefixtures("no_launcher_is_known")
def test_a_setpriv_without_pdeathsig_is_no_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As busybox's: with it no program would start at all."""
    setpriv = tmp_path / "setpriv"
    setpriv.write_text('#!/bin/sh\necho "setpriv: unrecognized option: pdeathsig" >&2\nexit 1\n')
    setpriv.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    child = ChildProcess(["/bin/sh", "-c", "exit 7"], ())
    assert child.wait(60) == 7
    child.kill()
    problem = process.launcher_problem()
    assert "unrecognized option: pdeathsig" in problem
    assert "machines go on running if pytest is killed" in problem
    assert "install the package util-linux" in problem


@pytest.mark.usefixtures("no_launcher_is_known")
def test_without_a_setpriv_programs_start_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    child = ChildProcess(["/bin/sh", "-c", "exit 7"], ())
    assert child.wait(60) == 7
    child.kill()
    assert "install the package util-linux" in process.launcher_problem()


@pytest.mark.skipif(not process._launcher(), reason="the host has no setpriv")
def test_with_a_launcher_there_is_no_problem() -> None:
    assert process.launcher_problem() == ""


def test_a_program_that_is_missing_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_launcher", lambda: ())
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(HostError, match="/no/such/program cannot be started"):
        ChildProcess(["/no/such/program"], ())
    assert set(os.listdir("/proc/self/fd")) <= before


@pytest.mark.skipif(not process._launcher(), reason="the host has no setpriv")
def test_where_a_launcher_starts_it_the_launcher_says_what_is_missing() -> None:
    child = ChildProcess(["/no/such/program"], ())
    assert child.wait(60)
    assert "/no/such/program" in child.stderr()
    child.kill()


def test_one_that_is_stopped(start: Start) -> None:
    child = start("exec sleep 1000")
    assert not child.stopped
    os.kill(child.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    assert child.stopped
    assert child.stopped, "it was only looked at"
    assert child.returncode is None
    os.kill(child.pid, signal.SIGCONT)
    os.waitid(os.P_PID, child.pid, os.WCONTINUED | os.WNOWAIT)
    assert not child.stopped
    os.kill(child.pid, signal.SIGSTOP)
    child.kill()
    assert not child.stopped


# --- spawners


def test_a_spawner_prepares_its_own_thread_and_spawns_in_it() -> None:
    names: list[str] = []
    with Spawner(lambda: names.append(threading.current_thread().name)) as spawner:
        child = spawner.spawn(["/bin/sh", "-c", "exit 3"], ())
        assert child.wait(60) == 3
        child.kill()
    assert names != [threading.current_thread().name]


def test_what_preparing_raises_is_raised_and_leaves_no_thread() -> None:
    before = threading.active_count()

    def fail() -> None:
        raise PermissionError

    with pytest.raises(PermissionError):
        Spawner(fail)
    assert threading.active_count() == before


def test_a_host_that_can_start_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(HostError, match="no thread can be started"):
        Spawner()


def test_an_interrupted_spawn_leaves_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    result = Future.result

    def interrupted(self: Future[ChildProcess], timeout: float | None = None) -> ChildProcess:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        return result(self, timeout)

    before = set(os.listdir("/proc/self/fd"))
    with Spawner() as spawner:
        monkeypatch.setattr(Future, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            spawner.spawn(["/bin/sleep", "1000"], ())
    assert set(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("which", [resource.RLIMIT_CORE, resource.RLIMIT_NOFILE])
def test_limits_are_only_ever_lowered(which: int) -> None:
    child = ChildProcess(["/bin/sleep", "1000"], (), {which: 64})
    assert resource.prlimit(child.pid, which) == (64, 64)
    process._limit(child.pid, {which: 128})
    assert resource.prlimit(child.pid, which)[1] == 64
    child.kill()
