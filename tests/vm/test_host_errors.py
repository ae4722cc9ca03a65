"""What a host lacks is one clear error with a hint: exit status 4, and nothing is left."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.project import Project, Result, machines, share_boot_files, small_file_system

pytestmark = pytest.mark.vm

#: 1 TiB: more than a machine with tests in it will have for the next years.
ABSURD_MEMORY = 1 << 20


@pytest.fixture
def project(project: Project) -> Project:
    project.write("test_it.py", "def test_it():\n    pass\n")
    return project


def check(project: Project, result: Result, *words: str) -> None:
    """The run ended with one error that holds all of ``words``, and has a hint."""
    assert result.status == 4, result.output
    errors = [line for line in result.output.splitlines() if line.startswith("ERROR: ")]
    assert len(errors) == 1, result.output
    for word in words:
        assert word in errors[0], result.output
    assert result.output.count("hint: ") == 1, result.output
    assert "Traceback" not in result.output
    assert "INTERNALERROR" not in result.output
    assert "warning" not in result.output.lower()
    assert result.cases == {}
    assert project.left_behind() == []


def fake_qemu(project: Project, text: str) -> str:
    path = project.write("qemu", f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return f"smol_qemu={path}"


def test_qemu_is_missing(project: Project) -> None:
    result = project.run("--smol", "-o", "smol_qemu=/nonexistent/qemu")
    check(project, result, "/nonexistent/qemu is not installed")


def test_qemu_is_too_old(project: Project) -> None:
    qemu = fake_qemu(project, "echo 'QEMU emulator version 7.2.17 (Debian 1:7.2+dfsg-7)'")
    check(project, project.run("--smol", "-o", qemu), "QEMU 7.2.17")


@pytest.mark.parametrize("text", ["echo hello", "exit 3", "kill -SEGV $$", "exec /nonexistent"])
def test_qemu_is_none(project: Project, text: str) -> None:
    check(project, project.run("--smol", "-o", fake_qemu(project, text)))


def test_qemu_does_not_start(project: Project) -> None:
    """It knows its version but dies on the first machine."""
    version = "[ $1 = --version ] && echo 'QEMU emulator version 10.0.2' && exit"
    result = project.run("--smol", "-o", fake_qemu(project, f"{version}\necho 'no such machine' >&2\nexit 1"))
    assert result.status == 2, result.output  # as for any other reason why nothing can be collected
    assert "no such machine" in result.output
    assert "hint: " in result.output
    assert "Traceback" not in result.output
    assert "INTERNALERROR" not in result.output
    assert project.left_behind() == []


def test_no_kernel(project: Project) -> None:
    result = project.run("--smol", "-o", "smol_kernel=/nonexistent/vmlinuz")
    check(project, result, "/nonexistent/vmlinuz", "No such file")


def test_a_kernel_that_is_none(project: Project) -> None:
    path = project.write("vmlinuz", "This is a text.\n" * 10_000)
    check(project, project.run("--smol", "-o", f"smol_kernel={path}"), "bzImage")


@pytest.mark.parametrize("memory", ["0", "1", "-256", "lots", "99999999999999999999"])
def test_memory_that_is_none(project: Project, memory: str) -> None:
    check(project, project.run("--smol", f"--smol-memory={memory}"), f"--smol-memory={memory!r}")


def test_memory_that_nobody_has(project: Project) -> None:
    check(project, project.run("--smol", f"--smol-memory={ABSURD_MEMORY}"), "MiB")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    with small_file_system(tmp_path / "small", 16) as place:
        yield place


def test_no_space_for_a_run(project: Project, small: Path) -> None:
    check(project, project.run("--smol", TMPDIR=str(small)), str(small), "MiB free")
    assert list(small.iterdir()) == []


def test_no_space_where_snapshots_are_to_be(project: Project, small: Path) -> None:
    check(project, project.run("--smol", f"--smol-snapshot-dir={small}"), str(small), "MiB free")
    assert list(small.iterdir()) == []


def test_snapshots_where_the_user_says(project: Project) -> None:
    place = project.root / "snapshots"
    place.mkdir()
    (place / "pytest-smol-run-left").mkdir()
    result = project.run("--smol", "-o", "smol_snapshot_dir=snapshots")
    assert result.outcomes() == {"test_it": "passed"}, result.output
    assert list(place.iterdir()) == []


def test_a_snapshot_directory_that_is_none(project: Project) -> None:
    result = project.run("--smol", "--smol-snapshot-dir=/nonexistent")
    check(project, result, "/nonexistent", "cannot be made")


def test_a_snapshot_directory_that_others_can_write(project: Project) -> None:
    place = project.home / "open"
    place.mkdir()
    place.chmod(0o777)
    result = project.run("--smol", f"--smol-snapshot-dir={place}")
    check(project, result, str(place), "others may write")


def test_no_space_in_the_cache(project: Project, small: Path) -> None:
    share_boot_files(small)
    check(project, project.run("--smol", XDG_CACHE_HOME=str(small)), str(small), "MiB free")
    assert list((small / "pytest-smol/base").glob(".*")) == []
    assert machines(small) == {}


def test_a_cache_that_cannot_be_written(project: Project) -> None:
    place = project.write("cache", "a file where a directory should be")
    check(project, project.run("--smol", XDG_CACHE_HOME=str(place)), str(place), "cannot be made")


def test_a_cache_that_others_can_write(project: Project) -> None:
    place = project.home / "open"
    (place / "pytest-smol").mkdir(parents=True)
    (place / "pytest-smol").chmod(0o777)
    check(project, project.run("--smol", XDG_CACHE_HOME=str(place)), "others may write")


def test_a_cache_whose_parent_others_can_write(project: Project) -> None:
    place = project.home / "open"
    place.mkdir()
    place.chmod(0o777)
    check(project, project.run("--smol", XDG_CACHE_HOME=str(place)), str(place), "others may write")


def test_a_read_only_cache(project: Project, small: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    check(project, project.run("--smol", XDG_CACHE_HOME=str(small)), str(small))


def test_a_temporary_directory_that_is_none(project: Project) -> None:
    """Python itself then takes another, and so do we."""
    result = project.run("--smol", TMPDIR="/nonexistent")
    assert result.outcomes() == {"test_it": "passed"}, result.output


def test_a_wrong_marker(project: Project) -> None:
    text = "import pytest\n\n@pytest.mark.smol(memry=512)\ndef test_it():\n    pass\n"
    project.write("test_it.py", text)
    check(project, project.run(), "test_it.py::test_it", "memry")
