"""Which tests share a machine, and in which steps."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_smol.marker import MarkerArguments
from pytest_smol.session.placement import MachineSpec, Placement, placement, spec_of, steps
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


# --- steps


def test_each_step_knows_what_follows_it_in_the_run() -> None:
    assert steps("abc", "abc", {"a": 10, "b": 11, "c": 12}) == [(10, 11), (11, 12), (12, None)]


def test_what_follows_may_be_another_machines_test() -> None:
    numbers = {"a": 0, "b": 1, "c": 2, "d": 3}
    assert steps("ac", "abcd", numbers) == [(0, 1), (2, None)]


def test_what_the_guest_does_not_have_is_no_step_and_follows_nothing() -> None:
    assert steps("abc", "abc", {"a": 0, "b": None, "c": 1}) == [(0, 1), (1, None)]
    assert steps("ab", "ab", {"a": 0, "b": None}) == [(0, None)]


def test_nothing_has_no_steps() -> None:
    assert steps("", "ab", {"a": 0, "b": 1}) == []
    assert steps("a", "a", {"a": None}) == []


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=12))
def test_steps_are_the_known_members_and_the_next_known_of_the_run(tests: list[tuple[bool, bool]]) -> None:
    run = range(len(tests))
    numbers = {test: 100 + test if tests[test][0] else None for test in run}
    members = [test for test in run if tests[test][1]]
    found = steps(members, run, numbers)
    assert [number for number, _ in found] == [100 + test for test in members if tests[test][0]]
    for number, following in found[:-1]:
        assert following == min(100 + test for test in run if tests[test][0] and 100 + test > number)
    assert not found or found[-1][1] is None
