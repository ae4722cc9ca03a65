"""With --smol the same tests are selected, in the same order, with the same exit status."""

from __future__ import annotations

import os

import pytest

from tests.plugin.lab import Lab, normalised
from tests.plugin.projects import EVERY_OUTCOME, SEVERAL_MODULES

BETA = "test_first.py::test_beta"


OTHER_INI = {"other_ini": "[pytest]\npython_functions = test_alpha\nmarkers =\n slow\n fast\n"}
FIXTURES_LIVE_AS_AT_HOME = "--smol-scope=session"


@pytest.mark.parametrize(
    "args",
    [
        "",
        "-v",
        "test_first.py",
        "sub",
        "sub/test_second.py::TestGroup",
        "sub/test_second.py::TestGroup::TestInner::test_deep",
        "test_first.py::test_gamma[2] test_first.py::test_alpha",
        "sub/test_third.py test_first.py",
        "-k alpha",
        "-k alpha_or_nothing",
        "-k gamma[2]",
        "-m slow",
        "-m fast",
        "-m slow_or",
        "-k (",
        "--deselect test_first.py::test_gamma",
        "--ignore sub",
        "--ignore-glob *second*",
        "--pyargs sub",
        "--rootdir sub sub",
        "-x",
        "--maxfail 1",
        "--maxfail 2",
        "--maxfail 3",
        "--exitfirst -v sub",
        "--collect-only",
        "--collect-only -q",
        "--collect-only -qq",
        "--collect-only -v",
        "--collect-only -k beta",
        "--co -q -m fast",
        "--import-mode=importlib",
        "--import-mode=append",
        "-p no:cacheprovider",
        "--noconftest test_first.py",
        "-c other.ini",
        "--strict-markers -m fast",
        "--dist=no",
        "no_such_file.py",
        "test_first.py::no_such_test",
        "test_first.py no_such_file.py",
        "sub/test_second.py::TestGroup::no_such",
        "--no-such-option",
        "--no-such-option=3",
    ],
)
def test_selection(lab: Lab, args: str) -> None:
    lab.project(**SEVERAL_MODULES, **OTHER_INI)
    lab.same(f"{args} {FIXTURES_LIVE_AS_AT_HOME}")


@pytest.mark.parametrize(
    "args",
    ["-n0", "--maxfail=many", "-p no_such_plugin", "-W nonsense::", "--markers", "--version"],
)
def test_options_that_need_no_session(lab: Lab, args: str) -> None:
    lab.project(**SEVERAL_MODULES, **OTHER_INI)
    run = f"{args} {FIXTURES_LIVE_AS_AT_HOME}"
    lab.same(run, on_host=[run])


@pytest.mark.parametrize(
    "runs",
    [
        ["", "--lf", "--lf -v"],
        ["", "--ff -v", "--ff --collect-only -q"],
        ["--lf"],
        ["", "--lf test_first.py", "--lfnf=none --lf"],
        ["-k gamma", "--lf --lfnf=all"],
        ["--sw", "--sw", "--sw --sw-skip"],
        ["--sw -v", "--sw-reset -v"],
        ["--nf -v", "--nf -v"],
        ["-q", "--cache-clear -q", "--lf -q"],
        ["--collect-only -q", "--lf"],
    ],
    ids=" then ".join,
)
def test_cache(lab: Lab, runs: list[str]) -> None:
    lab.project(**SEVERAL_MODULES)
    lab.same(*(f"{run} --smol-scope=session" for run in runs))


def test_new_first_sees_a_new_file(lab: Lab) -> None:
    lab.project(**SEVERAL_MODULES)
    assert lab.in_machines("--nf").status == 1
    lab.project(test_zz_new="def test_new(): pass\n")
    assert "test_zz_new.py" in lab.in_machines("--nf", "--collect-only", "-q").out[0]


def test_stepwise_remembers_where_a_guest_stopped(lab: Lab) -> None:
    lab.project(test_a="def test_1(): pass\ndef test_2(): assert 0\ndef test_3(): pass\n")
    lab.in_machines("--sw")
    lab.project(test_a="def test_1(): assert 0\ndef test_2(): pass\ndef test_3(): pass\n")
    outcome = lab.in_machines("--sw", "-v")
    assert "2 passed, 1 deselected" in outcome.text


@pytest.mark.parametrize("option", ["--fixtures", "--fixtures -v test_first.py", "--fixtures-per-test"])
def test_fixtures_are_shown_by_the_guest(lab: Lab, option: str) -> None:
    lab.project(**SEVERAL_MODULES)
    plain, smol = lab.both(option)[0]
    assert smol.status == plain.status == 0
    assert any(line.startswith("of_session") for line in smol.out)
    on_host = {line for line in normalised(plain.out) if not line.startswith("collected")}
    assert on_host <= set(normalised(smol.out))
    assert not smol.err


def test_showing_the_cache_needs_no_machine(lab: Lab) -> None:
    lab.project(**SEVERAL_MODULES)
    lab.same("-q --smol-scope=session", "--cache-show", on_host=["--cache-show"])
    assert not lab.record.factories


def test_new_first_knows_a_new_test_in_an_old_file(lab: Lab) -> None:
    lab.project(test_a="def test_1(): pass\n", test_b="def test_2(): pass\n")
    lab.in_machines()
    lab.project(test_a="def test_1(): pass\ndef test_new(): pass\n")
    os.utime(lab.path / "test_a.py", (1e9, 1e9))
    outcome = lab.in_machines("--nf", "--collect-only", "-q")
    assert outcome.out[:3] == ["test_a.py::test_new", "test_b.py::test_2", "test_a.py::test_1"]


@pytest.mark.parametrize("scope", ["test", "class", "module", "session"])
def test_maxfail_over_several_machines(lab: Lab, scope: str) -> None:
    lab.project(test_a=EVERY_OUTCOME, **SEVERAL_MODULES)
    lab.same(f"--maxfail=6 --smol-scope={scope} -q --tb=no")


def test_plugin_that_selects_and_reorders(lab: Lab) -> None:
    lab.project(
        conftest="""
            def pytest_collection_modifyitems(config, items):
                config.hook.pytest_deselected(items=items[:1])
                items[:] = items[:0:-1]
            def pytest_report_header(): return "a line of the header"
            def pytest_report_collectionfinish(items): return [f"{len(items)} left"]
        """,
        test_a="def test_1(): pass\ndef test_2(): pass\ndef test_3(): assert 0\n",
    )
    assert "a line of the header" in lab.same("-v").out


def test_generated_tests_and_ids(lab: Lab) -> None:
    lab.project(
        test_a="""
            import pytest
            def pytest_generate_tests(metafunc):
                if "made" in metafunc.fixturenames:
                    metafunc.parametrize("made", ["a b", "ü", "x::y", "[z]", "a/b", ""])
            def test_made(made): assert made != "x::y"
            @pytest.mark.parametrize("a", [1, 2])
            @pytest.mark.parametrize("b", ["x", pytest.param("y", id="why", marks=pytest.mark.xfail)])
            def test_two(a, b): assert b == "x"
            @pytest.mark.parametrize("empty", [])
            def test_empty(empty): pass
        """
    )
    lab.same("-v", "-v test_a.py::test_two[why-1]", "--collect-only -q", "--lf -v")
