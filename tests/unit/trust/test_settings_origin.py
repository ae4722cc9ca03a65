"""What the user chose, what the project chose, and what a project may not choose."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_smol.errors import SettingError
from pytest_smol.trust.settings_origin import (
    UserArguments,
    filters_for_host,
    refuse_foreign_paths,
    refuse_remote_workers,
)

Check = Callable[..., None]


class _Early:
    """Calls :func:`refuse_foreign_paths` when this plugin does: before pytest acts on any option."""

    def __init__(self) -> None:
        self.error: SettingError | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_load_initial_conftests(self, early_config: pytest.Config, parser: pytest.Parser) -> None:
        try:
            refuse_foreign_paths(early_config, UserArguments(early_config, parser))
        except SettingError as error:
            self.error = error
            raise pytest.UsageError from error


@pytest.fixture
def check(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Checks the paths of a project with ini lines, started with arguments."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setenv("HOME", "/nonexistent")

    def checked(*args: str, ini: str = "") -> None:
        pytester.makeini(f"[pytest]\n{ini}\n")
        early = _Early()
        pytester.plugins = [early]
        try:
            pytester.parseconfig(*args)
        except pytest.UsageError:
            assert early.error is not None
            raise early.error from None

    return checked


@pytest.mark.parametrize(
    "ini",
    [
        "addopts = --junitxml=/elsewhere/junit.xml",
        "addopts = --junitxml=../junit.xml",
        "addopts = --junitxml=~/junit.xml",
        "addopts = --junitxml=$HOME/junit.xml",
        "addopts = --junitxml=a/../../junit.xml",
        "addopts = --debug=/elsewhere/debug",
        "addopts = --log-file=/elsewhere",
        "cache_dir = /elsewhere",
        "cache_dir = ~/elsewhere",
        "cache_dir = $HOME/elsewhere",
        "log_file = ../log",
        "smol_keep_console = /elsewhere",
    ],
)
def test_a_project_has_nothing_written_outside_of_itself(check: Check, ini: str) -> None:
    with pytest.raises(SettingError, match="outside of the project"):
        check(ini=ini)


@pytest.mark.parametrize(
    ("args", "ini"),
    [
        ((), "addopts = --junitxml=reports/junit.xml -k 'a/../../b' --ignore=/elsewhere -p no:cacheprovider"),
        ((), "addopts = --junitxml=reports/../junit.xml"),
        ((), "log_file = logs/pytest.log\ncache_dir = .cache/pytest"),
        (("--junitxml=/elsewhere/junit.xml",), ""),
        (("--junitxml=/elsewhere/junit.xml",), "addopts = --junitxml=/other"),
        (("-o", "cache_dir=/elsewhere"), ""),
        (("-o", "log_file=/elsewhere"), "log_file = /other"),
    ],
)
def test_what_the_user_gives_may_be_anywhere(check: Check, args: tuple[str, ...], ini: str) -> None:
    check(*args, ini=ini)


def test_paths_in_pytest_addopts_are_the_users(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "--junitxml=/elsewhere/junit.xml")
    check()


def test_a_link_out_of_the_project_is_outside(check: Check, pytester: pytest.Pytester) -> None:
    (pytester.path / "link").symlink_to("/")
    with pytest.raises(SettingError, match="outside of the project"):
        check(ini="addopts = --junitxml=link/junit.xml")


class _Choices(UserArguments):
    """Choices of a project, without a command line."""

    def __init__(self, **choices: object) -> None:
        self._final, self._given = choices, {}


@pytest.mark.parametrize("tx", ["popen", "3*popen"])
def test_a_project_may_ask_for_workers(tx: str) -> None:
    refuse_remote_workers(_Choices(tx=[tx]))


@pytest.mark.parametrize(
    "tx", ["popen//python=./evil", "2*popen//chdir=/", "ssh=host//python=x", "socket=host:8888", "via=popen"]
)
def test_a_project_names_no_programs_and_hosts_for_workers(tx: str) -> None:
    with pytest.raises(SettingError, match="programs and hosts"):
        refuse_remote_workers(_Choices(tx=["popen", tx]))
    with pytest.raises(SettingError, match="programs and hosts"):
        refuse_remote_workers(_Choices(rsyncdir=["/"]))


def test_filters_whose_class_the_host_lacks_are_left_to_the_guest() -> None:
    filters = [
        "error",
        "ignore::DeprecationWarning",
        "error::package.Oops",
        "error::there.Known:module",
        "error:::package.module",
    ]
    kept = filters_for_host(filters, lambda module: module == "there")
    assert kept == [filters[0], filters[1], filters[3], filters[4]]
