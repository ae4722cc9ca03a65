"""Machines that run machines: KVM works in them, for the tests' user as well."""

from __future__ import annotations

import pytest

from tests.vm.project import Project

pytestmark = pytest.mark.vm

TESTS = """
import os
import pytest
from pytest_smol.engines.kvm.probe import best_time

@pytest.mark.smol(nested=True)
def test_kvm_runs_a_loop():
    assert best_time(1000, 1, 1.0) > 0

@pytest.mark.smol(nested=True)
def test_boot_files_are_there():
    from pytest_smol.guest_os import boot_files
    from pytest_smol.host import cache_directory
    said = []
    assert boot_files.prepare(cache_directory.directory(), None, said.append).kernel.is_file()
    assert said == []

@pytest.mark.smol
def test_without():
    assert not os.path.exists("/dev/kvm")
"""


def test_a_nested_machine_has_kvm(project: Project) -> None:
    project.write("test_nested.py", TESTS)
    result = project.run()
    assert result.outcomes() == {
        "test_kvm_runs_a_loop": "passed",
        "test_boot_files_are_there": "passed",
        "test_without": "passed",
    }, result.output


def test_the_ini_value_is_for_all(project: Project) -> None:
    project.write("pytest.ini", "[pytest]\naddopts = -p no:cacheprovider\nsmol_nested = true\n")
    project.write("test_nested.py", TESTS.replace("smol(nested=True)", "smol").replace("not os", "os"))
    result = project.run("--smol", "--smol-scope=module")
    assert set(result.outcomes().values()) == {"passed"}, result.output
