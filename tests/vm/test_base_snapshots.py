"""Base snapshots on disk: made once, used while they are true, rebuilt when they are not."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.vm.environment import make_environment
from tests.vm.project import Project, share_boot_files

pytestmark = pytest.mark.vm

BUILT = "base snapshot built in"
HIT = "base snapshot hit"


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with an interpreter and an empty cache of its own; both are kept from test to test."""
    home = tmp_path_factory.mktemp("cache")
    cache = home / "cache"
    share_boot_files(cache)
    python = make_environment(home / "environment", sys.executable)
    project = Project(home, str(python), env={"XDG_CACHE_HOME": str(cache)})
    project.write("test_it.py", "def test_it():\n    pass\n")
    return project


@pytest.fixture(scope="module", autouse=True)
def outputs(cached: Project) -> list[str]:
    """What four runs printed that started at once and found nothing in the cache."""
    results = [run.result() for run in [cached.start("--smol") for _ in range(4)]]
    assert [result.outcomes() for result in results] == [{"test_it": "passed"}] * 4
    return [result.output for result in results]


def snapshot(project: Project) -> Path:
    """The directory of the only snapshot in the cache."""
    (found,) = (path for path in (project.home / "cache/pytest-smol/base").iterdir() if path.is_dir())
    return found


def header(project: Project) -> str:
    """The header line of a run that passes."""
    result = project.run("--smol")
    assert result.outcomes() == {"test_it": "passed"}, result.output
    assert project.left_behind() == []
    return next(line for line in result.stdout.splitlines() if "base snapshot" in line and "QEMU" in line)


def test_one_of_four_builds(cached: Project, outputs: list[str]) -> None:
    assert sum(BUILT in output for output in outputs) == 1
    assert sum(HIT in output for output in outputs) == 3
    assert snapshot(cached).is_dir()


def test_the_next_run_hits(cached: Project) -> None:
    before = (snapshot(cached) / "ram").stat().st_ino
    assert HIT in header(cached)
    assert (snapshot(cached) / "ram").stat().st_ino == before


def test_a_touched_file_makes_it_stale(cached: Project) -> None:
    """One that the guest read when the snapshot was made; others do not count."""
    (touched,) = (cached.home / "environment").glob("lib/python*/site-packages/pluggy/_hooks.py")
    (cached.home / "environment" / "unread.txt").write_text("nobody looked for this")
    assert HIT in header(cached)
    os.utime(touched)
    line = header(cached)
    assert BUILT in line
    assert f"{touched}: was modified" in line
    assert HIT in header(cached)


def overwrite(name: str, offset: int) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        path = directory / name
        path.chmod(0o600)
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(b"damage")
        path.chmod(0o444)

    return damage


def remove(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).unlink()


DAMAGE = {
    "ram overwritten": overwrite("ram", 64 << 20),
    "state missing": remove("state"),
    "manifest no JSON": overwrite("manifest.json", 0),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_snapshot_is_rebuilt(cached: Project, damage: Callable[[Path], None]) -> None:
    damage(snapshot(cached))
    line = header(cached)
    assert BUILT in line
    assert "damaged" in line
