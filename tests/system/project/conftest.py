"""Helpers of system tests: commands, and what the kernel has loaded."""

import subprocess
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items):
    """Run all as root of the guest, whoever runs pytest on the host."""
    for item in items:
        if item.path.name != "test_facts.py":
            item.add_marker(pytest.mark.smol(user="root"))


@pytest.fixture
def sh():
    """Runs a command line and gives its output; one that fails fails the test."""

    def run(command: str) -> str:
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    return run


@pytest.fixture
def loaded():
    """The names of the loaded modules."""
    return lambda: {line.split()[0] for line in Path("/proc/modules").read_text().splitlines()}
