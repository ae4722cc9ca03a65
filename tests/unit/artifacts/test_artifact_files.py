"""Names that a guest may send a file under, and how the file is written."""

from __future__ import annotations

import errno
import itertools
import os
import re
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_smol.artifacts import files
from pytest_smol.artifacts.files import ProjectFiles, Rejected, checked_name, regex_of
from pytest_smol.errors import DiskFull, SettingError

ANYTHING = [re.compile(regex_of("**"))]

MATCHES = [
    ("*.txt", ["a.txt", ".txt"], ["a.txt.py", "d/a.txt", "a_txt"]),
    ("out/*", ["out/a"], ["out/d/a", "out"]),
    ("out/", ["out/a", "out/d/a"], ["out", "outer/a"]),
    ("out/**", ["out/a", "out/d/e/a"], ["out"]),
    ("**/a.xml", ["a.xml", "d/a.xml", "d/e/a.xml"], ["ba.xml", "d/ba.xml"]),
    ("d/**/*.xml", ["d/a.xml", "d/e/f/a.xml"], ["a.xml", "e/d/a.xml"]),
    ("a?c", ["abc"], ["ac", "a/c"]),
    ("a[bc]d", ["abd", "acd"], ["aed"]),
    ("a[!b]d", ["acd"], ["abd", "a/d"]),
    ("a[.-0]d", ["a0d"], ["a/d"]),
    ("a[b", ["a[b"], ["ab"]),
    ("a+(b).x", ["a+(b).x"], ["aab.x"]),
    ("**", ["a", "d/a"], []),
]


@pytest.mark.parametrize(("pattern", "yes", "no"), MATCHES, ids=[row[0] for row in MATCHES])
def test_patterns(pattern: str, yes: list[str], no: list[str]) -> None:
    regex = re.compile(regex_of(pattern))
    assert [name for name in (*yes, *no) if regex.fullmatch(name)] == yes


@pytest.mark.parametrize("pattern", ["", "/etc/*", "../*", "a/../b", "./a", "a//b", "a[z-a]"])
def test_patterns_that_are_none(pattern: str) -> None:
    with pytest.raises(SettingError) as raised:
        regex_of(pattern)
    assert raised.value.remedy


HOSTILE = {
    "empty": "",
    "absolute": "/etc/passwd",
    "parent": "../a",
    "parent within": "d/../../a",
    "itself": "./a",
    "empty component": "d//a",
    "directory": "d/",
    "NUL": "a\0b",
    "newline": "a\nb",
    "escape": "a\x1b[31m",
    "C1": "a\x9b",
    "bidirectional": "a\u202etxt",
    "zero width": "a\u200b",
    "surrogate": "a\udcff",
    "long component": "a" * 256,
    "long component in bytes": "ä" * 128,
    "long name": "/".join(["a" * 200] * 21),
    "git": ".git/hooks/pre-commit",
    "git below": "sub/.git/config",
    "git in capitals": ".GIT/config",
    "git as a file": "sub/.git",
}


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_names(name: str) -> None:
    with pytest.raises(Rejected):
        checked_name(name, ANYTHING)


def test_names_that_nobody_asked_for() -> None:
    with pytest.raises(Rejected, match="no pattern"):
        checked_name("conftest.py", [re.compile(regex_of("out/**"))])


@pytest.mark.parametrize("name", ["a", "d/a", "...", "a b", "ä/ö", ".gitignore", "a.git/b"])
def test_good_names(name: str) -> None:
    assert checked_name(name, ANYTHING) == tuple(name.split("/"))


@given(st.text(max_size=30))
def test_a_checked_name_stays_below_the_root(name: str) -> None:
    with suppress(Rejected):
        parts = checked_name(name, ANYTHING)
        path = os.path.normpath(os.path.join("/root", *parts))
        assert path == f"/root/{name}"
        path.encode()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "project"
    path.mkdir()
    return path


@pytest.fixture
def home(root: Path) -> Iterator[ProjectFiles]:
    with ProjectFiles(root) as home:
        yield home


def test_a_file_is_written_with_its_directories(home: ProjectFiles, root: Path) -> None:
    home.write(("d", "e", "a"), b"content", False)
    assert (root / "d/e/a").read_bytes() == b"content"
    assert [path.name for path in (root / "d/e").iterdir()] == ["a"]


@pytest.mark.parametrize(("executable", "mode"), [(False, 0o640), (True, 0o750)])
def test_permissions_are_those_of_a_new_file(
    home: ProjectFiles, root: Path, executable: bool, mode: int
) -> None:
    previous = os.umask(0o027)
    try:
        home.write(("a",), b"", executable)
    finally:
        os.umask(previous)
    assert stat.S_IMODE((root / "a").stat().st_mode) == mode


def test_a_file_that_is_replaced_keeps_its_permissions_but_no_special_ones(
    home: ProjectFiles, root: Path
) -> None:
    (root / "a").write_bytes(b"old")
    (root / "a").chmod(0o4751)
    home.write(("a",), b"new", False)
    assert (root / "a").read_bytes() == b"new"
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o751


def test_a_file_that_has_the_content_is_not_touched(home: ProjectFiles, root: Path) -> None:
    (root / "a").write_bytes(b"same")
    before = (root / "a").stat()
    home.write(("a",), b"same", True)
    assert (root / "a").stat() == before


def test_other_names_of_a_file_keep_its_content(home: ProjectFiles, root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"precious")
    os.link(tmp_path / "outside", root / "a")
    home.write(("a",), b"new", False)
    assert (tmp_path / "outside").read_bytes() == b"precious"


def test_no_symbolic_link_is_followed_or_replaced(home: ProjectFiles, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a").write_bytes(b"precious")
    (root / "link").symlink_to(outside)
    (root / "a").symlink_to(outside / "a")
    (root / "dangling").symlink_to(outside / "new")
    for parts in (("link", "a"), ("link", "new"), ("a",), ("dangling",), ("link", "d", "new")):
        with pytest.raises(Rejected):
            home.write(parts, b"evil", False)
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == {"a": b"precious"}
    assert (root / "a").is_symlink()


def test_only_regular_files_are_replaced(home: ProjectFiles, root: Path) -> None:
    (root / "d").mkdir()
    os.mkfifo(root / "fifo")
    (root / "file").write_bytes(b"")
    for parts in (("d",), ("fifo",), ("file", "a")):
        with pytest.raises(Rejected):
            home.write(parts, b"x", False)
    assert (root / "d").is_dir()
    assert stat.S_ISFIFO((root / "fifo").stat().st_mode)


def test_the_root_is_held_even_if_it_moves(home: ProjectFiles, root: Path, tmp_path: Path) -> None:
    root.rename(tmp_path / "moved")
    (tmp_path / "elsewhere").mkdir()
    root.symlink_to(tmp_path / "elsewhere")
    home.write(("a",), b"x", False)
    assert (tmp_path / "moved/a").exists()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_directory_that_turns_into_a_link_meanwhile_is_not_followed(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "d").mkdir()
    over = threading.Event()

    def swap() -> None:
        for number in itertools.count():
            if over.is_set():
                return
            os.rename(root / "d", tmp_path / f"{number}")
            with suppress(FileExistsError):  # the writer has made it
                (root / "d").symlink_to(outside)
                (root / "d").unlink()
                (root / "d").mkdir()

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        with ProjectFiles(root) as home:
            for number in range(500):
                with suppress(Rejected):
                    home.write(("d", f"a{number}"), b"x", False)
    finally:
        over.set()
        swapper.join()
    assert not list(outside.iterdir())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_clear_error(
    home: ProjectFiles, root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    (root / "a").write_bytes(b"old")
    monkeypatch.setattr(files.os, "rename", full)
    with pytest.raises(DiskFull, match="a could not be written") as raised:
        home.write(("a",), b"new", False)
    assert raised.value.remedy
    assert [path.read_bytes() for path in root.iterdir()] == [b"old"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_disk_that_fills_up_while_it_is_written_to(
    home: ProjectFiles, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def open_full(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        fd = real(path, flags, mode, dir_fd=dir_fd)
        if flags & os.O_CREAT:
            full = real("/dev/full", os.O_WRONLY)
            os.dup2(full, fd)
            os.close(full)
        return fd

    monkeypatch.setattr(files.os, "open", open_full)
    with pytest.raises(DiskFull):
        home.write(("a",), b"new", False)
    assert not list(root.iterdir())


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_directory_that_may_not_be_written_to(home: ProjectFiles, root: Path) -> None:
    root.chmod(0o555)
    with pytest.raises(Rejected, match="Permission denied"):
        home.write(("a",), b"x", False)
    root.chmod(0o755)


def test_a_closed_home_is_closed_once(root: Path) -> None:
    home = ProjectFiles(root)
    home.close()
    home.close()
    with pytest.raises(Rejected):
        home.write(("a",), b"", False)
