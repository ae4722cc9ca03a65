"""The cache of base snapshots: what is whole and unchanged is used, anything else is rebuilt."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

import pytest

from pytest_smol.errors import BootFailed, DiskFull, SnapshotError
from pytest_smol.snapshots import base_cache
from pytest_smol.snapshots.base_cache import BaseCache, Origin
from pytest_smol.snapshots.key import key_of
from pytest_smol.snapshots.snapshot import Snapshot
from pytest_smol.snapshots.sparse import digest_of
from pytest_smol.virtiofs.dependencies import comparison
from pytest_smol.virtiofs.dependencies.dependency import content_digest
from tests.unit.snapshot_samples import DEVICE, HARDWARE, KEY, RAM, STATE, VIEW, Builder, checkout


@pytest.fixture
def seen(tmp_path: Path) -> Path:
    """A file that the guest has read."""
    path = tmp_path / "seen"
    path.write_text("as it was")
    return path


@pytest.fixture
def build(seen: Path) -> Builder:
    return Builder([seen, seen.with_name("missed")])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The directory of a cache."""
    return tmp_path / "cache"


@pytest.fixture
def stored(root: Path, tmp_path: Path, build: Builder) -> Path:
    """The directory of a snapshot in the cache."""
    checkout(root, tmp_path / "first", build)
    return root / "base" / KEY


def again(root: Path, tmp_path: Path, build: Builder) -> Origin:
    """Check out once more; what comes out is always whole."""
    snapshot, origin = checkout(root, tmp_path / "again", build)
    assert (snapshot.ram.read_bytes(), snapshot.state.read_bytes()) == (RAM, STATE)
    assert snapshot.tree.flags == 7
    return origin


# --- hit and miss


def test_the_first_checkout_builds(root: Path, tmp_path: Path, build: Builder) -> None:
    origin = again(root, tmp_path, build)
    assert origin.built is not None
    assert origin.stale is None
    assert build.count == 1
    assert origin.describe().startswith("base snapshot built in ")


@pytest.mark.usefixtures("stored")
def test_the_second_checkout_is_a_hit(root: Path, tmp_path: Path, build: Builder) -> None:
    origin = again(root, tmp_path, build)
    assert origin == Origin()
    assert build.count == 1
    assert origin.describe() == "base snapshot hit"


@pytest.mark.usefixtures("stored")
def test_another_key_is_another_snapshot(root: Path, tmp_path: Path, build: Builder) -> None:
    checkout(root, tmp_path / "again", build, key_of({"test": 2}))
    assert build.count == 2
    assert again(root, tmp_path, build) == Origin()


def test_what_is_checked_out_is_a_copy(root: Path, tmp_path: Path, build: Builder, stored: Path) -> None:
    snapshot, _ = checkout(root, tmp_path / "again", build)
    assert snapshot.ram.parent == snapshot.state.parent == tmp_path / "again"
    snapshot.ram.write_bytes(b"changed by a machine")
    assert (stored / "ram").read_bytes() == RAM
    assert again(root, tmp_path, build) == Origin()


def test_what_is_stored_is_read_only(stored: Path) -> None:
    assert [(stored / name).stat().st_mode & 0o222 for name in ("ram", "state")] == [0, 0]


def test_a_snapshot_keeps_what_it_runs_on(root: Path, tmp_path: Path, build: Builder) -> None:
    snapshot, _ = checkout(root, tmp_path / "again", build)
    assert snapshot.hardware is HARDWARE
    assert snapshot.view is VIEW
    assert [row.path for row in snapshot.tree.dependencies] == [str(path) for path in build.seen]


# --- stale


def modify(path: Path) -> None:
    path.write_text("as it is!")
    os.utime(path, ns=(1, 1))


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_text("as it is!")
    other.rename(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (modify, "seen: was modified"),
        (replace, "seen: was replaced"),
        (Path.unlink, "seen: is gone"),
        (lambda path: path.write_text("longer than it was"), "seen: size was"),
        (lambda path: path.chmod(0o600), "seen: mode was"),
        (lambda path: path.with_name("missed").write_text(""), "missed: was not there before"),
    ],
)
@pytest.mark.usefixtures("stored")
def test_a_snapshot_is_stale_when_what_it_saw_has_changed(
    root: Path, tmp_path: Path, build: Builder, seen: Path, change: Callable[[Path], object], reason: str
) -> None:
    change(seen)
    origin = again(root, tmp_path, build)
    assert origin.stale is not None
    assert reason in origin.stale
    assert f"({origin.stale})" in origin.describe()
    assert again(root, tmp_path, build) == Origin()
    assert build.count == 2


# --- moved: other inode numbers and times, the same contents


def copy_again(path: Path) -> None:
    """Put a copy, which has another inode number and time, in the place of ``path``."""
    old = path.rename(path.with_name("old"))  # kept, so that its inode number is not used again
    path.write_bytes(old.read_bytes())
    path.chmod(old.stat().st_mode)
    os.utime(path, ns=(1, 1))


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read to compare them, from now on."""
    found: list[str] = []

    def digest(path: str, mode: int) -> str:
        found.append(path)
        return content_digest(path, mode)

    monkeypatch.setattr(comparison, "content_digest", digest)
    return found


@pytest.mark.usefixtures("stored")
def test_a_file_with_the_same_content_is_read_once(
    root: Path, tmp_path: Path, build: Builder, seen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_again(seen)
    read = reads(monkeypatch)
    for _ in range(3):
        assert again(root, tmp_path, build) == Origin()
    assert read == [str(seen)]
    assert build.count == 1


@pytest.mark.usefixtures("stored")
def test_a_guest_that_knows_other_times_has_to_forget_them_in_each_run(
    root: Path, tmp_path: Path, build: Builder, seen: Path
) -> None:
    trees = [checkout(root, tmp_path / "again", build)[0].tree]
    time = seen.stat().st_mtime_ns
    os.utime(seen, ns=(1, 1))
    trees.append(checkout(root, tmp_path / "again", build)[0].tree)
    trees.append(checkout(root, tmp_path / "again", build)[0].tree)
    os.utime(seen, ns=(time, time))
    trees.append(checkout(root, tmp_path / "again", build)[0].tree)
    assert [tree.moved for tree in trees] == [False, True, True, False]
    assert [tree.outdated(VIEW, VIEW) for tree in trees] == [False, True, True, False]


@pytest.mark.usefixtures("stored")
def test_after_a_move_a_change_is_still_found(root: Path, tmp_path: Path, build: Builder, seen: Path) -> None:
    copy_again(seen)
    assert again(root, tmp_path, build) == Origin()
    seen.write_text("as it is!")
    assert "seen: was modified" in str(again(root, tmp_path, build).stale)


def test_a_copied_cache_is_as_good(root: Path, tmp_path: Path, build: Builder, stored: Path) -> None:
    assert stored.is_dir()
    shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile)
    shutil.rmtree(root)
    assert again(tmp_path / "copy", tmp_path, build) == Origin()


@pytest.mark.parametrize("text", ["", "nonsense", "{}", "[]", "[[1]]", '[["x", 1], [2, 3]]', "[[1, 2]]"])
def test_identities_that_are_not_sound_cost_a_comparison_of_contents(
    root: Path, tmp_path: Path, build: Builder, stored: Path, seen: Path, text: str
) -> None:
    copy_again(seen)
    (stored / "identities.json").write_text(text)
    assert again(root, tmp_path, build) == Origin()
    modify(seen)
    (stored / "identities.json").write_text(text)
    assert "seen: was replaced" in str(again(root, tmp_path, build).stale)


def test_no_device_number_is_kept(
    root: Path, tmp_path: Path, build: Builder, stored: Path, seen: Path
) -> None:
    assert str(DEVICE) not in (stored / "tree.json").read_text()
    assert str(DEVICE) not in (stored / "identities.json").read_text()
    assert checkout(root, tmp_path / "again", build)[0].tree.devices == (seen.stat().st_dev,)


def test_garbage_is_told_by_content_too(root: Path, stored: Path, seen: Path) -> None:
    copy_again(seen)
    assert BaseCache(root).collect() == []
    modify(seen)
    assert BaseCache(root).collect() == [stored]


# --- the time stamp counter


def copy_for(root: Path, target: Path, build: Builder, tsc_khz: int) -> Origin:
    target.mkdir(exist_ok=True)
    return BaseCache(root, tsc_khz).checkout(KEY, HARDWARE, VIEW, target, build)[1]


def test_a_frequency_that_was_measured_again_is_near_enough(
    root: Path, tmp_path: Path, build: Builder
) -> None:
    copy_for(root, tmp_path / "first", build, 2_596_120)
    assert copy_for(root, tmp_path / "again", build, 2_596_124) == Origin()
    assert copy_for(root, tmp_path / "again", build, 2_594_000) == Origin()


def test_a_host_whose_counter_runs_at_another_frequency_needs_another_snapshot(
    root: Path, tmp_path: Path, build: Builder
) -> None:
    copy_for(root, tmp_path / "first", build, 2_596_120)
    origin = copy_for(root, tmp_path / "again", build, 3_500_000)
    assert origin.stale == "the time stamp counter ran at 2596120 kHz, now at 3500000"
    assert copy_for(root, tmp_path / "again", build, 3_500_001) == Origin()


# --- damaged


def flip(position: int) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[position] ^= 1
        path.chmod(0o600)
        path.write_bytes(data)

    return change


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def lengthen(path: Path) -> None:
    os.truncate(path, path.stat().st_size + 1)


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = [flip(0), flip(-1), cut, empty, lengthen, Path.unlink, make_directory]


@pytest.mark.parametrize("damage", DAMAGES, ids=range(len(DAMAGES)))
@pytest.mark.parametrize("name", ["ram", "state", "tree.json", "manifest.json"])
def test_a_damaged_snapshot_is_rebuilt(
    root: Path, tmp_path: Path, build: Builder, stored: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(stored / name)
    origin = again(root, tmp_path, build)
    assert build.count == 2
    assert origin.stale is not None
    assert "damaged" in origin.stale
    assert again(root, tmp_path, build) == Origin()


def test_a_flip_in_the_middle_of_the_memory_is_found(
    root: Path, tmp_path: Path, build: Builder, stored: Path
) -> None:
    flip(150_000)(stored / "ram")
    assert again(root, tmp_path, build).stale == "its ram file is damaged"


MANIFESTS: list[Any] = [
    None,
    3,
    [],
    {},
    {"format": 1},
    {"format": 1, "files": None},
    {"format": 1, "files": ["ram"]},
]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=range(len(MANIFESTS)))
def test_a_foreign_manifest_is_rebuilt(
    root: Path, tmp_path: Path, build: Builder, stored: Path, manifest: Any
) -> None:
    (stored / "manifest.json").write_text(json.dumps(manifest))
    assert again(root, tmp_path, build).stale is not None
    assert build.count == 2


def test_another_format_is_rebuilt(root: Path, tmp_path: Path, build: Builder, stored: Path) -> None:
    manifest = json.loads((stored / "manifest.json").read_text())
    (stored / "manifest.json").write_text(json.dumps({**manifest, "format": manifest["format"] + 1}))
    assert "another format" in str(again(root, tmp_path, build).stale)


def test_a_tree_of_another_form_is_rebuilt(root: Path, tmp_path: Path, build: Builder, stored: Path) -> None:
    (stored / "tree.json").write_text("{}")
    manifest = json.loads((stored / "manifest.json").read_text())
    manifest["files"]["tree.json"] = digest_of(stored / "tree.json")
    (stored / "manifest.json").write_text(json.dumps(manifest))
    assert "not a table of nodes" in str(again(root, tmp_path, build).stale)


def test_what_another_user_made_is_rebuilt(
    root: Path, tmp_path: Path, build: Builder, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stored.is_dir()
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    assert "belongs to another user" in str(again(root, tmp_path, build).stale)
    assert build.count == 2


def as_file(path: Path) -> None:
    path.write_text("")


def as_link(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("put", [Path.mkdir, as_file, as_link])
def test_whatever_stands_in_its_place_is_replaced(
    root: Path, tmp_path: Path, build: Builder, put: Callable[[Path], object]
) -> None:
    (root / "base").mkdir(parents=True)
    put(root / "base" / KEY)
    again(root, tmp_path, build)
    assert again(root, tmp_path, build) == Origin()
    assert build.count == 1


# --- builds that go wrong


def test_a_build_that_fails_leaves_nothing(root: Path, tmp_path: Path) -> None:
    class Failing(Builder):
        def __call__(self, directory: Path) -> Snapshot:
            super().__call__(directory)
            raise BootFailed("no boot")

    with pytest.raises(BootFailed):
        again(root, tmp_path, Failing())
    assert [path.name for path in (root / "base").iterdir() if not path.name.endswith(".lock")] == []


def test_it_is_built_where_it_is_used_and_never_in_the_cache(root: Path, tmp_path: Path) -> None:
    class Looking(Builder):
        def __call__(self, directory: Path) -> Snapshot:
            assert directory == tmp_path / "again"
            assert [path for path in (root / "base").iterdir() if path.suffix != ".lock"] == []
            return super().__call__(directory)

    snapshot, _ = checkout(root, tmp_path / "again", Looking())
    assert snapshot.ram.stat().st_mode & 0o200
    assert again(root, tmp_path, Builder()) == Origin()


def test_a_failed_rebuild_is_tried_again(root: Path, tmp_path: Path, build: Builder, stored: Path) -> None:
    def fail(directory: Path) -> Snapshot:
        raise BootFailed("no boot")

    (stored / "ram").unlink()
    with pytest.raises(BootFailed):
        BaseCache(root).checkout(KEY, HARDWARE, VIEW, tmp_path, fail)
    assert again(root, tmp_path, build).stale is not None


def test_files_that_change_all_the_time_are_an_error_with_a_remedy(
    root: Path, tmp_path: Path, seen: Path
) -> None:
    class Restless(Builder):
        def __call__(self, directory: Path) -> Snapshot:
            snapshot = super().__call__(directory)
            modify(seen)
            return snapshot

    with pytest.raises(SnapshotError, match="was modified") as caught:
        again(root, tmp_path, Restless([seen]))
    assert caught.value.remedy


# --- a full disk


def no_space(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.usefixtures("stored")
def test_a_disk_that_is_full_is_named(
    root: Path, tmp_path: Path, build: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwrite", no_space)
    with pytest.raises(DiskFull, match="again/ram could not be written: No space left") as caught:
        again(root, tmp_path, build)
    assert "TMPDIR" in caught.value.remedy
    assert build.count == 1


def test_a_disk_that_fills_up_during_a_build_is_named(root: Path, tmp_path: Path) -> None:
    class Filling(Builder):
        def __call__(self, directory: Path) -> Snapshot:
            no_space()
            return super().__call__(directory)

    with pytest.raises(DiskFull, match="No space left"):
        again(root, tmp_path, Filling())
    assert list((root / "base").glob(".new-*")) == []


def test_space_is_asked_for_before_anything_is_built(
    root: Path, tmp_path: Path, build: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(directory: Path, needed: int) -> None:
        assert needed == HARDWARE.memory << 20
        raise DiskFull("no room")

    monkeypatch.setattr(base_cache, "require_space", refuse)
    with pytest.raises(DiskFull):
        again(root, tmp_path, build)
    assert build.count == 0


# --- two processes

#: A process that checks a snapshot out. It says "building" and waits for a line before it builds, says
#: "waiting" while another process has the lock, and what came of it at the end.
CHECKOUT = """
import logging, sys
from pathlib import Path
from tests.unit.snapshot_samples import Builder, checkout

class Told(Builder):
    def __call__(self, directory):
        with open(sys.argv[3], "a") as log:
            log.write("built\\n")
        print("building", flush=True)
        sys.stdin.readline()
        return super().__call__(directory)

class Waits(logging.Handler):
    def emit(self, record):
        if "not acquired" in record.getMessage():
            print("waiting", flush=True)

logging.getLogger("filelock").setLevel(logging.DEBUG)
logging.getLogger("filelock").addHandler(Waits())
snapshot, origin = checkout(Path(sys.argv[1]), Path(sys.argv[2]), Told())
print("hit" if origin.built is None else "built")
"""


def test_of_many_processes_one_builds_and_the_others_wait(root: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", CHECKOUT, str(root), str(tmp_path / str(number)), str(log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
        )
        for number in range(3)
    ]
    outputs = [cast(IO[str], run.stdout) for run in runs]
    first = [output.readline() for output in outputs]
    for run in runs:
        cast(IO[str], run.stdin).close()
    ends = [output.read().splitlines()[-1] for output in outputs]
    assert sorted(first) == ["building\n", "waiting\n", "waiting\n"]
    assert sorted(ends) == ["built", "hit", "hit"]
    assert [run.wait() for run in runs] == [0, 0, 0]
    assert log.read_text() == "built\n"
    assert [(tmp_path / str(number) / "ram").read_bytes() == RAM for number in range(3)] == [True] * 3
