"""Where the cache is, and which directories are refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_smol.errors import SettingError, SmolError
from pytest_smol.host import cache_directory


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg"


def test_xdg_cache_home_is_followed() -> None:
    assert cache_directory.location({"XDG_CACHE_HOME": "/var/tmp/c"}) == Path("/var/tmp/c/pytest-smol")


@pytest.mark.parametrize("value", ["", "relative/cache"])
def test_what_the_specification_calls_invalid_is_ignored(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache_directory.location({"XDG_CACHE_HOME": value}) == Path("/home/somebody/.cache/pytest-smol")


def test_it_is_made_for_the_user_alone(home: Path) -> None:
    path = cache_directory.directory()
    assert path == home / "pytest-smol"
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert cache_directory.directory() == path


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_directory_that_others_may_write_to_is_refused(home: Path, mode: int) -> None:
    cache_directory.directory().chmod(mode)
    with pytest.raises(SettingError, match="others may write") as caught:
        cache_directory.directory()
    assert "chmod 700" in caught.value.remedy


def test_a_link_is_refused_even_to_a_good_directory(home: Path, tmp_path: Path) -> None:
    home.mkdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (home / "pytest-smol").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SettingError, match="not a directory"):
        cache_directory.directory()


def test_a_file_in_its_place_is_refused(home: Path) -> None:
    home.mkdir()
    (home / "pytest-smol").write_text("")
    with pytest.raises(SettingError, match="not a directory"):
        cache_directory.directory()


def test_a_place_where_nothing_can_be_made_is_reported(home: Path) -> None:
    home.write_text("a file where a directory should be")
    with pytest.raises(SmolError, match="cannot be made") as caught:
        cache_directory.directory()
    assert "XDG_CACHE_HOME" in caught.value.remedy


def test_a_foreign_directory_is_refused() -> None:
    found = os.stat_result((stat.S_IFDIR | 0o700, 1, 1, 1, 1234, 0, 0, 0, 0, 0))
    assert "belongs to user 1234" in cache_directory.distrust(found, 1000)
    assert cache_directory.distrust(found, 1234) == ""


@pytest.mark.parametrize("mode", [0o777, 0o702])
def test_a_parent_that_others_may_write_to_is_refused(home: Path, mode: int) -> None:
    cache_directory.directory()
    home.chmod(mode)
    with pytest.raises(SettingError, match=f"{home} is not safe: others may write") as caught:
        cache_directory.directory()
    assert f"chmod go-w {home}" in caught.value.remedy
    home.chmod(mode | stat.S_ISVTX)
    assert cache_directory.directory() == home / "pytest-smol"


def test_a_parent_of_another_user_is_refused(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link is the user's own; where it leads to counts."""
    path = cache_directory.directory()
    (tmp_path / "link").symlink_to(home)
    real = Path.stat

    def foreign(self: Path, **options: bool) -> os.stat_result:
        found = real(self, **options)
        return os.stat_result((*found[:4], 1234, *found[5:])) if found.st_ino == home_ino else found

    home_ino = home.stat().st_ino
    monkeypatch.setattr(Path, "stat", foreign)
    for parent in (home, tmp_path / "link"):
        with pytest.raises(SettingError, match="belongs to user 1234") as caught:
            cache_directory.trusted(parent / path.name)
        assert "XDG_CACHE_HOME" in caught.value.remedy


ME = 1000


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "safe"),
    [
        (stat.S_IFDIR | 0o755, ME, ME, True),
        (stat.S_IFDIR | 0o755, 0, 0, True),
        (stat.S_IFDIR | 0o1777, 0, 0, True),
        (stat.S_IFDIR | 0o775, 0, 0, True),
        (stat.S_IFDIR | 0o755, 1234, ME, False),
        (stat.S_IFDIR | 0o1777, 1234, ME, False),
        (stat.S_IFDIR | 0o777, 0, 0, False),
        (stat.S_IFDIR | 0o775, ME, 54321, False),
        (stat.S_IFDIR | 0o1775, ME, 54321, True),
        (stat.S_IFREG | 0o700, ME, ME, False),
    ],
)
def test_in_which_directories_one_may_have_another(mode: int, uid: int, gid: int, safe: bool) -> None:
    found = os.stat_result((mode, 1, 1, 1, uid, gid, 0, 0, 0, 0))
    assert (cache_directory.distrust_parent(found, ME) == "") is safe


def test_the_users_own_group_may_write_to_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Distributions that give each user a group of the same name let it write to new directories."""
    found = os.stat_result((stat.S_IFDIR | 0o775, 1, 1, 1, ME, 2000, 0, 0, 0, 0))
    monkeypatch.setattr("pwd.getpwuid", lambda uid: SimpleNamespace(pw_name="me"))
    for name, safe in {"me": True, "users": False}.items():
        monkeypatch.setattr("grp.getgrgid", lambda gid, name=name: SimpleNamespace(gr_name=name))
        assert (cache_directory.distrust_parent(found, ME) == "") is safe
