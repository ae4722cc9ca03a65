"""The directory of a run: held while the run lives, swept when it died."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_smol.errors import DiskFull, SettingError
from pytest_smol.host import run_directory
from pytest_smol.host.run_directory import RunDirectory, require_space, sweep

#: A run of its own: says where its directory is, and lives until its input ends.
RUN = """
import sys
from pathlib import Path
from pytest_smol.host.run_directory import RunDirectory
with RunDirectory(Path(sys.argv[1])) as run:
    print(run.path, flush=True)
    sys.stdin.read()
"""


def start_run(parent: Path) -> tuple[subprocess.Popen[str], Path]:
    argv = [sys.executable, "-c", RUN, str(parent)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def finish(process: subprocess.Popen[str]) -> None:
    process.communicate()


def test_a_run_has_a_directory_of_its_own_until_it_ends(tmp_path: Path) -> None:
    with RunDirectory(tmp_path) as run:
        assert stat.S_IMODE(run.path.stat().st_mode) == 0o700
        assert run.path.parent == tmp_path
        (run.path / "below").mkdir()
        (run.path / "below" / "file").write_text("x")
    assert list(tmp_path.iterdir()) == []
    run.close()


def test_its_place_is_the_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with RunDirectory() as run:
        assert run.path.parent == tmp_path
        assert sweep() == []


def test_two_runs_do_not_share(tmp_path: Path) -> None:
    with RunDirectory(tmp_path) as one, RunDirectory(tmp_path) as other:
        assert one.path != other.path


@pytest.mark.parametrize("parent", ["missing", "file"])
def test_a_place_where_nothing_can_be_made_is_reported(tmp_path: Path, parent: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskFull, match="cannot be made") as caught:
        RunDirectory(tmp_path / parent)
    assert "TMPDIR" in caught.value.remedy


def test_a_place_where_others_could_replace_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(SettingError, match="others may write") as caught:
        RunDirectory(tmp_path / "open")
    assert "--smol-snapshot-dir" in caught.value.remedy
    assert list((tmp_path / "open").iterdir()) == []


# --- what is swept


def test_a_living_run_is_left_alone(tmp_path: Path) -> None:
    process, path = start_run(tmp_path)
    with RunDirectory(tmp_path) as own:
        assert sweep(tmp_path) == []
        assert path.is_dir()
        assert own.path.is_dir()
    finish(process)
    assert not path.exists()


def test_what_a_killed_run_has_left_is_removed(tmp_path: Path) -> None:
    process, path = start_run(tmp_path)
    process.send_signal(signal.SIGKILL)
    finish(process)
    (path / "ram").write_bytes(b"x")
    (path / "ram").chmod(0o444)
    assert sweep(tmp_path) == [path]
    assert list(tmp_path.iterdir()) == []
    assert sweep(tmp_path) == []


def test_a_directory_without_a_lock_was_being_removed(tmp_path: Path) -> None:
    left = tmp_path / "pytest-smol-run-x"
    left.mkdir()
    assert sweep(tmp_path) == [left]


def test_a_directory_that_waits_for_its_lock_is_given_time(tmp_path: Path) -> None:
    fresh, old = tmp_path / "pytest-smol-new-a", tmp_path / "pytest-smol-new-b"
    for path in (fresh, old):
        path.mkdir()
    hours_ago = time.time() - 7200
    os.utime(old, (hours_ago, hours_ago))
    assert sweep(tmp_path) == [old]
    assert fresh.is_dir()


def test_other_names_and_kinds_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "target").mkdir()
    (tmp_path / "pytest-smol-run-file").write_text("x")
    (tmp_path / "pytest-smol-run-link").symlink_to(tmp_path / "target")
    assert sweep(tmp_path) == []
    assert len(list(tmp_path.iterdir())) == 4


def test_what_belongs_to_another_user_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pytest-smol-run-x").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    assert sweep(tmp_path) == []


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("x")
    left = tmp_path / "pytest-smol-run-x"
    left.mkdir()
    (left / "lock").symlink_to(tmp_path / "elsewhere")
    assert sweep(tmp_path) == []


def test_a_run_may_get_its_lock_while_another_sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unborn = tmp_path / "pytest-smol-new-a"
    unborn.mkdir()

    def renamed_meanwhile(path: Path) -> bool:
        path.rename(tmp_path / "pytest-smol-run-a")
        return True

    monkeypatch.setattr(run_directory, "_owned", renamed_meanwhile)
    assert sweep(tmp_path) == []


def test_a_run_may_end_while_another_sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / "pytest-smol-run-x"
    left.mkdir()
    owned = run_directory._owned

    def ended_meanwhile(path: Path) -> bool:
        left.rmdir()
        return owned(path)

    monkeypatch.setattr(run_directory, "_owned", ended_meanwhile)
    assert sweep(tmp_path) == []


def test_many_runs_start_and_sweep_at_once(tmp_path: Path) -> None:
    source = """
import sys
from pathlib import Path
from pytest_smol.host.run_directory import RunDirectory, sweep
for _ in range(50):
    with RunDirectory(Path(sys.argv[1])) as run:
        sweep(Path(sys.argv[1]))
        assert run.path.is_dir()
"""
    runs = [subprocess.Popen([sys.executable, "-c", source, str(tmp_path)]) for _ in range(3)]
    assert [run.wait() for run in runs] == [0, 0, 0]
    assert list(tmp_path.iterdir()) == []


# --- space


def test_enough_space_is_no_error(tmp_path: Path) -> None:
    require_space(tmp_path, 1)


def test_too_little_space_says_how_much_is_needed(tmp_path: Path) -> None:
    exbibyte = 1 << 60
    with pytest.raises(DiskFull, match=f"{exbibyte >> 20} MiB are needed") as caught:
        require_space(tmp_path, exbibyte)
    assert "TMPDIR" in caught.value.remedy
