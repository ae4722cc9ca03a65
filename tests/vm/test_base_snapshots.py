"""Base snapshots on disk: made once, used while they are true, rebuilt when they are not."""

from __future__ import annotations

import json
import os
import shutil
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


def hooks(project: Project) -> Path:
    """A module that the guest had loaded when the snapshot was made."""
    (found,) = (project.home / "environment").glob("lib/python*/site-packages/pluggy/_hooks.py")
    return found


def change_quotes(path: Path, old: str, new: str) -> None:
    """Change the content and the time of the module ``path``, but neither its size nor what it does."""
    text = path.read_text("utf-8")
    assert text.count(old * 3) >= 2
    path.write_text(text.replace(old * 3, new * 3, 2), "utf-8")


def test_a_touched_file_is_compared_by_its_content(cached: Project) -> None:
    """One that the guest read when the snapshot was made; others do not count."""
    (cached.home / "environment" / "unread.txt").write_text("not looked for")
    assert HIT in header(cached)
    os.utime(hooks(cached))
    assert HIT in header(cached)
    change_quotes(hooks(cached), '"', "'")
    line = header(cached)
    assert BUILT in line
    assert f"{hooks(cached)}: was modified" in line
    assert HIT in header(cached)


SEEN = """
import json, os

def test_seen():
    with open("facts.json") as file:
        known = json.load(file)
    seen = {path: os.stat(path) for path in known}
    assert {path: st.st_mtime_ns for path, st in seen.items()} == known
    assert len({(st.st_dev, st.st_ino) for st in seen.values()}) == len(known)
"""


def copy_in_place(directory: Path) -> None:
    """As a restored cache or a fresh container has it: the same path, other inode numbers and times."""
    old = directory.rename(directory.with_name(f"{directory.name}.old"))
    shutil.copytree(old, directory, symlinks=True, copy_function=shutil.copy)


def test_copies_are_as_good_and_seen_as_they_are(cached: Project) -> None:
    before = (snapshot(cached) / "ram").stat().st_ino
    copy_in_place(cached.home / "environment")
    copy_in_place(cached.home / "cache")
    # The old files stay: a guest that remembered their inode numbers would see some of them twice.
    trees = [cached.home / name for name in ("environment", "environment.old")]
    files = [path for tree in trees for path in tree.glob("lib/**/p*/*.py") if not path.is_symlink()]
    facts = {str(path): path.stat().st_mtime_ns for path in files}
    assert len(facts) > 100
    cached.write("facts.json", json.dumps(facts))
    test = cached.write("test_seen.py", SEEN)
    # Named, so that guests see it, but nothing in it is collected.
    arguments = ("test_seen.py", str(trees[1]), f"--ignore-glob={trees[1]}/*")
    for _ in range(2):
        result = cached.run("--smol", *arguments)
        assert result.outcomes() == {"test_seen": "passed"}, result.output
        assert HIT in result.stdout
    assert (snapshot(cached) / "ram").stat().st_ino != before
    test.rename(test.with_suffix(".done"))


def test_a_change_in_a_copy_is_found(cached: Project) -> None:
    assert HIT in header(cached)
    change_quotes(hooks(cached), "'", '"')
    line = header(cached)
    assert BUILT in line
    assert f"{hooks(cached)}: was modified" in line


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
