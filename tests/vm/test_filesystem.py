"""What a guest sees of the host's files: all of the project as it is, and nothing that it must not see.

The host writes down what it has; tests/vm/guest/filesystem.py compares in the guest.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_smol.guest_os.host_view import base_view
from pytest_smol.virtiofs.view import View
from tests.vm.guest import facts
from tests.vm.project import Project, Result

pytestmark = pytest.mark.vm

GUEST = Path(__file__).parent / "guest"
MANY = 100_000
ANSWERS = 1000
BORDER = 1 << 32

NAMES = (
    b"plain",
    b"with space and \n line end",
    b"-dash",
    b"back\\slash and 'quotes\"",
    "composed \u00e9".encode(),
    "decomposed e\u0301".encode(),
    "emoji \U0001f600".encode(),
    b"\xff\xfe is no UTF-8",
    b"...",
    b"*?[glob]",
    b"x" * 255,
)

LINKS = {
    "relative": "../data/target",
    "through": "relative",
    "dangling": "../nowhere",
    "loop-a": "loop-b",
    "loop-b": "loop-a",
    "itself": "itself",
    "no-text": os.fsdecode(b"\xff"),
}

#: Host paths that no project ever needs.
PRIVATE = (
    "/var/lib/dpkg",
    "/var/lib/apt",
    "/boot",
    "/media",
    "/etc/shadow",
    "/etc/fstab",
    "/etc/apt",
    "/lost+found",
)


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def make_data(tree: Path) -> list[str]:
    contents = {
        "empty": b"",
        "one": b"x",
        "page": bytes(range(256)) * 16,
        "random": os.urandom(3_000_001),
        "target": b"target",
    }
    for name, data in contents.items():
        write(tree / "data" / name, data)
    return [f"data/{name}" for name in contents]


def make_attributes(tree: Path) -> list[str]:
    directory = tree / "attributes"
    modes = {f"mode-{mode:04o}": mode for mode in (0o000, 0o400, 0o644, 0o755, 0o4711, 0o2755, 0o1777)}
    for name, mode in modes.items():
        write(directory / name, b"x")
        (directory / name).chmod(mode)
    times = {"old": -1_000_000_001, "zero": 0, "nanoseconds": 1_234_567_890_123_456_789, "far": 1 << 62}
    for name, mtime_ns in times.items():
        write(directory / name, b"x")
        os.utime(directory / name, ns=(0, mtime_ns))
    if os.getuid() == 0:
        write(directory / "owned", b"x")
        os.chown(directory / "owned", 1234, 4321)
    (directory / "sticky").mkdir()
    (directory / "sticky").chmod(0o1777)
    return sorted(f"attributes/{name}" for name in os.listdir(directory))


def make_links(tree: Path) -> dict[str, str]:
    links = {**LINKS, "absolute": str(tree / "data" / "target")}
    (tree / "links").mkdir()
    for name, target in links.items():
        (tree / "links" / name).symlink_to(target)
    write(tree / "hard" / "one", b"linked")
    os.link(tree / "hard" / "one", tree / "hard" / "other")
    return links


def make_names(tree: Path) -> list[str]:
    for name in NAMES:
        write(tree / "names" / os.fsdecode(name), name)
    return [os.fsdecode(name) for name in NAMES]


def make_special(tree: Path) -> None:
    (tree / "special").mkdir()
    os.mkfifo(tree / "special" / "fifo")
    here = os.getcwd()
    os.chdir(tree / "special")  # a socket's path may have no more than 108 bytes
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("socket")
    os.chdir(here)


def make_sparse(path: Path) -> dict[str, Any]:
    marks = [(BORDER - 3, "border"), (BORDER + 4096, "beyond")]
    size = BORDER + (1 << 30)
    with path.open("wb") as file:
        for offset, text in marks:
            os.pwrite(file.fileno(), text.encode(), offset)
        os.pwrite(file.fileno(), b"last", size - 4)
    return {"size": size, "marks": marks}


def make_scratch(tree: Path) -> None:
    for name in ("unlinked", "renamed", "touched", "truncated"):
        write(tree / "copies" / name, name.encode())
    write(tree / "copies" / "below" / "deep" / "file", b"deep")
    write(tree / "copies" / "removed" / "file", b"removed")
    for first in range(12):
        for second in range(12):
            write(tree / "deep" / str(first) / str(second) / "file", b"")
    write(tree / "script", b"#!/bin/sh\necho a script of the project\n")
    (tree / "script").chmod(0o755)


def make_many(directory: Path) -> None:
    directory.mkdir()
    for number in range(MANY):
        os.mknod(directory / f"file-{number:06}")


def make_changing(directory: Path) -> None:
    for name in ("vanishes", "grows", "never-read", "replaced"):
        write(directory / name, name.encode())


def change(root: Path) -> None:
    """What the host does while the guest waits for it, and the answer."""
    directory = root / "changing"
    for name in ("vanishes", "never-read"):
        (directory / name).unlink()
    write(directory / "grows", b"grows and grows")
    write(directory / "other", b"replaced by another")
    (directory / "other").rename(directory / "replaced")
    write(directory / "younger", b"younger")
    for number in range(ANSWERS):
        (root / "answers" / f"change-{number}").touch()


def hidden(view: View) -> list[str]:
    """What the host has and a guest must not."""
    places = [*PRIVATE, "~/.bashrc", "~/.profile", "~/.ssh", "~/.cache/pytest-smol", "~/.gitconfig"]
    found = [path for path in map(os.path.expanduser, places) if os.path.exists(path)]
    assert "/etc/fstab" in found or "/etc/shadow" in found
    return [path for path in found if view.get(path) is None or path in PRIVATE]


def write_facts(project: Project, outside: str) -> None:
    root, tree = project.root, project.root / "tree"
    view = base_view()
    known: dict[str, Any] = {
        "contents": make_data(tree),
        "attributes": make_attributes(tree),
        "links": make_links(tree),
        "names": make_names(tree),
        "sparse": make_sparse(tree / "sparse"),
        "many": MANY,
        "answers": ANSWERS,
        "outside": outside,
        "hidden": hidden(view),
        # Empty or not there, but for the modules of the guest's kernel (guest_os/kernel_view.py).
        "empty": {"/var/lib": ["pytest-smol"], "/var/log": [], "/var/cache": [], "/mnt": [], "/srv": []},
        "homes": sorted({os.path.expanduser("~"), "/root", "/home"}),
        "shown": [*view.entries, str(root), str(Path(__file__).parents[2])],
    }
    make_special(tree)
    make_scratch(tree)
    make_many(root / "many")
    make_changing(root / "changing")
    (root / "answers").mkdir()
    known["contents"] = {name: facts.digest(tree / name) for name in known["contents"]}
    known["attributes"] = {name: facts.attributes(tree / name) for name in known["attributes"]}
    known["walk"] = facts.walk(tree)
    project.write("facts.json", json.dumps(known))


def fingerprint(tree: Path) -> dict[str, Any]:
    """All of ``tree`` as it is now, but for the content of its large file."""
    walked = facts.walk(tree)
    files = [tree / where / name for where, (_, names) in walked.items() for name in names]
    found = {os.fspath(path): facts.attributes(path) for path in files}
    regular = [path for path in files if path.is_file() and not path.is_symlink() and path.name != "sparse"]
    return {"walk": walked, "attributes": found, "contents": list(map(facts.digest, regular))}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    made = Project(tmp_path_factory.mktemp("filesystem"))
    yield made
    shutil.rmtree(made.root / "many")  # pytest keeps the last runs' directories


@pytest.fixture(scope="module")
def before_and_result(project: Project) -> tuple[dict[str, Any], Result]:
    for source, target in (("facts.py", "facts.py"), ("filesystem.py", "test_facts.py")):
        shutil.copyfile(GUEST / source, project.root / target)
    with tempfile.TemporaryDirectory(dir="/tmp") as outside:
        write_facts(project, outside)
        before = fingerprint(project.root / "tree")
        run = project.start("--smol", "-s", "test_facts.py", SMOL_TEST_SECRET="not for a guest")
        run.wait_for("GUEST change")
        change(project.root)
        return before, run.result()


@pytest.fixture(scope="module")
def result(before_and_result: tuple[dict[str, Any], Result]) -> Result:
    return before_and_result[1]


def guest_tests() -> list[str]:
    lines = (GUEST / "filesystem.py").read_text("utf-8").splitlines()
    return [line[4:].partition("(")[0] for line in lines if line.startswith("def test_")]


@pytest.mark.parametrize("name", guest_tests())
def test_guest(result: Result, name: str) -> None:
    assert name in result.cases, result.output
    case = result.cases[name]
    assert case.outcome == "passed", case.text


def test_the_host_is_as_it_was(
    project: Project, before_and_result: tuple[dict[str, Any], Result], result: Result
) -> None:
    before, _ = before_and_result
    assert result.cases["test_writes"].outcome == "passed"
    assert fingerprint(project.root / "tree") == before
    assert project.left_behind() == []
