"""The index of a repository is read as git itself reads it."""

from __future__ import annotations

import contextlib
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_smol.virtiofs.hiding.git_index import parse_index

NAMES = ["a", "b/c", "b/cc/d", "b/cc/dd", "tests/.netrc", "tests/é", "x" * 200, "z/" + "y" * 100]


def git(top: Path, *arguments: str) -> bytes:
    program = shutil.which("git")
    assert program, "git is not installed"
    settings = ["-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "core.quotePath=false"]
    return subprocess.run(
        [program, *settings, "-C", str(top), *arguments], check=True, capture_output=True
    ).stdout


def repository(top: Path, *options: str) -> Path:
    git(top, "init", "-q", *options)
    for name in NAMES:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(name)
    git(top, "add", *NAMES[:-1])
    return top / ".git/index"


def listed(top: Path) -> list[bytes]:
    return sorted(git(top, "ls-files", "-z").rstrip(b"\0").split(b"\0"))


@pytest.mark.parametrize("version", ["2", "3", "4"])
def test_versions(tmp_path: Path, version: str) -> None:
    index = repository(tmp_path)
    git(tmp_path, "update-index", "--index-version", version)
    if version != "2":  # a flag that only later versions have
        git(tmp_path, "update-index", "--skip-worktree", "b/c")
    assert parse_index(index.read_bytes()) == listed(tmp_path)
    assert len(listed(tmp_path)) == len(NAMES) - 1


def test_longer_object_names(tmp_path: Path) -> None:
    index = repository(tmp_path, "--object-format=sha256")
    assert parse_index(index.read_bytes()) == listed(tmp_path)


def test_extensions_are_skipped(tmp_path: Path) -> None:
    index = repository(tmp_path)
    git(tmp_path, "commit", "-qm", "x")
    git(tmp_path, "update-index", "--untracked-cache")
    git(tmp_path, "status")
    assert parse_index(index.read_bytes()) == listed(tmp_path)


def test_an_empty_index(tmp_path: Path) -> None:
    index = repository(tmp_path)
    git(tmp_path, "rm", "-rq", "--cached", ".")
    assert parse_index(index.read_bytes()) == []


def test_a_split_index_cannot_be_told(tmp_path: Path) -> None:
    index = repository(tmp_path)
    git(tmp_path, "update-index", "--split-index")
    with pytest.raises(ValueError, match="split"):
        parse_index(index.read_bytes())


def test_damaged_ones_are_refused(tmp_path: Path) -> None:
    data = repository(tmp_path).read_bytes()
    for length in range(0, len(data), 7):
        with pytest.raises(ValueError, match="index"):
            parse_index(data[:length])
    with pytest.raises(ValueError, match="version"):
        parse_index(data[:4] + struct.pack(">I", 5) + data[8:])
    with pytest.raises(ValueError, match="version"):
        parse_index(data[:8] + struct.pack(">I", 0xFFFF_FFFF) + data[12:])


@given(st.integers(2, 4), st.integers(0, 3), st.binary(max_size=400))
def test_any_bytes(version: int, count: int, rest: bytes) -> None:
    with contextlib.suppress(ValueError):
        parse_index(b"DIRC" + struct.pack(">II", version, count) + rest)
