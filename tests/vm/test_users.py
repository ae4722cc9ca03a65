"""A user who is not root: the guest's tests have that user's rights, no more and no less."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_smol.guest_os import boot_files
from pytest_smol.host import cache_directory
from tests.vm.environment import make_environment
from tests.vm.project import Project

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can run something as another user"),
]

UID = GID = 65534
AS_USER = ("setpriv", f"--reuid={UID}", f"--regid={GID}", "--clear-groups", "--")

#: Whether a user's test can do these things must not depend on where it runs.
RIGHTS = """
import os, pwd, shutil, stat, tempfile
from pathlib import Path
import pytest

HERE = Path(__file__).parent

def test_user():
    assert os.getresuid()[:2] == (65534, 65534)
    assert os.getresgid()[:2] == (65534, 65534)
    assert os.getgroups() == []
    assert pwd.getpwuid(os.getuid()).pw_name == "nobody"
    assert HERE.stat().st_uid == os.getuid()

def test_file_of_root():
    path = HERE / "of-root"
    assert path.stat().st_uid == 0
    assert not os.access(path, os.R_OK)
    with pytest.raises(PermissionError):
        path.read_text()
    with pytest.raises(PermissionError):
        path.chmod(0o644)
    assert (HERE / "of-root-for-all").read_text() == "for all"

def test_directory_of_root():
    with pytest.raises(PermissionError):
        os.listdir(HERE / "directory-of-root")
    with pytest.raises(PermissionError):
        (HERE / "directory-of-root" / "new").write_text("")

def test_own_file_without_rights():
    path = HERE / "own"
    path.chmod(0)
    try:
        with pytest.raises(PermissionError):
            path.read_text()
    finally:
        path.chmod(0o644)
    assert path.read_text() == "own"

def test_own_new_files(tmp_path):
    path = tmp_path / "new"
    path.write_text("new")
    assert path.stat().st_uid == os.getuid()
    path.chmod(0o000)
    with pytest.raises(PermissionError):
        path.open()
    (HERE / "made").write_text("made")
    (HERE / "made").unlink()

def test_system():
    for place in ("/etc/new", "/usr/new", "/root/new", "/new"):
        with pytest.raises(PermissionError):
            Path(place).write_text("")
    with pytest.raises(PermissionError):
        os.setuid(0)
    with pytest.raises(PermissionError):
        os.kill(1, 0)

def test_no_way_back():
    with pytest.raises(PermissionError):
        os.seteuid(0)
    with pytest.raises(PermissionError):
        os.setegid(0)

def test_temporary_files_and_home():
    with tempfile.NamedTemporaryFile() as file:
        assert os.fstat(file.fileno()).st_uid == os.getuid()
    (Path.home() / "note").write_text("mine")
    assert (Path.home() / "note").read_text() == "mine"
"""

ROOT = """
import os
from pathlib import Path
import pytest

@pytest.mark.smol(user="root")
def test_root():
    assert (os.getuid(), os.geteuid(), os.getgid()) == (0, 0, 0)
    # Root of the guest is not root of the host, which serves no more than the user may read.
    with pytest.raises(PermissionError):
        Path(__file__).with_name("of-root").read_text()
    own = Path(__file__).with_name("own")
    own.chmod(0)
    assert own.read_text() == "own"
    Path("/etc/new").write_text("")
    os.setuid(65534)

@pytest.mark.smol
def test_user():
    assert os.getuid() == 65534
"""


def can_run(python: str) -> bool:
    # Through a shell: setpriv itself starts programs with root's capabilities still in hand.
    argv = [*AS_USER, "sh", "-c", f"exec {shlex.quote(python)} -c 'import venv'"]
    done = subprocess.run(argv, capture_output=True, check=False)
    return done.returncode == 0


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A directory that everybody can enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="smol-user-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture(scope="module")
def python(home: Path) -> str:
    """An interpreter of the user's own, with the plugin."""
    for candidate in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        if can_run(candidate):
            return str(make_environment(home / "environment", candidate))
    pytest.skip("no Python is here that another user can run")


@pytest.fixture(scope="module")
def kernel(home: Path) -> Path:
    """A copy of the default kernel and its modules that everybody can read."""
    files = boot_files.prepare(cache_directory.directory(), None, lambda text: None)
    tree = files.kernel.parent.parent
    shutil.copytree(tree, home / "kernel", symlinks=True)
    (home / "kernel").chmod(0o755)
    return home / "kernel" / files.kernel.relative_to(tree)


@pytest.fixture(scope="module")
def user_project(home: Path, python: str, kernel: Path) -> Project:
    own = {"HOME": "home", "XDG_CACHE_HOME": "cache"}
    env = {name: str(home / directory) for name, directory in own.items()}
    project = Project(home, python, AS_USER, {**env, "USER": "nobody", "LOGNAME": "nobody"})
    project.write("pytest.ini", f"[pytest]\naddopts = -p no:cacheprovider\nsmol_kernel = {kernel}\n")
    project.write("test_rights.py", RIGHTS)
    project.write("test_root.py", ROOT)
    project.write("own", "own")
    (home / "home").mkdir()
    (home / "cache").mkdir()
    for path in (project.root, project.root / "own", project.temporary, home / "home", home / "cache"):
        os.chown(path, UID, GID)
    project.write("of-root", "of root").chmod(0o600)
    project.write("of-root-for-all", "for all").chmod(0o644)
    (project.root / "directory-of-root").mkdir(mode=0o700)
    return project


def test_rights_are_those_of_the_host(user_project: Project) -> None:
    on_host = user_project.run("test_rights.py", TMPDIR=str(user_project.home / "home"))
    in_guest = user_project.run("--smol", "test_rights.py")
    assert set(on_host.outcomes().values()) == {"passed"}, on_host.output
    assert in_guest.outcomes() == on_host.outcomes(), in_guest.output
    assert user_project.left_behind() == []


def test_root_by_the_marker(user_project: Project) -> None:
    result = user_project.run("test_root.py")
    assert result.outcomes() == {"test_root": "passed", "test_user": "passed"}, result.output
    assert user_project.left_behind() == []
