"""Test data is no secret, and a developer's own credentials are no test data."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_smol.guest_os.host_view import hiding
from pytest_smol.virtiofs.filesystem.tree import Tree
from pytest_smol.virtiofs.view import HostPath, View
from tests.unit.virtiofs.fuse_client import Client
from tests.unit.virtiofs.secret_samples import TOKENS, private_key, token

GITHUB = token(TOKENS["GitHub p"])

#: Test data of all kinds: by name, by name and content, by content, containers, directories, compiled code.
FIXTURES = {
    ".netrc": "machine x login y password z",
    ".env": "A=b",
    ".pypirc": "[pypi]",
    ".npmrc": "x",
    "kubeconfig": "x",
    "terraform.tfstate": "{}",
    "server.key": private_key(),
    "id_rsa": private_key(),
    "store.p12": "x",
    ".netrc.bak": "x",
    "token.txt": GITHUB,
    "account.json": '{"type": "service_account", "private' + '_key": "x"}',
    "settings.py": f"TOKEN = {GITHUB!r}\n",
    ".aws/credentials": "x",
    ".kube/deep/config": "x",
    ".docker/config.json": "{}",
}
PLACES = (
    *(
        "tests/fixtures",
        "tests",
        "test",
        "pkg/testing",
        "testdata",
        "a/fixtures/b",
        "Tests",
        "src/x/test_data",
    ),
    *("test-data", "web/__tests__", "__fixtures__"),
)


def git(top: Path, *arguments: str) -> None:
    program = shutil.which("git")
    assert program, "git is not installed"
    settings = ["-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "protocol.file.allow=always"]
    subprocess.run([program, *settings, "-C", str(top), *arguments], check=True, capture_output=True)


def write(top: Path, place: str = "") -> None:
    for name, text in FIXTURES.items():
        path = top / place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def guest(clients: list[Client], project: Path, *show: str, hide: tuple[str, ...] = ()) -> Client:
    rules = replace(hiding(hide, show), roots=(str(project),))
    clients.append(Client(Tree(View({"/p": HostPath(str(project))}, rules))))
    return clients[-1]


def shown(client: Client, place: str) -> dict[str, str]:
    """All files below ``place`` that the guest finds by listings, and what it reads of them."""
    found = {}
    todo = [place]
    while todo:
        here = todo.pop()
        for _, dirent, name in client.list(client.walk(f"/p/{here}")):
            path = f"{here}/{os.fsdecode(name)}"
            if name in (b".", b".."):
                continue
            if dirent["type"] == 4:
                todo.append(path)
            else:
                found[path.removeprefix(f"{place}/")] = client.read(client.walk(f"/p/{path}")).decode()
    return found


def exists(client: Client, name: str) -> bool:
    node = client.walk("/p")
    for part in os.fsencode(name).split(b"/"):
        node = client.lookup(node, part)["nodeid"]
        if not node:
            return False
    return True


@pytest.mark.parametrize("place", PLACES)
def test_tracked_test_data_of_all_kinds_is_shown(clients: list[Client], project: Path, place: str) -> None:
    git(project, "init", "-q")
    write(project, place)
    git(project, "add", "--force", ".")
    assert shown(guest(clients, project), place) == FIXTURES


@pytest.mark.parametrize("place", PLACES)
def test_without_a_repository_the_directory_decides(clients: list[Client], project: Path, place: str) -> None:
    write(project, place)
    assert shown(guest(clients, project), place) == FIXTURES


def test_what_is_untracked_in_tests_is_hidden(clients: list[Client], project: Path) -> None:
    """A developer's own ``.env`` next to the tests, ignored by git."""
    git(project, "init", "-q")
    (project / "README").write_text("x")
    git(project, "add", "README")
    write(project, "tests/fixtures")
    client = guest(clients, project)
    redacted = FIXTURES["settings.py"].replace(GITHUB, "x" * len(GITHUB))
    assert shown(client, "tests/fixtures") == {"settings.py": redacted}
    assert not any(exists(client, f"tests/fixtures/{name}") for name in FIXTURES if name != "settings.py")


@pytest.mark.parametrize("place", ["src", "config", "", "attests", "contest", "tests.d"])
def test_what_is_tracked_elsewhere_is_hidden(clients: list[Client], project: Path, place: str) -> None:
    git(project, "init", "-q")
    write(project, place)
    git(project, "add", "--force", ".")
    client = guest(clients, project)
    prefix = f"{place}/" if place else ""
    assert not any(exists(client, prefix + name) for name in FIXTURES if name != "settings.py")


def test_an_untracked_file_in_a_directory_of_tracked_ones(clients: list[Client], project: Path) -> None:
    """``tests/.aws`` is shown for the test data in it, and what is not tracked there is not."""
    git(project, "init", "-q")
    write(project, "tests")
    git(project, "add", "--force", "tests/.aws", "tests/.kube")
    for name in ("tests/.aws/sso-cache", "tests/.kube/deep/other", "tests/.kube/untracked/x"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("x")
    client = guest(clients, project)
    assert set(shown(client, "tests")) == {".aws/credentials", ".kube/deep/config", "settings.py"}
    for name in ("tests/.aws/sso-cache", "tests/.kube/deep/other", "tests/.kube/untracked"):
        assert not exists(client, name)
    assert exists(client, "tests/.aws/credentials")


def test_a_hard_link_to_a_secret_below_tests_is_hidden(clients: list[Client], project: Path) -> None:
    (project / ".env").write_text("A=b")
    (project / "tests").mkdir()
    os.link(project / ".env", project / "tests/data")
    assert not exists(guest(clients, project), "tests/data")


def test_the_user_may_hide_test_data(clients: list[Client], project: Path) -> None:
    write(project, "tests")
    client = guest(clients, project, hide=("tests/.netrc", "*.p12"))
    assert set(FIXTURES) - set(shown(client, "tests")) == {".netrc", "store.p12", ".netrc.bak"}


def test_the_user_may_show_what_is_untracked(clients: list[Client], project: Path) -> None:
    git(project, "init", "-q")
    (project / "README").write_text("x")
    git(project, "add", "README")
    write(project, "tests")
    assert shown(guest(clients, project, "tests/**"), "tests") == FIXTURES


def test_a_directory_of_the_repository_is_the_project(clients: list[Client], tmp_path: Path) -> None:
    """pytest's rootdir is ``tests`` itself: the repository's top is above it."""
    git(tmp_path, "init", "-q")
    write(tmp_path, "tests/data")
    git(tmp_path, "add", "--force", ".")
    assert shown(guest(clients, tmp_path / "tests"), "data") == FIXTURES


@pytest.mark.parametrize("kind", ["worktree", "submodule"])
def test_work_trees_whose_repository_is_elsewhere(clients: list[Client], tmp_path: Path, kind: str) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    git(origin, "init", "-q")
    write(origin, "tests")
    git(origin, "add", "--force", ".")
    git(origin, "commit", "-qm", "x")
    if kind == "worktree":
        git(origin, "worktree", "add", "-q", str(tmp_path / "tree"))
        top = tmp_path / "tree"
    else:
        (tmp_path / "outer").mkdir()
        git(tmp_path / "outer", "init", "-q")
        git(tmp_path / "outer", "submodule", "add", "-q", str(origin), "inner")
        top = tmp_path / "outer/inner"
    (top / "tests/mine.key").write_text(private_key())
    assert (top / ".git").is_file()
    assert shown(guest(clients, top), "tests") == FIXTURES


@pytest.mark.parametrize("data", [b"", b"DIRC", b"DIRC\0\0\0\x02\0\0\0\x01", os.urandom(100)])
def test_where_the_index_cannot_be_read_nothing_is_tracked(
    clients: list[Client], project: Path, data: bytes
) -> None:
    (project / ".git").mkdir()
    (project / ".git/index").write_bytes(data)
    write(project, "tests")
    client = guest(clients, project)
    assert not any(exists(client, f"tests/{name}") for name in FIXTURES if name != "settings.py")


def test_a_link_in_the_place_of_the_index_is_not_followed(clients: list[Client], project: Path) -> None:
    git(project, "init", "-q")
    write(project, "tests")
    git(project, "add", "--force", ".")
    (project / ".git/index").rename(project / "moved")
    (project / ".git/index").symlink_to("/dev/zero")
    assert shown(guest(clients, project), "tests") == FIXTURES  # as without a repository


def test_test_modules_next_to_the_code(clients: list[Client], project: Path) -> None:
    text = f"TOKEN = {GITHUB!r}\n"
    for name in ("test_x.py", "conftest.py", "x_test.py", "latest_x.py"):
        (project / name).write_text(text)
    client = guest(clients, project)
    for name in ("test_x.py", "conftest.py", "x_test.py"):
        assert client.read(client.walk(f"/p/{name}")) == text.encode()
    assert GITHUB.encode() not in client.read(client.walk("/p/latest_x.py"))


@pytest.mark.parametrize("name", [".netrc", "server.key", "token.txt"])
def test_tests_of_installed_packages(clients: list[Client], project: Path, name: str) -> None:
    """A virtual environment in a repository is not tracked; what packages bring along is no secret."""
    git(project, "init", "-q")
    (project / "README").write_text("x")
    git(project, "add", "README")
    write(project, ".venv/lib/python3.12/site-packages/pkg/tests")
    write(project, "tests/site-packages/pkg")
    client = guest(clients, project)
    assert exists(client, f".venv/lib/python3.12/site-packages/pkg/tests/{name}")
    assert exists(client, f"tests/site-packages/pkg/{name}") is (name != ".netrc")
