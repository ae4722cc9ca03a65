from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pytest_smol.errors import SnapshotError
from pytest_smol.virtiofs.dependencies.comparison import changed
from pytest_smol.virtiofs.dependencies.dependency import FileDependency, names_digest
from pytest_smol.virtiofs.dependencies.recorder import DependencyRecorder


def look(path: Path) -> DependencyRecorder:
    recorder = DependencyRecorder()
    recorder.saw(os.fsencode(path), os.lstat(path) if os.path.lexists(path) else None)
    return recorder


def list_(path: Path) -> DependencyRecorder:
    recorder = look(path)
    recorder.listed(os.fsencode(path), os.stat(path), os.listdir(os.fsencode(path)))
    return recorder


def read(path: Path) -> DependencyRecorder:
    recorder = look(path)
    recorder.read(os.fsencode(path))
    return recorder


def why(recorder: DependencyRecorder) -> str | None:
    return changed(recorder.freeze(()))


def test_nothing_changed(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    assert why(look(tmp_path / "f")) is why(look(tmp_path / "no")) is why(list_(tmp_path)) is None


def test_a_file_that_changes_in_any_way_is_named(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("x")
    seen = read(path)
    path.write_text("xy")
    assert why(seen) == f"{path}: size was 1, is 2"
    seen = read(path)
    os.utime(path, ns=(0, 1))
    assert why(seen) == f"{path}: was modified"
    seen = read(path)
    path.chmod(0o600 if path.stat().st_mode & 0o77 else 0o644)
    assert "mode was" in (why(seen) or "")
    seen = read(path)
    (tmp_path / "g").write_text("xy")
    (tmp_path / "g").chmod(path.stat().st_mode & 0o777)
    os.utime(tmp_path / "g", ns=(0, 1))
    os.replace(tmp_path / "g", path)
    assert why(seen) == f"{path}: was replaced"
    seen = read(path)
    path.unlink()
    assert why(seen) == f"{path}: is gone"


def test_a_miss_is_an_observation(tmp_path: Path) -> None:
    seen = look(tmp_path / "no")
    (tmp_path / "no").symlink_to("nowhere")
    assert why(seen) == f"{tmp_path / 'no'}: was not there before"


def test_a_directory_that_was_only_looked_up_may_get_new_entries(tmp_path: Path) -> None:
    seen = look(tmp_path)
    (tmp_path / "new").touch()
    assert why(seen) is None


def test_a_listed_directory_is_compared_by_its_names(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    seen = list_(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    os.utime(tmp_path, ns=(0, 1))
    assert why(seen) is None
    (tmp_path / "b").touch()
    assert why(seen) == f"{tmp_path}: holds other names"
    (tmp_path / "b").unlink()
    assert why(seen) is None
    (tmp_path / "a").rename(tmp_path / "c")
    assert why(seen) == f"{tmp_path}: holds other names"


def test_pythons_own_caches_do_not_count(tmp_path: Path) -> None:
    recorder = DependencyRecorder()
    cache = os.fsencode(tmp_path / "__pycache__")
    recorder.saw(cache, None)
    recorder.saw(cache + b"/x.pyc", None)
    recorder.listed(cache, os.stat(tmp_path), [])
    recorder.saw(os.fsencode(tmp_path / "__pycache__x"), None)
    assert [row.path for row in recorder.freeze(())] == [str(tmp_path / "__pycache__x")]


def test_the_first_observation_counts(tmp_path: Path) -> None:
    path = tmp_path / "f"
    recorder = look(path)
    path.touch()
    recorder.saw(os.fsencode(path), os.lstat(path))
    assert why(recorder) == f"{path}: was not there before"
    later = look(path)
    assert later.freeze(recorder.freeze(())) == recorder.freeze(())


def test_earlier_and_later_observations_are_joined(tmp_path: Path) -> None:
    earlier = look(tmp_path).freeze(())
    rows = list_(tmp_path).freeze(earlier)
    assert [(row.path, bool(row.names)) for row in rows] == [(str(tmp_path), False), (str(tmp_path), True)]


def test_names_that_are_no_text_survive_json(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff\n"
    Path(os.fsdecode(name)).touch()
    rows = look(Path(os.fsdecode(name))).freeze(())
    again = tuple(
        FileDependency.from_json(row) for row in json.loads(json.dumps([list(row) for row in rows]))
    )
    assert again == rows
    assert changed(again) is None


@pytest.mark.parametrize("row", [None, [], ["p", 1, 2, 3, 4], ["p", "x", 2, 3, 4, "", 0, ""], 5])
def test_other_json_is_refused(row: object) -> None:
    with pytest.raises(ValueError, match=r"not a file dependency|unpack|int\(\)"):
        FileDependency.from_json(row)


def test_a_digest_of_names_knows_no_order_but_all_names() -> None:
    assert names_digest([b"a", b"b"]) == names_digest([b"b", b"__pycache__", b"a"]) != names_digest([b"ab"])
    assert names_digest([]) != ""


def test_a_guest_cannot_fill_the_hosts_memory_with_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_smol.virtiofs.dependencies.recorder.LIMIT", 3)
    recorder = DependencyRecorder()
    for n in range(10):
        recorder.saw(b"/nowhere/%d" % n, None)
        recorder.missed(f"/{n}")
    assert len(recorder._seen) == 3 == len(recorder.composed_misses)
    with pytest.raises(SnapshotError, match="more than 3 paths"):
        recorder.freeze(())
