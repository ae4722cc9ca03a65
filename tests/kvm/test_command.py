"""scripts/kvm on a host where KVM works: commands and tests run on the host itself, with the same report."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.kvm.l1.files import ROOT

pytestmark = pytest.mark.kvm

TESTS = """
from pytest_smol.engines.qemu import accelerator

def test_makes_a_machine():
    assert accelerator.verdict(accelerator.probe()) == ""

def test_fails():
    assert 0
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "tests.kvm.l1.run", *arguments]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


def test_a_command_runs_here() -> None:
    done = run("--", "sh", "-c", "echo said; exit 3")
    assert done.returncode == 3, done.stderr
    assert done.stdout.startswith("said\n")
    rows = dict(line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    assert rows["host"].strip() == "this one"
    assert rows["verdict"].strip().startswith("KVM is used")
    assert rows["status"].strip() == "3"


def test_tests_run_here_and_machines_are_counted(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    junit = tmp_path / "junit.xml"
    done = run("-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", f"--junitxml={junit}", str(tmp_path))
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert junit.is_file()
    rows = dict(line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    assert rows["tests"].strip() == "1 passed, 1 failed, 0 skipped"
    assert int(rows["machines"].split()[0]) >= 1
