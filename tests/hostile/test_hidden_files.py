"""Secrets in what a guest is shown: to the guest they do not exist, under whatever name."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_smol.errors import SettingError
from pytest_smol.guest_os.host_view import base_view, hiding, project_view
from pytest_smol.host.run_directory import RunDirectory
from pytest_smol.virtiofs.filesystem.tree import Tree
from pytest_smol.virtiofs.fuse import NAME_MAX, Opcode
from pytest_smol.virtiofs.hiding.rules import Hiding
from pytest_smol.virtiofs.hiding.secrets import LOOKED_INTO, MAX_REDACTED
from pytest_smol.virtiofs.view import HostPath, View
from tests.unit.virtiofs.fuse_client import Client, fails

KEY = "-----BEGIN PRIVATE KEY-----\nMC4CAQ\n-----END PRIVATE KEY-----\n"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"

HIDDEN = {
    ".env": "A=b",
    ".env.local": "A=b",
    ".envrc": "export A=b",
    "deep/er/.env.production": "A=b",
    ".netrc": "machine x",
    "_netrc": "machine x",
    ".pypirc": "[pypi]",
    ".npmrc": "//r/:_authToken=x",
    ".git-credentials": "https://u:p@h",
    ".pgpass": "x",
    ".aws/credentials": "x",
    ".azure/accessTokens.json": "{}",
    ".config/gcloud/credentials.db": "x",
    ".config/gh/hosts.yml": "x",
    ".docker/config.json": "{}",
    ".kube/config": "x",
    ".ssh/config": "x",
    ".gnupg/secring.gpg": "x",
    "keys/id_rsa": "x",
    "keys/id_ed25519": "x",
    "keys/server.key": KEY,
    "keys/server.pem": CERTIFICATE + KEY,
    "keys/deploy_key": KEY.replace("PRIVATE", "OPENSSH PRIVATE"),
    "keys/putty.ppk": "x",
    "keys/UPPER.PEM": KEY,
    "keys/store.p12": "x",
    "my-service-account.json": '{"private_key": "x"}',
    ".cargo/credentials.toml": "x",
}
SHOWN = {
    "env": "x",
    ".env.example": "A=",
    ".environment/bin/python": "x",
    "keys/id_rsa.pub": "x",
    "keys/ca.pem": CERTIFICATE,
    "keys/musical.key": "C major",
    "monkey.py": "x",
    "config": "x",
    "docker/config.json": "{}",
    "tests/server.key": KEY,
    "lib/site-packages/trust/tests.pem": KEY,
    "credentials.json": "{}",
    ".config/other": "x",
}


def write(top: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)


def rules(project: Path, **changes: tuple[str, ...]) -> Hiding:
    return replace(Hiding(roots=(str(project),)), **changes)  # type: ignore[arg-type]


@pytest.fixture
def project(project: Path) -> Path:
    write(project, {**HIDDEN, **SHOWN})
    return project


def guest(clients: list[Client], project: Path, hidden: Hiding | None = None) -> Client:
    clients.append(Client(Tree(View({"/p": HostPath(str(project))}, hidden or rules(project)))))
    return clients[-1]


def exists(client: Client, path: str) -> bool:
    node = 1
    for name in os.fsencode(path).split(b"/")[1:]:
        found = client.lookup(node, name)["nodeid"]
        if not found:
            return False
        node = found
    return True


def listed(client: Client, path: str, plus: bool = False) -> set[str]:
    return {os.fsdecode(row[2]) for row in client.list(client.walk(path), plus=plus)} - {".", ".."}


def walked(client: Client, path: str = "/p") -> set[str]:
    """All files below ``path``, by listings alone."""
    found = set()
    for _, dirent, name in client.list(client.walk(path)):
        if name not in (b".", b".."):
            below = f"{path}/{os.fsdecode(name)}"
            found |= walked(client, below) if dirent["type"] == 4 else {below}
    return found


@pytest.mark.parametrize("name", HIDDEN)
def test_a_secret_does_not_exist(clients: list[Client], project: Path, name: str) -> None:
    assert not exists(guest(clients, project), f"/p/{name}")


def test_what_runs_keep_within_a_project_does_not_exist(
    clients: list[Client], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TMPDIR and the user's cache may lie in a project: other machines' memory would be there to read."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(project / "[cache]"))
    write(project / "[cache]", {"pytest-smol/bases/ram": "x", "other/pytest-smol/file": "x"})
    with RunDirectory(project / "lib") as run:
        write(run.path, {"fork/ram": "x"})
        client = guest(clients, project, replace(hiding((), ()), roots=(str(project),)))
        assert walked(client) == {f"/p/{name}" for name in (*SHOWN, "[cache]/other/pytest-smol/file")}
        for hidden in (run.path, project / "[cache]/pytest-smol"):
            assert hidden.is_dir()
            assert not exists(client, f"/p/{hidden.relative_to(project)}")


def test_listings_hold_all_that_is_shown_and_nothing_else(clients: list[Client], project: Path) -> None:
    assert walked(guest(clients, project)) == {f"/p/{name}" for name in SHOWN}


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_no_secret_is_shown(clients: list[Client], project: Path, name: str) -> None:
    client = guest(clients, project)
    assert client.read(client.walk(f"/p/{name}")) == SHOWN[name].encode()


def test_a_miss_looks_like_any_other(clients: list[Client], project: Path) -> None:
    client = guest(clients, project)
    node = client.walk("/p")
    hidden, missing = (client.call(Opcode.LOOKUP, node, name) for name in (b".env\0", b"none\0"))
    assert hidden == missing


# Links


def test_a_symbolic_link_to_a_secret_leads_nowhere(clients: list[Client], project: Path) -> None:
    (project / "link").symlink_to(".env")
    client = guest(clients, project)
    target = client.call(Opcode.READLINK, client.walk("/p/link"))
    assert not exists(client, f"/p/{target.decode()}")


@pytest.mark.parametrize("name", [".env", "keys/server.key", ".aws/credentials", "keys/id_rsa"])
def test_a_hard_link_to_a_secret_is_one(clients: list[Client], project: Path, name: str) -> None:
    os.link(project / name, project / "deep" / "innocent.txt")
    client = guest(clients, project)
    assert "innocent.txt" not in listed(client, "/p/deep")
    assert "innocent.txt" not in listed(client, "/p/deep", plus=True)
    assert not exists(client, "/p/deep/innocent.txt")


def test_a_hard_link_to_a_secret_in_the_home_directory(
    clients: list[Client], project: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    write(home, {".netrc": "x", ".config/gcloud/deep/token": "x", "plain": "x"})
    os.link(home / ".netrc", project / "one")
    os.link(home / ".config/gcloud/deep/token", project / "two")
    os.link(home / "plain", project / "three")
    client = guest(clients, project, replace(rules(project), home=str(home)))
    assert listed(client, "/p") & {"one", "two", "three"} == {"three"}
    assert not exists(client, "/p/one")
    assert not exists(client, "/p/two")


def test_other_hard_links_are_shown(clients: list[Client], project: Path) -> None:
    (project / "a").write_text("same")
    os.link(project / "a", project / "b")
    client = guest(clients, project)
    assert client.read(client.walk("/p/a")) == client.read(client.walk("/p/b")) == b"same"


def test_a_hard_link_to_a_blanked_file_is_hidden_and_that_file_is_not(
    clients: list[Client], project: Path
) -> None:
    write(project, {".git/config": "url = https://u:p@h/x"})
    os.link(project / ".git/config", project / "copy")
    client = guest(clients, project)
    assert not exists(client, "/p/copy")
    assert client.read(client.walk("/p/.git/config")) == b"url = https://xxx@h/x"


def test_a_file_that_is_swapped_for_a_secret_is_not_read(clients: list[Client], project: Path) -> None:
    write(project, {"innocent": "x"})
    os.link(project / ".env", project / "spare")
    client = guest(clients, project)
    node = client.walk("/p/innocent")
    (project / "spare").rename(project / "innocent")
    with fails(errno.ENOENT):
        client.read(node)


# Blanked files


GIT = '[core]\n\tbare = false\n[remote "o"]\n\turl = https://me:t0ken@h/x\n[http]\n\textraheader = A: b\n'


@pytest.mark.parametrize(
    "name", [".git/config", "bare.git/config", ".git/modules/a/b/config", ".git/worktrees/w/config.worktree"]
)
def test_git_is_told_its_settings_but_no_credentials(clients: list[Client], project: Path, name: str) -> None:
    write(project, {name: GIT})
    client = guest(clients, project)
    node = client.walk(f"/p/{name}")
    shown = GIT.replace("me:t0ken", "x" * 8).replace("A: b", "xx x").encode()
    assert client.read(node) == shown
    assert client.getattr(node)["size"] == len(GIT)
    assert b"".join(client.read(node, n, 1) for n in range(len(GIT) + 5)) == shown
    assert client.read(node, 1 << 40) == b""


def test_a_blanked_file_that_changes_is_blanked_again(clients: list[Client], project: Path) -> None:
    write(project, {"pip.conf": "index-url = https://a:b@h/"})
    client = guest(clients, project)
    node = client.walk("/p/pip.conf")
    assert client.read(node) == b"index-url = https://xxx@h/"
    (project / "pip.conf").write_text("index-url = https://new:secret@h/")
    assert client.read(node) == b"index-url = https://xxxxxxxxxx@h/"


def test_what_is_too_large_to_be_blanked_is_hidden(clients: list[Client], project: Path) -> None:
    write(project, {".git/config": "#" * (MAX_REDACTED + 1), ".gitmodules": "#" * MAX_REDACTED})
    client = guest(clients, project)
    assert not exists(client, "/p/.git/config")
    assert exists(client, "/p/.gitmodules")


# The user's own rules


def test_more_is_hidden_and_exceptions_are_shown(clients: list[Client], project: Path) -> None:
    write(project, {"notes.secret": "x", "conf/prod.ini": "x", "conf/test.ini": "x", "private/a": "x"})
    own = hiding(["*.secret", "conf/prod.*", "private/"], [".env", "keys", "conf/none"])
    client = guest(clients, project, replace(own, roots=(str(project),)))
    for name in ("notes.secret", "conf/prod.ini", "private", ".netrc", ".env.local"):
        assert not exists(client, f"/p/{name}")
    for name in (".env", "keys/server.key", "keys/id_rsa", "conf/test.ini"):
        assert exists(client, f"/p/{name}")
    assert listed(client, "/p/conf") == {"test.ini"}


def test_an_exception_does_not_begin_above_the_project(clients: list[Client], project: Path) -> None:
    own = hiding([], [project.parent.name])
    client = guest(clients, project, replace(own, roots=(str(project),)))
    assert not exists(client, "/p/.env")


def test_what_is_named_itself_is_shown(clients: list[Client], project: Path) -> None:
    view = View({"/x/.env": HostPath(str(project / ".env"))}, rules(project))
    clients.append(Client(Tree(view)))
    assert clients[0].read(clients[0].walk("/x/.env")) == b"A=b"


@pytest.mark.parametrize("name", ["smol_hide", "smol_show"])
def test_what_is_no_glob_is_a_wrong_setting(name: str) -> None:
    globs = {"hide": [], "show": [], name[5:]: ["[z-a]"]}
    with pytest.raises(SettingError, match=name):
        hiding(**globs)


# Views and snapshots


def test_the_rules_are_part_of_what_a_base_snapshot_is_known_by() -> None:
    views = [base_view(hidden=hiding(hide, show)) for hide, show in (((), ()), (("x",), ()), ((), ("x",)))]
    assert len({str(view.to_json()) for view in views}) == 3
    assert [View.from_json(view.to_json()) for view in views] == views


def test_a_project_adds_its_directories_to_what_is_searched(tmp_path: Path) -> None:
    base = base_view(hidden=hiding(["x"], []))
    view = project_view(base, rootdir=tmp_path, cwd=tmp_path, sys_path=["/usr/lib"], extra=[])
    assert view.hiding == replace(base.hiding, roots=(*base.hiding.roots, str(tmp_path)))


def test_a_name_may_have_any_bytes_and_length(clients: list[Client], project: Path) -> None:
    names = [b".env\xff\n", b".env" + b"x" * (NAME_MAX - 4), b"\xff.ppk"]
    for name in names:
        (project / os.fsdecode(name)).touch()
    client = guest(clients, project)
    node = client.walk("/p")
    assert not any(client.lookup(node, name)["nodeid"] for name in names)
    assert not {os.fsdecode(name) for name in names} & listed(client, "/p")


def test_only_the_head_of_a_suspect_is_looked_into(clients: list[Client], project: Path) -> None:
    write(project, {"big.pem": "\n" * LOOKED_INTO + KEY, "small.pem": "\n" * (LOOKED_INTO - 50) + KEY})
    client = guest(clients, project)
    assert exists(client, "/p/big.pem")
    assert not exists(client, "/p/small.pem")


def test_a_file_that_becomes_a_secret_is_not_opened(clients: list[Client], project: Path) -> None:
    write(project, {"late.pem": CERTIFICATE})
    client = guest(clients, project)
    node = client.walk("/p/late.pem")
    write(project, {"late.pem": KEY})
    with fails(errno.ENOENT):
        client.read(node)


def test_what_is_asked_for_in_vain_is_known(clients: list[Client], project: Path) -> None:
    asked: set[str] = set()
    clients.append(Client(Tree(View({"/p": HostPath(str(project))}, rules(project)), hidden_hits=asked)))
    listed(clients[0], "/p", plus=True)
    exists(clients[0], "/p/none")
    assert asked == set()
    exists(clients[0], "/p/.env")
    exists(clients[0], "/p/.aws/credentials")
    assert asked == {f"{project}/.env", f"{project}/.aws"}
