"""In which steps a machine runs its tests, what follows on the host, and how many machines are to come."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from hypothesis import given
from hypothesis import strategies as st

from pytest_smol.session.placement import MachineSpec, Placement, PlannedTest
from pytest_smol.session.plan import GuestNumbers, Plan, Step

T = TypeVar("T", bound=Hashable)

SMALL, BIG = MachineSpec(256, "host"), MachineSpec(512, "host")


def in_module(name: str, spec: MachineSpec = SMALL) -> PlannedTest:
    return PlannedTest(Placement("module", name, spec), 60)


# --- what follows on the host, and how many machines are to come


def test_a_plan_of_nothing() -> None:
    plan: Plan[str] = Plan()
    assert (plan.tests, plan.specs, dict(plan.in_vms)) == ((), set(), {})


def test_the_next_test_on_the_host() -> None:
    plan = Plan("avbwwc", {"v": in_module("v"), "w": in_module("w")})
    assert [plan.next_on_host(test) for test in "avbwc"] == ["a", "b", "b", "c", "c"]
    assert Plan("av", {"v": in_module("v")}).next_on_host("v") is None


def test_a_test_that_was_not_planned_is_the_hosts() -> None:
    assert Plan("a").next_on_host("x") == "x"


def test_members_are_in_the_order_of_the_run_also_where_others_come_between() -> None:
    plan = Plan("axbyc", {test: in_module("m") for test in "abc"} | {test: in_module("o") for test in "xy"})
    assert plan.members(in_module("m").placement) == ("a", "b", "c")
    assert plan.members(in_module("o").placement) == ("x", "y")


def test_machines_to_come_are_counted_by_spec_and_from_where_a_group_begins() -> None:
    where = {
        "a": in_module("1"),
        "b": in_module("2"),
        "c": in_module("1"),
        "d": in_module("3", BIG),
        "e": in_module("4"),
    }
    plan = Plan("abcde", where)
    assert plan.specs == {SMALL, BIG}
    assert [plan.machines_to_come(where[test].placement) for test in "abde"] == [2, 1, 0, 0]


# --- steps


def steps(members: Sequence[T], run: Sequence[T], numbers: Mapping[T, int | None]) -> list[Step]:
    return GuestNumbers(run, [numbers[test] for test in run]).steps(members)


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
