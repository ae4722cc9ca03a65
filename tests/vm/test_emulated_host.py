"""The emulated host of scripts/kvm: output, status and files of a command come back, and nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kvm.l1 import REQUIRED, agent
from tests.kvm.l1.files import ROOT, view_of_host
from tests.kvm.l1.machine import L1, Job
from tests.kvm.l1.run import environment
from tests.vm.project import LIMIT, machines

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(REQUIRED in os.environ, reason="that host is the one that this would emulate"),
]


@pytest.fixture(scope="module")
def l1() -> Iterator[L1]:
    with L1(view_of_host(), 1024) as made:
        yield made


def run(l1: L1, script: str, *files: str) -> tuple[int, dict[str, bytes], dict[str, bytes]]:
    """The status of a shell script in L1, its output by stream, and ``files`` that it wrote."""
    taken = {"stdout": b"", "stderr": b""}

    def take(stream: str, data: bytes) -> None:
        taken[stream] += data

    done = l1.run(Job(("sh", "-c", script), str(ROOT), environment(agent.TEMPORARY), files), take)
    return done.status, taken, dict(done.files)


def test_a_command_sees_the_checkout_and_a_kvm_device(l1: L1) -> None:
    status, taken, files = run(
        l1,
        "test -c /dev/kvm && test -e scripts/kvm && echo yes && echo no >&2 && seq 9999 >$TMPDIR/n && exit 7",
        f"{agent.TEMPORARY}/n",
    )
    assert (status, taken) == (7, {"stdout": b"yes\n", "stderr": b"no\n"})
    assert files[f"{agent.TEMPORARY}/n"].split()[-1] == b"9999"


def test_nothing_reaches_this_host(l1: L1) -> None:
    name = ROOT / "written-by-the-emulated-host"
    assert run(l1, f"echo x >{name} && cat {name}")[:2] == (0, {"stdout": b"x\n", "stderr": b""})
    assert not name.exists()


def test_a_command_that_is_not_there(l1: L1) -> None:
    done = l1.run(Job(("no-such-command",), "/", {}), lambda stream, data: None)
    assert done.status == 127


def test_a_command_that_is_killed_and_what_it_leaves(l1: L1) -> None:
    assert run(l1, "sleep 1000 & kill -9 $$")[0] == 128 + signal.SIGKILL
    assert run(l1, "pgrep sleep")[1]["stdout"] == b""


def test_the_first_interrupt_is_the_commands(l1: L1) -> None:
    def interrupt(stream: str, data: bytes) -> None:
        if data == b"begun\n":
            raise KeyboardInterrupt

    # A shell with a trap might start its next command before it acts on the signal.
    script = "echo begun; exec sleep 1000"
    done = l1.run(Job(("sh", "-c", script), "/", environment("/tmp")), interrupt)
    assert done.status == 128 + signal.SIGINT


def test_the_program_ends_with_its_command(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "tests.kvm.l1.run", "--emulated", "--memory=1024"]
    env = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    script = "echo begun; exec sleep 1000"
    with subprocess.Popen(
        [*argv, "--", "sh", "-c", script], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "begun\n":
                process.send_signal(signal.SIGINT)
                break
        shown = process.stdout.read()
        assert process.wait(LIMIT) == 128 + signal.SIGINT, shown
    assert "emulated by QEMU's TCG" in shown
    assert "kvm_amd, nested paging on" in shown
    assert machines(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []
