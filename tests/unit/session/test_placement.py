"""Which tests share a machine."""

from __future__ import annotations

import os

import pytest

from pytest_smol.errors import SettingError
from pytest_smol.marker import MarkerArguments
from pytest_smol.session.placement import MachineSpec, Placement, placement, spec_of
from pytest_smol.settings import Settings

BOUNDARIES = {"test": "a.py::C::t", "class": "a.py::C", "module": "a.py", "session": ""}


@pytest.fixture(autouse=True)
def plain_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)


def where(
    *, place: str | None = None, argument: str | None = None, option: str | None = None
) -> tuple[str, str]:
    found = placement(BOUNDARIES, place, MarkerArguments(scope=argument), Settings(scope=option))
    return found.scope, found.boundary


@pytest.mark.parametrize(
    ("asked", "scope"),
    [
        ({}, "module"),
        ({"place": "test"}, "test"),
        ({"place": "class"}, "class"),
        ({"place": "module"}, "module"),
        ({"place": "session"}, "session"),
        ({"place": "test", "option": "session"}, "session"),
        ({"option": "class"}, "class"),
        ({"place": "module", "option": "session", "argument": "test"}, "test"),
        ({"place": "test", "argument": "module"}, "module"),
    ],
)
def test_argument_wins_over_option_and_option_over_place(asked: dict[str, str], scope: str) -> None:
    assert where(**asked) == (scope, BOUNDARIES[scope])


def test_tests_that_need_other_machines_do_not_share_one() -> None:
    found = {
        placement(BOUNDARIES, "module", arguments, Settings())
        for arguments in (MarkerArguments(), MarkerArguments(memory=512), MarkerArguments(user="root"))
    }
    assert found == {
        Placement("module", "a.py", MachineSpec(512, "host")),
        Placement("module", "a.py", MachineSpec(512, "host")),
        Placement("module", "a.py", MachineSpec(512, "root")),
    }


def test_the_time_allowed_makes_no_other_machine() -> None:
    slow = placement(BOUNDARIES, None, MarkerArguments(timeout=9), Settings())
    assert slow == placement(BOUNDARIES, None, MarkerArguments(), Settings())


def test_memory_comes_from_the_marker_or_else_the_settings() -> None:
    assert spec_of(Settings(memory=300)) == MachineSpec(300, "host")
    assert spec_of(Settings(memory=300), MarkerArguments(memory=400)) == MachineSpec(400, "host")


def test_where_the_host_is_root_both_users_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert spec_of(Settings()) == spec_of(Settings(), MarkerArguments(user="root"))


def test_tests_cannot_write_more_than_the_memory_of_their_machine() -> None:
    settings = Settings(memory=512, tmp=256 << 20)
    assert spec_of(settings).memory == 512
    with pytest.raises(SettingError, match="smol_tmp=256 is no less than the 256 MiB"):
        spec_of(settings, MarkerArguments(memory=256))


def test_disks_and_processors_of_a_marker_win_over_settings() -> None:
    settings = Settings(cpus=2, disks=(1 << 20,))
    assert spec_of(settings) == MachineSpec(512, "host", 2, (1 << 20,))
    assert spec_of(settings, MarkerArguments(cpus=1, disks=())) == MachineSpec(512, "host", 1)


def test_nested_is_a_machine_of_another_kind() -> None:
    assert spec_of(Settings(nested=True)) == MachineSpec(512, "host", nested=True)
    assert spec_of(Settings(nested=True), MarkerArguments(nested=False)) == MachineSpec(512, "host")
    assert spec_of(Settings(), MarkerArguments(nested=True)) != spec_of(Settings())
