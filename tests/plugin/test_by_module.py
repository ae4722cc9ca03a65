"""``--smol-collect=module``: each module is collected in a machine of its own."""

from __future__ import annotations

import pytest

from tests.plugin.lab import Lab, difference, letters

BY_MODULE = "--smol-collect=module"

FILES = {
    "conftest": "import pytest\n@pytest.fixture(scope='session')\ndef shared(): return 1\n",
    "test_a": """
        import pytest
        def test_passes(shared): assert shared == 1
        def test_fails(): assert 0
        @pytest.mark.slow
        def test_slow(): pass
        class TestClass:
            @pytest.mark.parametrize("n", [1, 2])
            def test_n(self, n): assert n == 1
    """,
    "sub__conftest": "def pytest_collection_modifyitems(items): items[0].add_marker('slow')\n",
    "sub__test_b": "def test_1(): pass\ndef test_2(): pass\n",
    "sub__test_broken": "import no_such_module\n",
    "test_empty": "",
    "test_skipped": "import pytest\npytest.skip('whole', allow_module_level=True)\n",
    "pytest_ini": "[pytest]\nmarkers = slow\n",
}


def same(lab: Lab, *args: str) -> None:
    """Assert that a run looks the same with each way to collect; node order and collection errors as well."""
    session = lab.smol("--smol", *args)
    module = lab.smol("--smol", BY_MODULE, *args)
    differs = difference(session.comparable(), module.comparable())
    if differs:
        pytest.fail(differs, pytrace=False)


@pytest.mark.parametrize(
    "args",
    [
        "-v",
        "-v -rA test_a.py",
        "--collect-only",
        "--collect-only -q",
        "-v -k n_or_1",
        "-v -m slow",
        "-v test_a.py::TestClass sub",
        "-v test_a.py::TestClass::test_n[2] test_a.py::test_slow",
        "-v test_a.py::no_such sub",
        "no_such.py",
        "test_a.py::no_such sub/test_b.py::nor_this",
        "-x",
        "--maxfail=2 -v",
        "--deselect=test_a.py::test_fails -v",
        "--ignore=sub -v",
        "-v --smol-scope=test",
        "-v --smol-scope=session",
        "--fixtures-per-test test_a.py",
    ],
)
def test_it_looks_as_with_one_collection(lab: Lab, args: str) -> None:
    lab.project(**FILES)
    same(lab, "--continue-on-collection-errors", *args.split())


def test_a_broken_module_stops_the_run(lab: Lab) -> None:
    lab.project(**FILES)
    same(lab)


@pytest.mark.parametrize("args", ["--lf -v", "--ff -v", "--nf -v", "--lf --collect-only -q"])
def test_what_failed_last(lab: Lab, args: str) -> None:
    """These choose from the tests of all modules, so the host's pytest does it; what it says differs."""
    passes, fails = "def test_1(): pass\n", "def test_2(): assert 0\n"
    lab.project(test_a=passes, test_b=fails, test_c=passes)
    lab.plain()
    session = lab.smol("--smol", *args.split())
    module = lab.smol("--smol", BY_MODULE, *args.split())
    assert module.status == session.status
    nodes = [[line.split()[0] for line in run.out if line.startswith("test_")] for run in (session, module)]
    assert nodes[0] == nodes[1]


FORGER = """
    import _pytest.python
    _pytest.python.Function.runtest = lambda self: None
    def test_a(): pass
"""


def test_an_import_forges_no_test_of_another_module(lab: Lab) -> None:
    """It can with one collection of all modules, as docs/security.md says."""
    lab.project(test_a=FORGER, test_b="def test_b(): assert 0\n")
    args = ("--smol", "-v")
    assert letters(lab.smol(*args).text)["test_b"] == ["PASSED"]
    outcome = lab.smol(*args, BY_MODULE)
    verdicts = letters(outcome.text.partition("short test summary")[0])
    assert verdicts == {"test_a": ["PASSED"], "test_b": ["FAILED"]}
    assert outcome.status == 1


def test_what_it_costs(lab: Lab) -> None:
    """One fork lists the files, one collects each, and one runs the tests of each group."""
    lab.project(test_a="def test_1(): pass\ndef test_2(): pass\n", test_b="def test_3(): pass\n")
    lab.smol("--smol")
    assert (len(lab.record.sessions), len(lab.record.forks)) == (1, 2)
    lab.smol("--smol", BY_MODULE)
    assert (len(lab.record.sessions), len(lab.record.forks)) == (1, 1 + 2 + 2)
    lab.smol("--smol", BY_MODULE, "--smol-scope=test")
    assert (len(lab.record.sessions), len(lab.record.forks)) == (1, 1 + 2 + 3)
    lab.smol("--smol", BY_MODULE, "--collect-only")
    assert (len(lab.record.sessions), len(lab.record.forks)) == (1, 1 + 2)


def test_no_machine_imports_two_modules(lab: Lab) -> None:
    source = """
        import sys
        assert not {{"test_a", "test_b"}} & sys.modules.keys() - {{__name__}}
        def test_{0}(): pass
    """
    lab.project(test_a=source.format("a"), test_b=source.format("b"))
    outcome = lab.smol("--smol", BY_MODULE)
    assert "2 passed" in outcome.text, outcome


@pytest.mark.parametrize("source", ["while True: pass\n", "import os\nos.kill(os.getpid(), 9)\n"])
def test_a_module_that_hangs_or_dies_costs_itself(lab: Lab, source: str) -> None:
    lab.project(test_a=source, test_b="def test_b(): pass\n")
    outcome = lab.smol("--smol", BY_MODULE, "--smol-timeout=2", "--continue-on-collection-errors", "-v")
    assert letters(outcome.text)["test_b"] == ["PASSED"]
    assert "1 passed, 1 error" in outcome.text


def test_a_module_that_is_collected_in_another_way_the_second_time(lab: Lab) -> None:
    """Its tests fail that are not there; nothing else runs in their place."""
    lab.project(
        test_a="""
            import pathlib, pytest
            seen = pathlib.Path(__file__).with_name("seen")
            again = seen.exists()
            seen.touch()
            if again:
                def test_other(): pass
            else:
                def test_one(): pass
            def test_both(): pass
        """
    )
    outcome = lab.smol("--smol", BY_MODULE, "-v")
    assert letters(outcome.text.partition("short test summary")[0])["test_one"][-1] in ("ERROR", "FAILED")
    assert letters(outcome.text)["test_both"] == ["PASSED"]
    assert "test_other" not in outcome.text
    assert "the guest did not collect this test" in outcome.text


MARKED = """
    import pytest
    pytestmark = pytest.mark.smol(untrusted=True)
    def test_a(): pass
"""


def test_an_untrusted_marker_collects_by_module(lab: Lab) -> None:
    """In a run of marked tests, the host has collected already: a fork for each group is all it costs."""
    lab.project(
        test_a=MARKED,
        test_b="import pytest, sys\n@pytest.mark.smol\ndef test_b(): assert 'test_a' not in sys.modules\n",
        test_c="def test_c(): pass\n",
    )
    outcome = lab.smol("-v")
    assert "3 passed" in outcome.text, outcome
    assert [order["collect"] for order in lab.record.orders if order["type"] == "session"] == ["module"]
    assert lab.record.ran == [["test_a.py::test_a"], ["test_b.py::test_b"]]


def test_without_an_untrusted_marker_one_guest_collects(lab: Lab) -> None:
    lab.project(test_a=MARKED.replace("untrusted=True", ""))
    assert "1 passed" in lab.smol().text
    assert [order["collect"] for order in lab.record.orders if order["type"] == "session"] == ["session"]


def test_an_untrusted_marker_that_comes_too_late(lab: Lab) -> None:
    """With --smol a guest has imported all modules when it says which markers there are."""
    lab.project(test_a=MARKED)
    outcome = lab.smol("--smol")
    assert outcome.status == pytest.ExitCode.USAGE_ERROR
    assert "untrusted=True comes too late" in "".join(outcome.err)
    assert "--smol-collect=module" in "".join(outcome.err)
    assert not lab.record.forks
    assert "1 passed" in lab.smol("--smol", BY_MODULE).text


def test_hooks_of_the_end_and_of_all_conftest_files(lab: Lab) -> None:
    hook = "def pytest_terminal_summary(terminalreporter): terminalreporter.write_line('{} says so')\n"
    lab.project(
        conftest=hook.format("the top"),
        sub__conftest=hook.format("the sub"),
        sub__test_b="def test_b(): pass\n",
    )
    same(lab)
    outcome = lab.smol("--smol", BY_MODULE)
    assert {"the top says so", "the sub says so"} <= set(outcome.out)


def test_a_warning_of_a_module_that_two_import(lab: Lab) -> None:
    lab.project(
        helper="import warnings\nwarnings.warn('once')\n",
        conftest="import sys, os\nsys.path.insert(0, os.path.dirname(__file__))\n",
        test_a="import helper\ndef test_a(): pass\n",
        test_b="import helper\ndef test_b(): pass\n",
    )
    same(lab)
