"""Where the cache is, and which directories are refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

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
