"""What guests take on of the host's process: limits, signals, nice value, and settings of the kernel."""

from __future__ import annotations

import json
import resource
import signal
from pathlib import Path

import pytest

from pytest_smol.host.process_state import process_state


def sysctl(root: Path, name: str, text: str) -> None:
    path = root / "sys" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_limits_are_soft_and_hard_by_number() -> None:
    limits = process_state()["limits"]
    assert len(limits) == 16
    assert tuple(limits[resource.RLIMIT_NOFILE]) == resource.getrlimit(resource.RLIMIT_NOFILE)


def test_ignored_and_blocked_signals_are_named() -> None:
    previous = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        state = process_state()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
        signal.signal(signal.SIGUSR1, previous)
    assert signal.SIGUSR1 in state["ignored"]
    assert signal.SIGUSR2 in state["blocked"]
    assert signal.SIGUSR1 not in process_state()["ignored"]
    assert json.loads(json.dumps(state)) == state


def test_settings_that_are_missing_are_left_out(tmp_path: Path) -> None:
    sysctl(tmp_path, "fs/file-max", "1234\n")
    sysctl(tmp_path, "kernel/sem", "1\t2\t3\n")
    assert process_state(tmp_path)["sysctls"] == {"fs/file-max": "1234", "kernel/sem": "1\t2\t3"}


@pytest.mark.parametrize(
    ("pattern", "told"), [("core.%p", "core.%p"), ("|/usr/share/apport %p", ""), ("", "")]
)
def test_a_program_of_the_host_takes_no_core_dump_of_a_guest(tmp_path: Path, pattern: str, told: str) -> None:
    sysctl(tmp_path, "kernel/core_pattern", f"{pattern}\n")
    assert process_state(tmp_path)["sysctls"]["kernel/core_pattern"] == told
