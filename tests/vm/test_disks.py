"""Scratch disks and processors of machines."""

from __future__ import annotations

import pytest

from tests.vm.project import Project

pytestmark = pytest.mark.vm

INI = """
[pytest]
smol_disks = 64M 64M 64M 64M 64M 64M 64M 1T
smol_cpus = 2
"""

TESTS = """
import multiprocessing, os, subprocess
import pytest

if os.path.exists("/dev/vdb"):
    with open("/dev/vdb", "r+b", 0) as file:
        file.write(b"collected".ljust(4096, b"."))
        os.fsync(file.fileno())

def test_disks_have_their_sizes(smol_disks):
    assert smol_disks == [f"/dev/vd{letter}" for letter in "abcdefgh"]
    sizes = []
    for path in smol_disks:
        with open(path, "r+b", 0) as file:
            sizes.append(file.seek(0, 2))
    assert sizes == [64 << 20] * 7 + [1 << 40]

def test_processors():
    assert os.cpu_count() == 2 == len(os.sched_getaffinity(0))
    with multiprocessing.Pool(2) as pool:
        assert pool.map(abs, [-1, -2], chunksize=1) == [1, 2]

@pytest.mark.smol
@pytest.mark.parametrize("number", [1, 2])
def test_each_machine_has_what_collection_wrote(smol_disks, number):
    with open(smol_disks[1], "r+b", 0) as file:
        assert file.read(9) == b"collected"
        file.seek(0)
        file.write(b"changed".ljust(4096, b"."))
        os.fsync(file.fileno())
        file.seek(0)
        assert file.read(7) == b"changed"

@pytest.mark.smol
def test_a_file_system(smol_disks):
    subprocess.run(["mkfs.ext4", "-q", smol_disks[0]], check=True)

@pytest.mark.smol(disks=[], cpus=1)
def test_no_disks(smol_disks):
    pass
"""


@pytest.mark.kvm
@pytest.mark.kvm_long
def test_disks_and_processors(project: Project) -> None:
    project.write("pytest.ini", INI)
    project.write("test_disks.py", TESTS)
    result = project.run("--smol")
    outcomes = result.outcomes()
    assert outcomes.pop("test_no_disks") == "error"
    assert "this VM has no scratch disks" in result.stdout
    assert len(outcomes) == 5
    assert set(outcomes.values()) == {"passed"}
    assert not project.left_behind()


def test_without_a_machine_the_fixture_says_so(project: Project) -> None:
    project.write("test_disks.py", "def test_it(smol_disks):\n    pass\n")
    result = project.run()
    assert result.outcomes() == {"test_it": "error"}
    assert "runs in no VM" in result.stdout
