"""Runs in a guest as a project's test module: what stands here must be what the host wrote down."""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from facts import attributes, digest, walk  # type: ignore[import-not-found]  # in the same directory of the guest

ROOT = Path(__file__).parent
TREE = ROOT / "tree"
FACTS: dict[str, Any] = json.loads((ROOT / "facts.json").read_text("ascii"))


# --- what is there ------------------------------------------------------------------------


def test_walk() -> None:
    assert walk(TREE) == FACTS["walk"]


def test_attributes() -> None:
    found = {name: attributes(TREE / name) for name in FACTS["attributes"]}
    assert found == FACTS["attributes"]


def test_contents() -> None:
    assert {name: digest(TREE / name) for name in FACTS["contents"]} == FACTS["contents"]


def test_names_that_are_no_text() -> None:
    found = {os.fsdecode(name) for name in os.listdir(os.fsencode(TREE / "names"))}
    assert found == set(FACTS["names"])
    for name in FACTS["names"]:
        assert (TREE / "names" / name).read_text("utf-8", "surrogateescape") == name


def test_a_name_that_is_too_long() -> None:
    with pytest.raises(OSError, match="File name too long") as caught:
        os.stat(TREE / "names" / ("x" * 256))
    assert caught.value.errno == errno.ENAMETOOLONG


def test_large_sparse_file() -> None:
    path = TREE / "sparse"
    assert path.stat().st_size == FACTS["sparse"]["size"]
    with path.open("rb") as file:
        for offset, text in FACTS["sparse"]["marks"]:
            file.seek(offset - 4)
            assert file.read(len(text) + 8) == b"\0" * 4 + text.encode() + b"\0" * 4
        file.seek(-4, os.SEEK_END)
        assert file.read() == b"last"
        assert file.read() == b""
        assert os.lseek(file.fileno(), 0, os.SEEK_DATA) > 0
    assert path.stat().st_blocks * 512 < 1 << 30


def test_large_directory() -> None:
    names = os.listdir(ROOT / "many")
    count = FACTS["many"]
    assert len(names) == count
    assert set(names) == {f"file-{number:06}" for number in range(count)}
    for number in (0, count // 2, count - 1):
        assert (ROOT / "many" / f"file-{number:06}").stat().st_size == 0


def test_hard_links() -> None:
    one, other = TREE / "hard" / "one", TREE / "hard" / "other"
    assert one.samefile(other)
    assert one.stat().st_ino == other.stat().st_ino
    assert one.stat().st_nlink == 2


def test_symbolic_links() -> None:
    links = TREE / "links"
    found = {name: os.readlink(links / name) for name in os.listdir(links)}
    assert found == FACTS["links"]
    for name in ("relative", "absolute", "through"):
        assert (links / name).read_text("ascii") == "target"
    assert not (links / "dangling").exists()
    for name in ("loop-a", "loop-b", "itself"):
        with pytest.raises(OSError, match="Too many levels") as caught:
            (links / name).open()
        assert caught.value.errno == errno.ELOOP


def test_special_files() -> None:
    assert stat.S_ISFIFO(os.lstat(TREE / "special" / "fifo").st_mode)
    assert stat.S_ISSOCK(os.lstat(TREE / "special" / "socket").st_mode)
    # A pipe and a socket are the guest's own: no process is at the other end.
    fd = os.open(TREE / "special" / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    assert os.read(fd, 1) == b""
    os.close(fd)


def test_statvfs() -> None:
    found = os.statvfs(TREE)
    assert found.f_namemax == 255
    assert found.f_bsize > 0
    assert 0 < found.f_bavail <= found.f_blocks


def test_mmap() -> None:
    with (TREE / "data" / "random").open("rb") as file:
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert hashlib.sha256(mapped).hexdigest() == FACTS["contents"]["data/random"]
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
            mapped[:4] = b"mine"
            assert mapped[:4] == b"mine"


def test_executes_a_script() -> None:
    done = subprocess.run([TREE / "script"], capture_output=True, text=True, check=True)
    assert done.stdout == "a script of the project\n"


# --- what changes stays here --------------------------------------------------------------


def test_writes() -> None:
    for name in sorted(FACTS["contents"]):
        path = TREE / name
        path.chmod(0o600)
        before = path.read_bytes()
        with path.open("ab") as file:
            file.write(b"more")
        assert path.read_bytes() == before + b"more"
    (TREE / "new").write_text("new")
    assert "new" in os.listdir(TREE)


def test_unlink_and_make_again() -> None:
    path = TREE / "copies" / "unlinked"
    path.unlink()
    assert not path.exists()
    assert "unlinked" not in os.listdir(path.parent)
    path.write_text("again")
    assert path.read_text() == "again"
    assert os.listdir(path.parent).count("unlinked") == 1


def test_rename_a_file_and_a_directory() -> None:
    directory = TREE / "copies"
    (directory / "renamed").rename(directory / "renamed.new")
    assert (directory / "renamed.new").read_text() == "renamed"
    assert not (directory / "renamed").exists()
    (directory / "below").rename(directory / "elsewhere")
    assert (directory / "elsewhere" / "deep" / "file").read_text() == "deep"
    assert not (directory / "below").exists()


def test_remove_a_directory_and_make_it_again() -> None:
    directory = TREE / "copies" / "removed"
    (directory / "file").unlink()
    directory.rmdir()
    directory.mkdir()
    assert os.listdir(directory) == []


def test_chmod_and_utime() -> None:
    path = TREE / "copies" / "touched"
    path.chmod(0o640)
    os.utime(path, ns=(1, 1_000_000_001))
    st = path.stat()
    assert stat.S_IMODE(st.st_mode) == 0o640
    assert st.st_mtime_ns == 1_000_000_001
    assert path.read_text() == "touched"


def test_truncate_and_hard_link() -> None:
    path = TREE / "copies" / "truncated"
    os.truncate(path, 2)
    assert path.read_text() == "tr"
    os.link(path, TREE / "copies" / "linked")
    assert (TREE / "copies" / "linked").samefile(path)


def test_many_new_files() -> None:
    directory = TREE / "copies" / "new"
    directory.mkdir()
    for number in range(300):
        (directory / str(number)).write_text(str(number))
    assert len(list(directory.iterdir())) == 300


# --- what the host does meanwhile ---------------------------------------------------------


def wait_for_host(word: str) -> None:
    """Tell the host by a line of output, and wait until a file answers."""
    print(f"GUEST {word}", flush=True)
    end = time.monotonic() + 120
    # Every try asks for another name: one that was missed may be remembered.
    tries = (ROOT / "answers" / f"{word}-{number}" for number in range(FACTS["answers"]))
    while not next(tries).exists():
        assert time.monotonic() < end, f"the host did not answer {word}"
        time.sleep(0.2)


def test_reads_before_the_host_changes_things() -> None:
    for name in ("vanishes", "grows", "never-read"):
        assert (ROOT / "changing" / name).stat().st_size == len(name)
    assert (ROOT / "changing" / "grows").read_text() == "grows"


def test_a_file_that_vanishes_or_changes_on_the_host() -> None:
    """Neither hangs nor breaks the machine: what was read may be old, what was not may be gone."""
    wait_for_host("change")
    assert (ROOT / "changing" / "grows").read_text() in ("grows", "grows and grows")
    for name in ("vanishes", "never-read"):
        try:
            found = (ROOT / "changing" / name).read_text()
        except OSError as error:
            found = errno.errorcode[error.errno or 0]
        assert found in (name, "", "ENOENT", "ESTALE", "EIO")
    # What was not looked at before is as it is now.
    assert (ROOT / "changing" / "replaced").read_text() == "replaced by another"
    assert (ROOT / "changing" / "younger").read_text() == "younger"


# --- what is not to be seen ---------------------------------------------------------------


def test_nothing_else_of_the_host() -> None:
    assert not Path(FACTS["outside"]).exists()
    assert os.path.basename(FACTS["outside"]) not in os.listdir("/tmp")
    for place in FACTS["hidden"]:
        assert not os.path.exists(place), place
    for place, ours in FACTS["empty"].items():
        assert not os.path.exists(place) or os.listdir(place) == ours, place


def test_homes_are_empty() -> None:
    shown = [*FACTS["shown"]]
    for home in FACTS["homes"]:
        for name in os.listdir(home) if os.path.isdir(home) else ():
            path = os.path.join(home, name)
            assert any(place == path or place.startswith(path + "/") for place in shown), path


def test_environment() -> None:
    assert "SMOL_TEST_SECRET" not in os.environ
    assert "not for a guest" not in "".join(os.environ.values())
    for process in Path("/proc").glob("[0-9]*/environ"):
        try:
            assert b"not for a guest" not in process.read_bytes(), process
        except OSError:  # a process that has ended
            continue
