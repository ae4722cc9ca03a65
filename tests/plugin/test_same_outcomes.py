"""With --smol a suite says what it says without: outcomes, reports, fixtures."""

from __future__ import annotations

import pytest

from tests.plugin.lab import Lab, cases, letters
from tests.plugin.projects import EVERY_OUTCOME, REORDERED, SCOPES, SEVERAL_MODULES

#: pytester would add its own frames, and its own rewriting of assertions, to what these show.
SHOW_ALL_FRAMES = ("--tb=native", "--full-trace", "--xfail-tb", "-W error::UserWarning", "--assert=plain")


@pytest.mark.parametrize(
    "args",
    [
        "",
        "-v",
        "-vv",
        "-q",
        "-qq",
        "-q -rA",
        "-rA",
        "-ra -v",
        "-rfEsxXpP",
        "-rN",
        "--tb=short",
        "--tb=long",
        "--tb=line",
        "--tb=native",
        "--tb=no",
        "--tb=auto -l",
        "--full-trace",
        "--show-capture=no",
        "--show-capture=stderr",
        "--no-header",
        "--no-summary",
        "--color=yes",
        "--color=yes -v --tb=short",
        "--capture=sys",
        pytest.param(
            "--xfail-tb",
            marks=pytest.mark.skipif(pytest.version_tuple < (8, 3), reason="the option came with pytest 8.3"),
        ),
        "--runxfail",
        "--disable-warnings",
        "-W error::UserWarning",
        "--strict-markers",
        "-o console_output_style=count",
        "-o console_output_style=classic",
        "-o verbosity_assertions=2",
        "--assert=plain",
        "-p no:terminalreporter",
    ],
)
def test_every_outcome(lab: Lab, args: str) -> None:
    lab.project(test_a=EVERY_OUTCOME)
    outcome = lab.same(args, apart=args in SHOW_ALL_FRAMES)
    assert outcome.status == 1


def test_a_lone_surrogate(lab: Lab) -> None:
    lab.project(test_a="def test_a():\n    assert '\\udc80' == 'x', '\\ud800'\n")
    lab.same("-v")


def test_control_characters_are_shown_in_caret_notation(lab: Lab) -> None:
    lab.project(test_a="def test_a():\n    print('\\x1b[31mred\\x07')\n    assert 0\n")
    plain, smol = lab.both("")[0]
    assert "\x1b[31mred\x07" in plain.out
    assert "^[[31mred^G" in smol.out


def test_uncaptured_text_is_not_torn_between_two_reads(lab: Lab) -> None:
    lab.project(test_a="def test_a():\n    print('x' + 'é€' * 100_000)\n")
    outcome = lab.in_machines("-s")
    assert "x" + "é€" * 100_000 in outcome.text
    assert "\ufffd" not in outcome.text


@pytest.mark.parametrize("args", ["-s --tb=short", "--capture=tee-sys --tb=short", "--setup-show", "-s -q"])
@pytest.mark.parametrize("suite", [EVERY_OUTCOME, SCOPES], ids=["outcomes", "scopes"])
def test_uncaptured(lab: Lab, suite: str, args: str) -> None:
    """Output and reports take two ways out of the guest, and yet are shown in their order."""
    lab.project(test_a=suite)
    lab.same(args)


@pytest.mark.parametrize(
    "args",
    ["-v", "--setup-only", "--setup-plan", "--collect-only", "-v --smol-scope=module"],
)
def test_fixtures_of_every_scope(lab: Lab, args: str) -> None:
    lab.project(test_a=SCOPES)
    lab.same(args)


@pytest.mark.parametrize("args", ["-v", "-v --smol-scope=session", "--collect-only -q"])
def test_parametrised_fixtures_reorder(lab: Lab, args: str) -> None:
    lab.project(test_a=REORDERED, test_b=REORDERED)
    lab.same(args)


def test_unittest_subtests(lab: Lab) -> None:
    lab.project(
        test_a="""
            import unittest
            class Sub(unittest.TestCase):
                def test_some(self):
                    for n in range(4):
                        with self.subTest("numbers", n=n, text="t"):
                            self.assertNotEqual(n % 2, 1)
        """
    )
    outcome = lab.same("--tb=no -q -rA")
    assert ("2 failed" if pytest.version_tuple >= (9,) else "1 failed") in outcome.text


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="the fixture came with pytest 9.0")
def test_pytest_subtests(lab: Lab) -> None:
    lab.project(
        test_a="""
            def test_some(subtests):
                for n in range(4):
                    with subtests.test("numbers", n=n):
                        assert n % 2 == 0
        """
    )
    outcome = lab.same("-v")
    assert outcome.status == 1


def test_doctests(lab: Lab) -> None:
    lab.project(
        numbers_code='''
            def double(n):
                """
                >>> double(2)
                4
                >>> double(3)
                7
                """
                return 2 * n
        ''',
        text_txt=">>> 1 + 1\n2\n>>> 1 + 1\n3\n",
    )
    outcome = lab.same("--doctest-modules --doctest-glob=*.txt -v -rN")
    assert outcome.status == 1


def test_logging(lab: Lab) -> None:
    lab.project(
        test_a="""
            import logging
            def test_logs():
                logging.getLogger("some").warning("logged %d", 7)
                assert 0
        """
    )
    lab.same("--log-level=DEBUG --log-format=%(levelname)s:%(message)s")


def test_user_properties_and_sections(lab: Lab) -> None:
    lab.project(
        test_a="""
            import pytest
            def test_records(record_property, record_testsuite_property):
                record_property("name", "value")
                record_property("number", 7)
                record_property("object", object)
            @pytest.fixture
            def broken(record_property):
                record_property("in", "setup")
                raise ValueError
            def test_broken(broken): pass
        """
    )
    outcome = lab.same("--junitxml=result.xml")
    assert '<property name="number" value="7" />' in outcome.files["result.xml"]


@pytest.mark.parametrize("family", ["xunit1", "xunit2", "legacy"])
def test_junit_xml(lab: Lab, family: str) -> None:
    lab.project(test_a=EVERY_OUTCOME, **SEVERAL_MODULES)
    fixtures_last_longer = "--smol-scope=session"
    [(plain, smol)] = lab.both(
        f"--junitxml=result.xml -o junit_family={family} -o junit_logging=all {fixtures_last_longer}"
    )
    assert cases(smol.files["result.xml"]) == cases(plain.files["result.xml"])
    assert len(cases(smol.files["result.xml"])) > 30


def test_durations(lab: Lab) -> None:
    """A conftest sets them, as on a busy machine any phase may take long; the host limits them to its own."""
    lab.project(
        conftest="""
            import pytest
            @pytest.hookimpl(wrapper=True)
            def pytest_runtest_makereport(item, call):
                report = yield
                told = {"test_slow call": 0.2, "test_setup setup": 0.1}
                report.duration = told.get(f"{item.name} {call.when}", 0.0)
                return report
        """,
        test_a="""
            import pytest, time
            def test_slow(): time.sleep(0.6)
            def test_quick(): pass
            @pytest.fixture
            def slow(): time.sleep(0.4)
            def test_setup(slow): pass
        """,
    )
    lab.same("--durations=2 --durations-min=0.05")


def test_a_module_warning_and_a_config_warning(lab: Lab) -> None:
    lab.project(
        pytest_ini="[pytest]\nno_such_ini_value = 1\n",
        test_a="""
            import warnings
            warnings.warn("while it is imported")
            class TestWithInit:
                def __init__(self): pass
                def test_never(self): pass
            def test_fine(): pass
        """,
    )
    outcome = lab.same("-v")
    assert "while it is imported" in outcome.text


def test_what_both_sides_warn_of_when_they_are_configured_is_shown_once(lab: Lab) -> None:
    lab.project(test_a="def test_fine(): pass")
    outcome = lab.same("-p json")  # any module will do that is loaded already
    assert "1 passed, 1 warning" in outcome.text


def test_ini_values_options_and_warnings_of_a_conftest(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the project's code defines is only known to the guest."""
    monkeypatch.syspath_prepend(lab.path)  # pytest 8.0 imports warning classes before it looks at pythonpath
    lab.project(
        pytest_ini="""
            [pytest]
            of_conftest = 7
            filterwarnings = error::conftest_warnings.Own
            addopts = --strict-config -W ignore::conftest_warnings.Other
        """,
        conftest="""
            def pytest_addoption(parser):
                parser.addini("of_conftest", "an ini value")
                parser.addoption("--of-conftest", default="none")
        """,
        conftest_warnings="class Own(UserWarning): pass\nclass Other(UserWarning): pass\n",
        test_a="""
            import warnings
            from conftest_warnings import Own, Other
            def test_fails(): warnings.warn(Own("an error here"))
            def test_passes(request):
                warnings.warn(Other("not seen"))
                warnings.warn("seen")
                assert request.config.getini("of_conftest") == "7"
                assert request.config.getoption("of_conftest") == "given"
        """,
    )
    outcome = lab.same("--of-conftest=given --tb=line")
    assert "1 failed, 1 passed, 1 warning" in outcome.text


def test_the_same_test_twice(lab: Lab) -> None:
    lab.project(test_a="def test_a(): assert 0\ndef test_b(): pass\n")
    lab.same("-v --keep-duplicates test_a.py test_a.py")
    [(plain, smol)] = lab.both("-v test_a.py::test_b test_a.py::test_b")
    assert letters(smol.text) == {"test_b": ["PASSED"]}
    if pytest.version_tuple < (9,):  # its "collected" counts a test as often as it is named
        plain.out = [line.replace("collected 2 items", "collected 1 item") for line in plain.out]
    assert smol.comparable() == plain.comparable()


def test_no_tests(lab: Lab) -> None:
    lab.project(test_a="x = 1\n")
    assert lab.same("").status == 5


def test_everything_deselected(lab: Lab) -> None:
    lab.project(test_a="def test_a(): pass\n")
    assert lab.same("-k nothing").status == 5
