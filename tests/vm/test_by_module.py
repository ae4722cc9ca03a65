"""``--smol-collect=module`` in real machines: what a module does when imported stays with its own tests."""

from __future__ import annotations

import textwrap

import pytest

from tests.vm.project import Project

pytestmark = pytest.mark.vm

#: Takes hold of pytest, of a module that is imported later, and of files, so that all other tests pass.
FORGER = """
import pathlib
import sys
import _pytest.python

_pytest.python.Function.runtest = lambda self: None
sys.modules["shared"] = type(sys)("shared")
sys.modules["shared"].answer = 41
pathlib.Path(__file__).with_name("test_b.py").write_text("def test_b(): pass")

def test_a(): pass
"""

HONEST = """
import shared

def test_b(): assert shared.answer == 42
def test_c(): assert 0
"""


@pytest.mark.parametrize("scope", ["module", "test"])
def test_an_import_forges_no_test_of_another_module(project: Project, scope: str) -> None:
    project.write("shared.py", "answer = 42\n")
    project.write("test_a.py", FORGER)
    project.write("test_b.py", HONEST)
    result = project.run("--smol", "--smol-collect=module", f"--smol-scope={scope}")
    assert result.outcomes() == {"test_a": "passed", "test_b": "passed", "test_c": "failed"}, result.output
    assert result.status == pytest.ExitCode.TESTS_FAILED
    assert project.left_behind() == []


def test_an_untrusted_marker(project: Project) -> None:
    """In a run of marked tests the guests collect by module, where the host has collected all."""
    marked = "import pytest, os\npytestmark = pytest.mark.smol(untrusted=True)\n"
    in_guest = "if 'SMOL_GUEST' in os.environ:\n" + textwrap.indent(FORGER.strip(), "    ")
    project.write("test_a.py", f"{marked}{in_guest}\ndef test_a(): pass\n")
    project.write("shared.py", "answer = 42\n")
    project.write("test_b.py", marked + HONEST)
    result = project.run()
    assert result.outcomes() == {"test_a": "passed", "test_b": "passed", "test_c": "failed"}, result.output
    assert project.left_behind() == []


ENDLESS = {
    "a loop": "while True: pass\n",
    "a fork bomb": "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n",
}


@pytest.mark.parametrize("source", ENDLESS.values(), ids=ENDLESS.keys())
def test_a_module_that_is_imported_without_end_costs_itself(project: Project, source: str) -> None:
    project.write("test_endless.py", source)
    project.write("test_other.py", "def test_other(): pass\n")
    args = ("--smol", "--smol-collect=module", "--smol-timeout=10", "--continue-on-collection-errors")
    result = project.run(*args)
    assert "ERROR collecting test_endless.py" in result.stdout, result.output
    assert "1 passed, 1 error" in result.stdout
    assert project.left_behind() == []
