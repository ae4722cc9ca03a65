"""Root views: what is shown, through which links, and what never is."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_smol.errors import SettingError
from pytest_smol.guest_os import host_paths, host_view
from pytest_smol.guest_os.accounts import User, group_file, passwd_file
from pytest_smol.guest_os.host_paths import MAXSYMLINKS, empty_directory, reach, why_not
from pytest_smol.guest_os.host_view import Interpreter, base_view, parse_direct_url, project_view
from pytest_smol.virtiofs.view import Content, Directory, HostPath, Link, View
from tests.vm.environment import copy_packages, make_bare_environment


def resolve(view: View, path: str, hops: int = 0) -> str:
    """The host path that ``path`` leads to in a guest with this view, as the guest's kernel walks it.

    Below a shown directory the host's own links count.
    """
    assert hops <= MAXSYMLINKS
    here = ""
    parts = [part for part in path.split("/") if part]
    for n, part in enumerate(parts):
        here = f"{here}/{part}"
        entry = view.get(here)
        rest = "/".join(parts[n + 1 :])
        if isinstance(entry, Link):
            target = os.path.normpath(os.path.join(os.path.dirname(here), entry.target))
            return resolve(view, os.path.join(target, rest), hops + 1)
        if isinstance(entry, HostPath):
            real = os.path.realpath(os.path.join(entry.path, rest) if rest else entry.path)
            return real if real.startswith(entry.path) else resolve(view, real, hops + 1)
        if entry is None:
            raise FileNotFoundError(here)
    return here


def visible(view: View, path: str) -> bool:
    try:
        resolve(view, path)
    except FileNotFoundError:
        return False
    return True


# --- paths with links on the way


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """real/data/file, and links of all kinds to it."""
    (tmp_path / "real/data").mkdir(parents=True)
    (tmp_path / "real/data/file").write_text("x")
    (tmp_path / "relative").symlink_to("real")
    (tmp_path / "absolute").symlink_to(tmp_path / "relative")
    (tmp_path / "real/up").symlink_to("../absolute/data")
    (tmp_path / "loop").symlink_to("pool")
    (tmp_path / "pool").symlink_to("loop")
    return tmp_path


@pytest.mark.parametrize(
    "path", ["real/data", "relative/data", "absolute/data/file", "absolute/up", "real/../absolute/./up/file"]
)
def test_a_path_resolves_in_the_view_as_on_the_host(tree: Path, path: str) -> None:
    view = View({}).union(reach(f"{tree}/{path}"))
    real = os.path.realpath(tree / path)
    assert resolve(view, real) == real
    if ".." not in path:
        assert resolve(view, f"{tree}/{path}") == real


def test_links_are_shown_as_they_are(tree: Path) -> None:
    entries = reach(str(tree / "absolute/data"))
    assert entries[str(tree / "absolute")] == Link(str(tree / "relative"))
    assert entries[str(tree / "relative")] == Link("real")
    assert entries[str(tree / "real/data")] == HostPath(str(tree / "real/data"))


def test_directories_on_the_way_are_empty_and_keep_mode_and_owner(tree: Path) -> None:
    (tree / "real").chmod(0o711)
    entry = reach(str(tree / "real/data"))[str(tree / "real")]
    found = (tree / "real").stat()
    assert entry == Directory(0o711, found.st_uid, found.st_gid)


def test_links_that_go_round_are_refused(tree: Path) -> None:
    with pytest.raises(OSError, match="symbolic links") as caught:
        reach(str(tree / "loop/x"))
    assert caught.value.errno == errno.ELOOP


def test_as_many_links_as_linux_follows(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    for n in range(1, MAXSYMLINKS + 2):
        (tmp_path / str(n)).symlink_to(str(n - 1))
    assert str(tmp_path / "0") in reach(str(tmp_path / str(MAXSYMLINKS)))
    with pytest.raises(OSError, match="symbolic links"):
        reach(str(tmp_path / str(MAXSYMLINKS + 1)))


def test_a_missing_path_is_an_error(tree: Path) -> None:
    with pytest.raises(FileNotFoundError):
        reach(str(tree / "real/none"))


def test_an_empty_directory_shows_nothing_that_it_holds(tree: Path) -> None:
    view = View({}).union(empty_directory(str(tree / "absolute/data")))
    assert resolve(view, f"{tree}/absolute/data") == f"{tree}/real/data"
    assert not visible(view, f"{tree}/real/data/file")


def test_a_bare_directory_never_replaces_what_is_shown(tree: Path) -> None:
    entries = reach(str(tree / "real"))
    host_paths.add(entries, reach(str(tree / "real/data/file")))
    assert entries[str(tree / "real")] == HostPath(str(tree / "real"))


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/", "home directory"),
        ("/homes", "home directory"),
        ("/homes/me", "home directory"),
        ("/homes/me/proj/..", "home directory"),
        ("/etc", "system"),
        ("/usr", "system"),
        ("/home", "system"),
        ("/root", "system"),
        ("/proc/self", "of their own"),
        ("/dev/shm/proj", "of their own"),
        ("/homes/me/proj", ""),
        ("/homes/menu", ""),
        ("/tmp", ""),
        ("/usr/src/app", ""),
        ("/development", ""),
    ],
)
def test_what_is_never_shown_as_a_whole(path: str, why: str) -> None:
    reason = why_not(path, "/homes/me")
    assert why in reason
    assert bool(reason) == bool(why)


def test_without_an_account_only_system_directories_are_kept_back() -> None:
    assert why_not("/homes/me", "") == ""
    assert why_not("/", "") != ""


def test_a_link_to_a_home_directory_is_seen_through(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "link").symlink_to("home")
    assert why_not(str(tmp_path / "link"), str(tmp_path / "home"))
    assert why_not(str(tmp_path / "home"), str(tmp_path / "link"))


# --- accounts

USER = User("ann", 1234, 1234, "/home/ann", "", "/bin/bash", (("ann", 1234), ("", 77), ("video", 44)))


def test_the_passwd_file_knows_root_nobody_and_the_user() -> None:
    rows = [line.split(":") for line in passwd_file(USER).splitlines()]
    assert all(len(row) == 7 for row in rows)
    assert {row[0]: (row[2], row[5]) for row in rows} == {
        "root": ("0", "/root"),
        "nobody": ("65534", "/nonexistent"),
        "ann": ("1234", "/home/ann"),
    }


def test_root_has_one_row_as_on_the_host() -> None:
    rows = passwd_file(User("root", 0, 0, "/root", shell="/bin/zsh")).splitlines()
    assert [row for row in rows if ":x:0:" in row] == ["root:x:0:0::/root:/bin/zsh"]


def test_a_user_without_an_account_has_none_in_the_guest() -> None:
    assert len(passwd_file(User("", 1234, 1234, "")).splitlines()) == 2


def test_the_group_file_names_the_users_groups() -> None:
    rows = {line.split(":")[0]: line.split(":")[2:] for line in group_file(USER).splitlines()}
    assert rows["ann"] == ["1234", ""]
    assert rows["video"] == ["44", "ann"]
    assert {"root", "tty", "nogroup"} <= set(rows)
    assert "" not in rows


def test_the_current_user_is_this_process() -> None:
    user = User.current()
    assert (user.uid, user.gid) == (os.geteuid(), os.getegid())
    assert user.groups[0][1] == os.getegid()


def test_a_relative_home_is_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "somewhere")
    assert User.current().environment_home == ""


# --- the base view


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory with a secret, which is $HOME and the account's."""
    path = tmp_path / "home"
    path.mkdir(mode=0o750)
    (path / ".secret").write_text("s")
    user = User("ann", os.geteuid(), os.getegid(), str(path), str(path))
    monkeypatch.setattr(User, "current", classmethod(lambda cls: user))
    return path


@pytest.fixture
def base(home: Path) -> View:
    return base_view()


def test_this_interpreter_and_its_packages_are_visible_at_their_own_paths(base: View) -> None:
    wanted = [sys.executable, os.__file__, pytest.__file__, host_view.__file__]
    for path in wanted:
        assert resolve(base, path) == os.path.realpath(path)


def test_packages_that_are_only_on_pythonpath_are_among_the_interpreters_paths(tmp_path: Path) -> None:
    """As build systems such as Bazel have them: the guest needs pytest before it is told its import path."""
    libraries = tmp_path / "libraries"
    copy_packages(libraries / "pytest")
    (libraries / "pytest/pygments").rename(tmp_path / "pygments")
    (libraries / "other").mkdir()
    (tmp_path / "pygments").rename(libraries / "other/pygments")
    (libraries / "unused").mkdir()
    python = make_bare_environment(tmp_path / "environment", sys.executable)
    source = (
        "import json; from pytest_smol.guest_os.host_view import Interpreter;"
        " print(json.dumps(Interpreter.current().prefixes))"
    )
    path = os.pathsep.join(str(libraries / name) for name in ("pytest", "other", "unused"))
    done = subprocess.run(
        [python, "-c", source], env={"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, check=True
    )
    prefixes = json.loads(done.stdout)
    assert {str(libraries / "pytest"), str(libraries / "other")} <= set(prefixes)
    assert str(libraries / "unused") not in prefixes


def test_the_guests_own_files_are_visible(base: View) -> None:
    assert visible(base, str(host_view.PACKAGE / "guest"))


def test_system_directories_resolve_as_on_the_host(base: View) -> None:
    for path in ("/bin/sh", "/usr/bin/env", "/lib", "/sbin"):
        assert resolve(base, path) == os.path.realpath(path)
        assert os.path.islink(path) == isinstance(base.get(path), Link) or path.count("/") > 1


def test_nothing_personal_is_visible(base: View, home: Path) -> None:
    found = home.stat()
    assert base.get(str(home)) == Directory(stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)
    assert not visible(base, str(home / ".secret"))
    for path in ("/etc/shadow", "/etc/ssl/private", "/etc/ssh", "/var/lib/dpkg", "/root/.ssh"):
        assert not visible(base, path)


def test_the_etc_is_the_guests_own(base: View) -> None:
    assert base.get("/etc") == Directory()
    for name in ("passwd", "group", "hosts", "nsswitch.conf", "hostname", "machine-id", "resolv.conf"):
        assert isinstance(base.get(f"/etc/{name}"), Content), name
    assert base.get("/etc/machine-id") == Content(b"")
    assert base.get("/etc/hostname") == Content(b"smol\n")


@pytest.mark.parametrize(("path", "mode"), [("/tmp", 0o1777), ("/var/tmp", 0o1777), ("/root", 0o700)])
def test_directories_that_programs_expect(base: View, path: str, mode: int) -> None:
    entry = base.get(path)
    assert isinstance(entry, Directory)
    if path != "/root":  # the tests' own interpreter may lie below it, and gives it the host's mode
        assert entry.mode == mode


def test_mount_points_of_init_are_there(base: View) -> None:
    for path in ("/proc", "/sys", "/dev", "/run"):
        assert isinstance(base.get(path), Directory)


def test_equal_hosts_give_equal_views(home: Path) -> None:
    assert base_view() == base_view()
    assert View.from_json(json.loads(json.dumps(base_view().to_json()))) == base_view()


def test_an_interpreter_below_a_home_is_shown_but_not_the_home(home: Path) -> None:
    (home / ".pyenv/bin").mkdir(parents=True)
    (home / ".pyenv/bin/python").write_text("")
    (home / ".pyenv/link").symlink_to("bin")
    interpreter = Interpreter(f"{home}/.pyenv/bin/python", (str(home), f"{home}/.pyenv/link/python"), "3")
    view = base_view(interpreter=interpreter)
    assert visible(view, f"{home}/.pyenv/link/python")
    assert not visible(view, f"{home}/.secret")


# --- the project's view


def show(base: View, rootdir: Path, **more: object) -> View:
    arguments: dict[str, object] = {"cwd": rootdir, "sys_path": [], "extra": [], **more}
    return project_view(base, rootdir=rootdir, **arguments)  # type: ignore[arg-type]


@pytest.fixture
def project(home: Path) -> Path:
    path = home / "src/proj"
    (path / "tests").mkdir(parents=True)
    (path / "tests/test_it.py").write_text("")
    return path


def test_a_project_below_a_home_is_shown_and_the_home_is_not(base: View, home: Path, project: Path) -> None:
    view = show(base, project)
    assert visible(view, str(project / "tests/test_it.py"))
    assert not visible(view, str(home / ".secret"))
    assert view.get(str(home)) == base.get(str(home))


def test_all_of_the_base_stays_visible(base: View, project: Path) -> None:
    view = show(base, project)
    for path, entry in base.entries.items():
        assert view.get(path) == entry


def test_a_project_above_a_shown_path_takes_it_in(base: View) -> None:
    root = host_view.PACKAGE.parent
    view = show(base, root)
    assert view.get(str(root)) == HostPath(str(root))
    assert resolve(view, host_view.__file__) == host_view.__file__


@pytest.mark.parametrize("where", ["/", "HOME", "HOME/..", "/etc", "/proc/self"])
def test_a_rootdir_that_is_too_broad_is_refused(base: View, home: Path, where: str) -> None:
    with pytest.raises(SettingError, match="rootdir is") as caught:
        show(base, Path(where.replace("HOME", str(home))))
    assert "directory of its own" in caught.value.remedy


def test_a_named_path_that_is_too_broad_is_refused(base: View, home: Path, project: Path) -> None:
    with pytest.raises(SettingError, match="named"):
        show(base, project, extra=[home])


def test_a_search_path_that_is_too_broad_is_left_out(base: View, home: Path, project: Path) -> None:
    view = show(base, project, sys_path=[str(home), "/", "/etc"])
    assert not visible(view, str(home / ".secret"))
    assert not visible(view, "/etc/shadow")


def test_search_path_entries_are_shown(base: View, home: Path, project: Path) -> None:
    (home / "lib").mkdir()
    (home / "code.zip").write_text("")
    view = show(base, project, sys_path=["", "../../lib", str(home / "code.zip"), str(home / "missing")])
    assert view.get(str(home / "lib")) == HostPath(str(home / "lib"))
    assert view.get(str(home / "code.zip")) == HostPath(str(home / "code.zip"))
    assert view.get(str(home / "missing")) is None


def test_a_named_file_is_shown_alone(base: View, home: Path, project: Path) -> None:
    (home / "other").mkdir()
    (home / "other/test_one.py").write_text("")
    (home / "other/private").write_text("")
    view = show(base, project, extra=[home / "other/test_one.py"])
    assert visible(view, str(home / "other/test_one.py"))
    assert not visible(view, str(home / "other/private"))


def test_a_working_directory_elsewhere_is_there_but_empty(base: View, home: Path, project: Path) -> None:
    view = show(base, project, cwd=home / "src")
    assert isinstance(view.get(str(home / "src")), Directory)
    (home / "src/private").write_text("")
    assert not visible(view, str(home / "src/private"))


def test_a_rootdir_behind_a_link_keeps_its_name(base: View, home: Path, project: Path) -> None:
    (home / "current").symlink_to("src/proj")
    view = show(base, home / "current")
    assert resolve(view, str(home / "current/tests/test_it.py")) == str(project / "tests/test_it.py")


def test_editable_installs_are_shown(base: View, home: Path, project: Path) -> None:
    (home / "an editable").mkdir()
    info = home / "site/pkg-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pkg\nVersion: 1.0\n")
    url = f"file://{home}/an%20editable"
    (info / "direct_url.json").write_text(json.dumps({"url": url, "dir_info": {"editable": True}}))
    view = show(base, project, sys_path=[str(home / "site")])
    assert view.get(str(home / "an editable")) == HostPath(str(home / "an editable"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"url": "file:///a%20b", "dir_info": {"editable": true}}', "/a b"),
        ('{"url": "file:///a", "dir_info": {}}', None),
        ('{"url": "file:///a", "dir_info": {"editable": "yes"}}', None),
        ('{"url": "https://host/a", "dir_info": {"editable": true}}', None),
        ('{"url": "file://", "dir_info": {"editable": true}}', None),
        ('{"url": 3, "dir_info": {"editable": true}}', None),
        ('{"dir_info": {"editable": true}}', None),
        ('{"url": "file:///a", "dir_info": null}', None),
        ("[]", None),
        ("{", None),
    ],
)
def test_direct_urls(text: str, found: str | None) -> None:
    assert parse_direct_url(text) == found
