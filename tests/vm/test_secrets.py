"""Secrets in a project: no guest finds them, not even as root, unless the project's settings show them."""

from __future__ import annotations

import marshal
import os

import pytest

from tests.unit.virtiofs.secret_samples import TOKENS, private_key, token
from tests.vm.project import Project

pytestmark = pytest.mark.vm

KEY = "-----BEGIN PRIVATE KEY-----\nMC4CAQ\n-----END PRIVATE KEY-----\n"
HIDDEN = {".env": "A=b", ".netrc": "x", ".aws/credentials": "x", "server.pem": KEY, "notes.secret": "x"}

GUEST = f"""
import os
import pytest

pytestmark = pytest.mark.smol(user="root")

@pytest.mark.parametrize("name", {[*HIDDEN, "linked", "symbolic"]!r})
def test_hidden(name):
    assert not os.path.exists(name)
    assert name == "symbolic" or name.split("/")[0] not in os.listdir()
    with pytest.raises(FileNotFoundError):
        open(name)

def test_a_hidden_name_can_be_written():
    with open(".env", "w") as file:
        file.write("the guest's own")
    assert ".env" in os.listdir()
    assert open(".env").read() == "the guest's own"

def test_git_is_shown_without_its_token():
    assert open(".git/config").read() == "url = https://xxxxxxx@host/x\\n"
    assert os.path.getsize(".git/config") == 29

def test_shown():
    assert open(".env.public").read() == "x"
"""


def test_secrets_are_hidden(project: Project) -> None:
    for name, text in {**HIDDEN, ".env.public": "x", ".git/config": "url = https://u:t0ken@host/x\n"}.items():
        project.write(name, text)
    os.link(project.root / ".env", project.root / "linked")
    (project.root / "symbolic").symlink_to(".env")
    project.write("test_guest.py", GUEST)
    ini = "[pytest]\naddopts = -p no:cacheprovider\nsmol_hide = *.secret\nsmol_show = .env.public\n"
    project.write("pytest.ini", ini)
    result = project.run("--smol", "test_guest.py")
    assert set(result.outcomes().values()) == {"passed"}, result.output
    assert len(result.cases) == len(HIDDEN) + 5
    assert "smol: hidden from tests: .aws, .env, .netrc, linked, notes.secret and 1 more" in result.output
    assert (project.root / ".env").read_text() == "A=b"
    assert project.left_behind() == []


TOKEN = token(TOKENS["GitHub p"])

CONTENTS = f"""
import importlib
import os
import pytest

pytestmark = pytest.mark.smol(user="root")

@pytest.mark.parametrize("name", ["notes", ".npmrc~", "kubeconfig"])
def test_hidden(name):
    assert name not in os.listdir()
    with pytest.raises(FileNotFoundError):
        open(name)

def test_a_module_works_without_its_token():
    settings = importlib.import_module("settings")
    assert settings.TOKEN == "x" * {len(TOKEN)}
    assert settings.VALUE == 1
    with pytest.raises(FileNotFoundError):
        open("__pycache__/settings.cpython-00.pyc").read()

def test_test_data_is_shown():
    assert open("tests/fixtures/.netrc").read() == "machine x"
    assert open("tests/server.key").read().startswith("-----BEGIN")
"""


def test_contents_are_looked_into(project: Project) -> None:
    source = f"TOKEN = {TOKEN!r}\nVALUE = 1\n"
    for name, text in {
        "notes": private_key(),
        ".npmrc~": "x",
        "kubeconfig": "x",
        "settings.py": source,
        "tests/fixtures/.netrc": "machine x",
        "tests/server.key": private_key(),
        "pytest.ini": "[pytest]\naddopts = -p no:cacheprovider\npythonpath = .\n",
        "test_guest.py": CONTENTS,
    }.items():
        project.write(name, text)
    compiled = project.root / "__pycache__/settings.cpython-00.pyc"
    compiled.parent.mkdir(exist_ok=True)
    compiled.write_bytes(bytes(16) + marshal.dumps(compile(source, "settings.py", "exec")))
    result = project.run("--smol", "test_guest.py")
    assert set(result.outcomes().values()) == {"passed"}, result.output
    assert len(result.cases) == 5
    hidden = ".npmrc~, __pycache__/settings.cpython-00.pyc, kubeconfig, notes, settings.py (its tokens)"
    assert f"smol: hidden from tests: {hidden} (smol_show makes exceptions)" in result.output
    assert project.left_behind() == []
