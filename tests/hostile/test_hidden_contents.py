"""Credentials under any name: by what is in a file, as backups, and what compiled code keeps of them."""

from __future__ import annotations

import errno
import marshal
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_smol.guest_os.host_view import hiding
from pytest_smol.virtiofs.filesystem.tree import Tree
from pytest_smol.virtiofs.hiding.contents import LOOKED_INTO
from pytest_smol.virtiofs.hiding.redaction import MAX_REDACTED
from pytest_smol.virtiofs.view import HostPath, View
from tests.unit.virtiofs.fuse_client import Client, fails
from tests.unit.virtiofs.secret_samples import DATA_FILES, DATA_TOKENS, TOKENS, private_key, token

GITHUB = token(TOKENS["GitHub p"])
SOURCE = f"TOKEN = {GITHUB!r}\nVALUE = 1\n"

#: Names that are hidden whatever is in the file.
NAMES = (
    *(
        ".npmrc~",
        ".pgpass~",
        ".netrc.bak",
        ".netrc.orig",
        ".netrc.old",
        ".netrc.swp",
        "id_rsa~",
        "id_rsa.bak",
    ),
    *(".id_ed25519.swp", "#.pypirc#", ".env~", ".git-credentials.save", "store.p12.old", ".htpasswd.1"),
    *(".envs/.production/.django", ".envs/local", "production.env", "kubeconfig", "deploy/kubeconfig.yaml"),
    *("terraform.tfstate", "terraform.tfstate.backup", "infra/prod.tfvars", "prod.auto.tfvars.json"),
    *(
        ".streamlit/secrets.toml",
        ".htpasswd",
        "config/master.key",
        ".vault_pass",
        ".vault_pass.txt",
        ".hg/hgrc",
    ),
    *(".authinfo", "sftp-config.json", ".vscode/sftp.json", "filezilla.xml", ".zsh_history", "rclone.conf"),
    *("config/secrets.yml", ".mozilla/firefox/logins.json", ".config/hub", "KUBECONFIG"),
)
#: Names that say nothing: a credential is found in it by its content.
INNOCENT = (
    "notes",
    "notes.txt",
    "data/config.yaml",
    "deploy.sh",
    "a.json",
    ".hidden",
    "settings.toml",
    "x.svg",
    "k.xyz",
)


def write(top: Path, name: str, data: str | bytes) -> Path:
    path = top / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def guest(
    clients: list[Client],
    project: Path,
    *show: str,
    hide: tuple[str, ...] = (),
    asked: set[str] | None = None,
) -> Client:
    rules = replace(hiding(hide, show), roots=(str(project),))
    clients.append(Client(Tree(View({"/p": HostPath(str(project))}, rules), hidden_hits=asked)))
    return clients[-1]


def exists(client: Client, name: str) -> bool:
    node = client.walk("/p")
    for part in os.fsencode(name).split(b"/"):
        node = client.lookup(node, part)["nodeid"]
        if not node:
            return False
    return True


def listed(client: Client, plus: bool = False) -> set[str]:
    return {os.fsdecode(name) for _, _, name in client.list(client.walk("/p"), plus=plus)} - {".", ".."}


def read(client: Client, name: str) -> bytes:
    return client.read(client.walk(f"/p/{name}"))


# By name


@pytest.mark.parametrize("name", NAMES)
def test_names_of_credentials_and_their_backups(clients: list[Client], project: Path, name: str) -> None:
    write(project, name, "anything")
    client = guest(clients, project)
    assert not exists(client, name)
    if "/" not in name:
        assert listed(client) == listed(client, plus=True) == set()


@pytest.mark.parametrize(
    "name", ["key.pem~", "server.key.bak", ".key.pem.swp", "deploy_key.old", "tls.crt.orig"]
)
def test_backups_of_keys_are_looked_into(clients: list[Client], project: Path, name: str) -> None:
    write(project, name, private_key())
    write(project, "other-" + name.lstrip("."), "nothing of the kind")
    client = guest(clients, project)
    assert not exists(client, name)
    assert exists(client, "other-" + name.lstrip("."))


@pytest.mark.parametrize(
    "name",
    ["monkey.bak", "README.old", "a~", ".env.example", "example.env", "data.1", "config.new", "env.txt"],
)
def test_other_backups_are_shown(clients: list[Client], project: Path, name: str) -> None:
    write(project, name, "anything at all")
    assert read(guest(clients, project), name) == b"anything at all"


@pytest.mark.parametrize(
    "name",
    [
        "__pycache__/prod_settings.cpython-312.pyc",
        "__pycache__/prod_settings.cpython-312-pytest-8.4.pyc",
        "__pycache__/prod_settings.cpython-312.opt-1.pyc",
        "prod_settings.pyc",
        "prod_settings.py~",
    ],
)
def test_compiled_code_of_a_hidden_module(clients: list[Client], project: Path, name: str) -> None:
    write(project, "prod_settings.py", "X = 1")
    write(project, name, b"anything")
    write(project, "__pycache__/other.cpython-312.pyc", b"anything")
    client = guest(clients, project, hide=("prod_settings.py",))
    assert not exists(client, "prod_settings.py")
    assert not exists(client, name)
    assert exists(client, "__pycache__/other.cpython-312.pyc")


# By content


@pytest.mark.parametrize("name", INNOCENT)
def test_a_private_key_under_any_name(clients: list[Client], project: Path, name: str) -> None:
    write(project, name, private_key())
    client = guest(clients, project)
    assert not exists(client, name)
    if "/" not in name:
        assert listed(client) == listed(client, plus=True) == set()


@pytest.mark.parametrize("what", DATA_FILES)
def test_credentials_of_any_kind(clients: list[Client], project: Path, what: str) -> None:
    write(project, "notes.txt", DATA_FILES[what])
    assert not exists(guest(clients, project), "notes.txt")


@pytest.mark.parametrize("what", [*TOKENS, *DATA_TOKENS])
def test_tokens_of_services(clients: list[Client], project: Path, what: str) -> None:
    write(project, "settings.ini", f"[x]\n{token({**TOKENS, **DATA_TOKENS}[what])}\n")
    assert not exists(guest(clients, project), "settings.ini")


@pytest.mark.parametrize("name", ["photo.png", "archive.zip", "lib.so"])
def test_text_under_a_name_of_binary_data_is_not_read(
    clients: list[Client], project: Path, name: str
) -> None:
    write(project, name, private_key())
    write(project, "real.png", b"\x89PNG\r\n\x1a\n\0\0" + bytes(range(256)))
    asked: set[str] = set()
    client = guest(clients, project, asked=asked)
    with fails(errno.ENOENT):
        read(client, name)
    assert asked == {str(project / name)}
    assert read(client, "real.png").startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["settings.py", "deep/er/settings.py", "README.md", "src/main.c"])
def test_source_code_is_shown_without_its_tokens(clients: list[Client], project: Path, name: str) -> None:
    path = write(project, name, SOURCE)
    asked: set[str] = set()
    client = guest(clients, project, asked=asked)
    shown = SOURCE.replace(GITHUB, "x" * len(GITHUB)).encode()
    node = client.walk(f"/p/{name}")
    assert client.read(node) == shown
    assert b"".join(client.read(node, n, 1) for n in range(len(SOURCE) + 5)) == shown
    assert client.getattr(node)["size"] == len(SOURCE)
    assert asked == {f"{path} (its tokens)"}


def test_source_code_that_changes_is_redacted_again(clients: list[Client], project: Path) -> None:
    path = write(project, "settings.py", SOURCE)
    client = guest(clients, project)
    node = client.walk("/p/settings.py")
    client.read(node)
    path.write_text("# new\n" + SOURCE)
    assert client.read(node) == b"# new\n" + SOURCE.replace(GITHUB, "x" * len(GITHUB)).encode()


def test_compiled_code_does_not_tell_a_token(clients: list[Client], project: Path) -> None:
    code = bytes(16) + marshal.dumps(compile(SOURCE, "settings.py", "exec"))
    plain = bytes(16) + marshal.dumps(compile("VALUE = 1", "plain.py", "exec"))
    write(project, "__pycache__/settings.cpython-312.pyc", code)
    write(project, "__pycache__/plain.cpython-312.pyc", plain)
    client = guest(clients, project)
    with fails(errno.ENOENT):
        read(client, "__pycache__/settings.cpython-312.pyc")
    assert read(client, "__pycache__/plain.cpython-312.pyc") == plain


def test_a_file_that_gets_a_token_is_not_opened(clients: list[Client], project: Path) -> None:
    path = write(project, "notes.txt", "nothing of the kind")
    client = guest(clients, project)
    node = client.walk("/p/notes.txt")
    path.write_text(GITHUB)
    with fails(errno.ENOENT):
        client.read(node)


def test_a_file_that_loses_its_token_is_shown(clients: list[Client], project: Path) -> None:
    path = write(project, "notes.txt", GITHUB)
    client = guest(clients, project)
    assert not exists(client, "notes.txt")
    path.write_text("nothing of the kind")
    assert read(client, "notes.txt") == b"nothing of the kind"


def test_a_hard_link_to_a_file_with_a_token(clients: list[Client], project: Path) -> None:
    os.link(write(project, "notes.txt", GITHUB), project / "other")
    assert listed(guest(clients, project)) == set()


def test_only_the_head_of_a_file_is_looked_into(clients: list[Client], project: Path) -> None:
    write(project, "late", "\n" * LOOKED_INTO + GITHUB)
    write(project, "in-time", "\n" * (LOOKED_INTO - 50) + GITHUB)
    write(project, "large", GITHUB + "\n" * MAX_REDACTED)
    assert listed(guest(clients, project)) == {"late", "large"}


def test_exceptions_hold_for_contents_as_well(clients: list[Client], project: Path) -> None:
    write(project, "notes.txt", GITHUB)
    write(project, "settings.py", SOURCE)
    client = guest(clients, project, "notes.txt", "settings.py")
    assert read(client, "notes.txt") == GITHUB.encode()
    assert read(client, "settings.py") == SOURCE.encode()


def test_what_is_named_itself_is_shown(clients: list[Client], project: Path) -> None:
    path = write(project, "notes.txt", GITHUB)
    rules = replace(hiding((), ()), roots=(str(project),))
    clients.append(Client(Tree(View({"/x": HostPath(str(path))}, rules))))
    assert clients[0].read(clients[0].walk("/x")) == GITHUB.encode()


@pytest.mark.parametrize(
    "name",
    [
        "lib/site-packages/pkg/data.json",
        "node_modules/pkg/a.json",
        "lib/python3.12/config.txt",
        ".git/objects/a",
    ],
)
def test_installed_packages_are_not_looked_into(clients: list[Client], project: Path, name: str) -> None:
    write(project, name, GITHUB)
    assert read(guest(clients, project), name) == GITHUB.encode()


def test_a_file_is_looked_into_once_in_a_run(
    clients: list[Client], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fork has a file server's tree of its own; what was found in a file is known to all of them."""
    write(project, "notes.txt", "nothing of the kind")
    write(project, "module.py", "VALUE = 'nothing of the kind'")
    assert read(guest(clients, project), "notes.txt")
    assert read(guest(clients, project), "module.py")
    monkeypatch.setattr(os, "pread", lambda fd, size, offset: pytest.fail("read"))
    client = guest(clients, project)
    assert exists(client, "notes.txt")
    assert "notes.txt" in listed(client)
