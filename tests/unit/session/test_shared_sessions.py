"""Guest sessions that processes share: made once, waited for, checked when they are loaded."""

from __future__ import annotations

import multiprocessing
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from pytest_smol.errors import HostError, MachineDied, SnapshotError
from pytest_smol.session.xdist.shared_sessions import SharedSession, SharedSessions
from tests.unit.snapshot_samples import HARDWARE, KEY, RAM, STATE, VIEW, Builder

SAID = b"what the guest said"


class SessionBuilder:
    """Builds a guest session, and notes each time in the file ``log``."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def __call__(self, directory: Path) -> SharedSession:
        with self._log.open("a") as file:
            file.write("built\n")
        return SharedSession(SAID, Builder()(directory))

    @property
    def count(self) -> int:
        return len(self._log.read_text().splitlines()) if self._log.exists() else 0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "shared"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def build(tmp_path: Path) -> SessionBuilder:
    return SessionBuilder(tmp_path / "log")


def obtain(root: Path, build: Any, key: str = KEY) -> tuple[SharedSession, bool]:
    return SharedSessions(root).obtain(key, HARDWARE, VIEW, build)


def test_who_comes_first_makes_it_and_the_others_load_the_same(root: Path, build: SessionBuilder) -> None:
    first, made = obtain(root, build)
    second, made_again = obtain(root, build)
    assert (made, made_again, build.count) == (True, False, 1)
    assert first == second
    assert second.said == SAID
    assert second.snapshot is not None
    assert (second.snapshot.ram.read_bytes(), second.snapshot.state.read_bytes()) == (RAM, STATE)
    assert (second.snapshot.hardware, second.snapshot.view) == (HARDWARE, VIEW)


def test_each_key_has_its_own(root: Path, build: SessionBuilder) -> None:
    obtain(root, build)
    assert obtain(root, build, "f" * 32)[1]
    assert build.count == 2


def _take(root: Path, log: Path, results: Any) -> None:
    def build(directory: Path) -> SharedSession:
        results.put("building")
        return SessionBuilder(log)(directory)

    shared, made = obtain(root, build)
    results.put((made, shared.said))


def test_processes_that_come_at_once_make_one(root: Path, build: SessionBuilder, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=_take, args=(root, tmp_path / "log", results)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in range(4)]
    for process in processes:
        process.join(60)
    assert sorted(each for each in found if each != "building") == [
        (False, SAID),
        (False, SAID),
        (True, SAID),
    ]
    assert found.count("building") == build.count == 1


def _die(root: Path) -> None:
    def build(directory: Path) -> SharedSession:
        (directory / "ram").write_bytes(b"half")
        os._exit(9)

    obtain(root, build)


def test_a_process_that_dies_while_it_builds_leaves_the_work_to_the_next(
    root: Path, build: SessionBuilder
) -> None:
    process = multiprocessing.get_context("fork").Process(target=_die, args=(root,))
    process.start()
    process.join(60)
    assert process.exitcode == 9
    shared, made = obtain(root, build)
    assert made
    assert shared.snapshot is not None
    assert shared.snapshot.ram.read_bytes() == RAM


def test_its_files_are_read_only_and_nothing_unfinished_stays(root: Path, build: SessionBuilder) -> None:
    obtain(root, build)
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (root / KEY).iterdir()}
    del files["manifest.json"]
    assert files == dict.fromkeys(("ram", "state", "tree.json", "said"), 0o444)
    assert stat.S_IMODE((root / KEY).stat().st_mode) == 0o700
    assert {path.name for path in root.iterdir()} <= {KEY, f"{KEY}.lock"}


def test_why_it_failed_is_shared_too(root: Path, build: SessionBuilder) -> None:
    error = MachineDied("the guest died", evidence="console", remedy="none")
    shared, _ = obtain(root, lambda directory: SharedSession(SAID, None, error))
    assert shared.failure is error
    again, made = obtain(root, build)
    assert (made, build.count, again.said, again.snapshot) == (False, 0, SAID, None)
    assert isinstance(again.failure, MachineDied)
    assert (again.failure.message, again.failure.evidence, again.failure.remedy) == (
        *("the guest died", "console"),
        "none",
    )


def test_that_it_ended_is_shared_too(root: Path, build: SessionBuilder) -> None:
    obtain(root, lambda directory: SharedSession(SAID, ended=(3, "why")))
    again, made = obtain(root, build)
    assert (made, build.count) == (False, 0)
    assert again == SharedSession(SAID, ended=(3, "why"))


def test_what_is_raised_is_not_shared(root: Path, build: SessionBuilder) -> None:
    def refuse(directory: Path) -> SharedSession:
        raise HostError("no", remedy="yes")

    with pytest.raises(HostError, match="no"):
        obtain(root, refuse)
    assert obtain(root, build)[1]


def truncate(path: Path) -> None:
    path.chmod(0o600)
    os.truncate(path, path.stat().st_size // 2)


def change(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(b"x" + path.read_bytes()[1:])


@pytest.mark.parametrize("name", ["ram", "state", "tree.json", "said", "manifest.json"])
@pytest.mark.parametrize("damage", [truncate, change, Path.unlink])
def test_what_is_damaged_is_refused(root: Path, build: SessionBuilder, name: str, damage: Any) -> None:
    obtain(root, build)
    damage(root / KEY / name)
    with pytest.raises(SnapshotError, match="cannot be used"):
        obtain(root, build)
    assert build.count == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"ended": null, "failure": {"kind": "OSError", "message": "x"}}',
        '{"ended": null, "failure": {"kind": "HostError"}}',
        '{"ended": null, "failure": null}',
        '{"ended": [], "failure": null}',
        '{"ended": ["x", ""], "failure": null}',
    ],
)
def test_a_failure_that_is_none_is_refused(root: Path, build: SessionBuilder, text: str) -> None:
    obtain(root, build)
    (root / KEY / "failure.json").write_text(text)
    with pytest.raises(SnapshotError, match="cannot be used"):
        obtain(root, build)


def test_a_directory_that_others_can_write_to_is_refused(root: Path) -> None:
    root.chmod(0o777)
    with pytest.raises(SnapshotError, match="others may write"):
        SharedSessions(root)


def test_what_belongs_to_another_user_is_refused(
    root: Path, build: SessionBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    obtain(root, build)
    share = SharedSessions(root)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(SnapshotError, match="another user"):
        share.obtain(KEY, HARDWARE, VIEW, build)
