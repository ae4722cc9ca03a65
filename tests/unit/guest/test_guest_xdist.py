"""pytest-xdist in the guest, switched off but known to a worker's tests. Needs no pytest-xdist."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_smol.guest.session.xdist import NoDistribution, become_worker

OPTIONS = """
def pytest_addoption(parser):
    parser.addoption("--numprocesses", dest="numprocesses", type=int)
    parser.addoption("--dist", dest="dist", default="no")
    parser.addoption("--tx", dest="tx", action="append", default=[])

def pytest_configure(config):
    config.addinivalue_line("markers", "xdist_group(name): as in pytest-xdist")
    print("distribution:", [getattr(config.option, name) for name in ("numprocesses", "dist", "tx")])
"""


def test_what_the_command_line_says_of_distribution_is_undone(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(OPTIONS)
    args = ("--numprocesses=2", "--dist=load", "--tx=popen", "-s")
    result = pytester.runpytest_inprocess(*args, plugins=[NoDistribution("no")])
    result.stdout.fnmatch_lines(["distribution: [[]None, 'no', [[]]]"])


def test_without_pytest_xdist_there_is_nothing_to_undo(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test(request): assert not hasattr(request.config.option, 'dist')")
    pytester.runpytest_inprocess(plugins=[NoDistribution("no")]).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("dist", "expected"),
    [("loadgroup", ["a@default", "b@x", "c@x_y", "d"]), ("load", ["a", "b", "c", "d"])],
)
def test_tests_are_named_by_their_group_where_it_counts(
    pytester: pytest.Pytester, dist: str, expected: list[str]
) -> None:
    pytester.makeconftest(OPTIONS)
    pytester.makepyfile(
        """
        import pytest
        group = pytest.mark.xdist_group
        @group
        def test_a(): pass
        @group("x")
        def test_b(): pass
        @group("y")
        @group(name="x")
        def test_c(): pass
        def test_d(): pass
        """
    )
    items, _ = pytester.inline_genitems()
    if not hasattr(items[0], "_nodeid"):
        pytest.skip("pytest 9.2 and newer keep ids where pytest-xdist does not look for them")
    NoDistribution(dist).pytest_collection_modifyitems(items)
    assert [item.nodeid.rpartition("test_")[2] for item in items] == expected


@pytest.mark.parametrize(("dist", "expected"), [("load", 0), ("no", 1)])
def test_only_where_nothing_is_distributed_tests_add_to_a_junit_report(
    pytester: pytest.Pytester, dist: str, expected: int
) -> None:
    pytester.makepyfile("def test(record_property): record_property('name', 'value')")
    result = pytester.runpytest_inprocess("--junitxml=junit.xml", plugins=[NoDistribution(dist)])
    result.assert_outcomes(passed=1, warnings=expected)


def test_the_worker_is_where_tests_look_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID", "COLUMNS")
    for name in names:
        monkeypatch.setenv(name, "before")
    config: Any = SimpleNamespace()
    given = {"workerid": "gw1", "workercount": 2, "testrunuid": "abc"}
    become_worker(cast(pytest.Config, config), given, {"COLUMNS": "120"})
    assert [os.environ[name] for name in names] == ["gw1", "2", "abc", "120"]
    assert (config.workerinput["workerid"], config.workeroutput) == ("gw1", {})
