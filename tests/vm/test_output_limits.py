"""Output without end costs the host little: while tests are collected, in a test, and at the end."""

from __future__ import annotations

import pytest

from tests.vm.project import Project

pytestmark = pytest.mark.vm

MEMORY = '''
"""A plugin for the host: by how much the most memory that it had exceeds that of its first test, in MiB.

Read of proc(5)'s status: getrusage(2) would tell of the process that has started this one.
"""

begin = []

def mebibytes(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name)) >> 10

def pytest_runtest_logstart():
    begin.append(mebibytes("VmRSS"))

def pytest_unconfigure():
    if begin:
        print("grown by", mebibytes("VmHWM") - begin[0], "MiB")
'''

TESTS = """
import sys

BLOCK = ("o" * 99 + "\\n") * 10_000
sys.stdout.write(BLOCK * 4)

def test_much():
    for _ in range({megabytes}):
        sys.stdout.write(BLOCK)
    print("the end")
    {verdict}

def test_next():
    print("so much for that")
"""

CONFTEST = """
def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line("s" * 4_000_000)

def pytest_unconfigure():
    print("good bye")
"""

INI = "[pytest]\naddopts = -p no:cacheprovider -p memory\nsmol_output_limit = 1\n"

LIVE = "[smol: more than 1 MiB of output, the rest is left out]"


def growth(output: str) -> int:
    """What the plugin for the host has said, in MiB."""
    (line,) = (line for line in output.splitlines() if line.startswith("grown by "))
    return int(line.split()[2])


def test_output_that_is_shown_at_once(project: Project) -> None:
    project.write("pytest.ini", INI)
    project.write("memory.py", MEMORY)
    project.write("conftest.py", CONFTEST)
    project.write("test_much.py", TESTS.format(megabytes=150, verdict="pass"))
    result = project.run("--smol", "-s")
    assert result.outcomes() == {"test_much": "passed", "test_next": "passed"}, result.output[-5000:]
    assert result.status == 0
    assert result.stdout.splitlines().count(LIVE) == 3  # while tests are collected, in a test, at the end
    assert 20_000 < result.stdout.count("o" * 99) < 22_000  # twice as much
    assert "the end" not in result.stdout
    assert "so much for that" in result.stdout
    assert "good bye" in result.stdout
    assert growth(result.stdout) < 64


def test_output_that_is_captured(project: Project) -> None:
    project.write("pytest.ini", INI)
    project.write("memory.py", MEMORY)
    project.write("test_much.py", TESTS.format(megabytes=20, verdict="assert 0"))
    result = project.run("--smol")
    assert result.outcomes() == {"test_much": "failed", "test_next": "passed"}, result.output[-5000:]
    assert result.stdout.count("characters are left out here]") == 1
    assert "the end" in result.stdout
    assert result.stdout.count("o" * 99) < 11_000
    assert growth(result.stdout) < 64
