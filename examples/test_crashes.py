"""Tests that take down their process or their whole machine. Each is one failed test that says why.

All of them are meant to fail. What is worth seeing is that nothing else does: not the next
test, not the session, not the computer that you sit at.
"""

import os
import signal
import time
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def only_in_a_guest():
    """Only a guest of pytest-smol has this word on its kernel's command line."""
    if "smol.guest" not in Path("/proc/cmdline").read_text().split():
        pytest.fail("this test destroys its machine, and this is not a virtual machine", pytrace=False)


@pytest.mark.smol(user="root")
def test_kernel_panic():
    Path("/proc/sysrq-trigger").write_text("c")


@pytest.mark.smol(user="root")
def test_power_off():
    Path("/proc/sysrq-trigger").write_text("o")
    time.sleep(60)


@pytest.mark.smol(user="root")
def test_kill_every_process():
    os.kill(-1, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.smol
def test_exit_at_once():
    os._exit(0)


@pytest.mark.smol
def test_segmentation_fault():
    os.kill(os.getpid(), signal.SIGSEGV)


@pytest.mark.smol(timeout=10)
def test_fork_bomb():
    while True:
        try:
            os.fork()
        except OSError:
            continue


@pytest.mark.smol(timeout=60)
def test_memory_exhaustion():
    hoard = []
    while True:
        hoard.append(b"x" * (1 << 20))


@pytest.mark.smol(timeout=5)
def test_hang():
    while True:
        time.sleep(1)


@pytest.mark.smol
def test_all_is_well():
    """Passes: what came before left no trace."""
    assert Path("/proc/uptime").exists()
