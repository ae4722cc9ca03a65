"""The comparison of suites: the plugin that records outcomes, and the table of differences."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.suites.compare import Difference, Run, differences, parse, summary
from tests.suites.crashes import REASONS, judge, reasons
from tests.suites.run import parse_arguments
from tests.suites.table import SUITES

PLUGIN_FOLDER = Path(__file__).parents[2] / "suites"

SUITE = """
import pytest

@pytest.fixture
def broken():
    raise RuntimeError

@pytest.fixture
def fails_late():
    yield
    raise RuntimeError

def test_passes(): pass
def test_fails(): assert 0
def test_skips(): pytest.skip("so")
def test_error(broken): pass
def test_passes_then_error(fails_late): pass
@pytest.mark.xfail
def test_xfails(): assert 0
@pytest.mark.xfail
def test_xpasses(): pass
"""


def record(folder: Path, *options: str, **variables: str) -> Path:
    """Run pytest with the plugin and ``options`` in ``folder``; the file that it should write."""
    outcomes = folder / "outcomes.json"
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(PLUGIN_FOLDER),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "smol_outcomes",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
    ]
    subprocess.run(
        [*command, f"--rootdir={folder}", *options],
        cwd=folder,
        env={**env, "SMOL_OUTCOMES": str(outcomes), **variables},
        capture_output=True,
        check=False,
    )
    return outcomes


def test_every_kind_of_outcome_is_recorded(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(SUITE)
    (tmp_path / "test_other.py").write_text("import no_such_module")
    run = parse(record(tmp_path).read_text(), status=2, seconds=1.0)
    # A module that cannot be collected interrupts the session before the first test.
    assert (run.tests, run.collection) == ({}, {"test_other.py": "failed"})
    (tmp_path / "test_other.py").unlink()
    run = parse(record(tmp_path).read_text(), status=1, seconds=1.0)
    assert run.collection == {}
    assert run.tests == {
        "test_it.py::test_passes": "passed",
        "test_it.py::test_fails": "failed",
        "test_it.py::test_skips": "skipped",
        "test_it.py::test_error": "error",
        "test_it.py::test_passes_then_error": "error + passed",
        "test_it.py::test_xfails": "xfailed",
        "test_it.py::test_xpasses": "xpassed",
    }


def test_nothing_is_recorded_in_a_guest(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(): pass")
    assert not record(tmp_path, SMOL_GUEST="1").exists()
    assert record(tmp_path).exists()


@pytest.mark.parametrize(
    ("limit", "chosen"), [(1, [0]), (3, [0, 3, 6]), (9, [0, 1, 2, 3, 4, 5, 6, 7, 8]), (20, list(range(10)))]
)
def test_a_limit_leaves_tests_from_everywhere(tmp_path: Path, limit: int, chosen: list[int]) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\n@pytest.mark.parametrize('n', range(10))\ndef test_it(n): pass"
    )
    found = parse(record(tmp_path, f"--outcomes-limit={limit}").read_text(), 0, 0.0)
    assert sorted(found.tests) == [f"test_it.py::test_it[{n}]" for n in chosen]


def test_equal_runs_do_not_differ() -> None:
    tests = {"a::b": "passed", "a::c": "failed"}
    plain = Run(1, 2.0, tests, {"d": "skipped"}, {nodeid: ["host"] for nodeid in tests})
    smol = Run(1, 9.0, dict(tests), {"d": "skipped"}, {"a::b": ["one"], "a::c": ["one", "other"]})
    assert differences(plain, smol, "host") == []


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        ({"a::b": ["host"], "a::c": ["host"]}, "on the host ran a::b, a::c"),
        ({"a::b": ["one"], "a::c": ["one", "host"]}, "on the host ran a::c"),
        ({"a::b": ["one"], "a::c": []}, "no machine reported a::c"),
        ({"a::b": ["one"]}, "no machine reported a::c"),
        ({}, "no machine reported a::b, a::c"),
    ],
)
def test_a_run_with_tests_on_the_host_is_not_identical(ids: dict[str, list[str]], reason: str) -> None:
    tests = {"a::b": "passed", "a::c": "failed"}
    found = differences(Run(1, 2.0, tests), Run(1, 2.0, tests, boot_ids=ids), "host")
    assert found == [Difference("kernel", "the host's", reason)]


def test_a_plain_run_in_machines_is_not_identical() -> None:
    ids = {"a::b": ["one"]}
    run = Run(0, 2.0, {"a::b": "passed"}, boot_ids=ids)
    assert differences(run, run, "host") == [Difference("kernel", "not the host's", "not compared")]


@pytest.mark.parametrize(
    ("smol", "difference"),
    [
        (Run(0, 1.0, {"a::b": "failed"}), Difference("a::b", "passed", "failed")),
        (Run(0, 1.0, {}), Difference("a::b", "passed", "absent")),
        (Run(0, 1.0, {"a::b": "passed", "a::c": "passed"}), Difference("a::c", "absent", "passed")),
        (
            Run(0, 1.0, {"a::b": "passed"}, {"d": "failed"}),
            Difference("collection of d", "absent", "failed"),
        ),
        (Run(1, 1.0, {"a::b": "passed"}), Difference("exit status", "0", "1")),
    ],
)
def test_each_difference_is_named(smol: Run, difference: Difference) -> None:
    smol = replace(smol, boot_ids={nodeid: ["one"] for nodeid in smol.tests})
    assert differences(Run(0, 1.0, {"a::b": "passed"}), smol, "host") == [difference]


def test_two_empty_runs_are_not_identical() -> None:
    assert [found.where for found in differences(Run(5, 1.0), Run(5, 1.0), "host")] == ["number of tests"]


@pytest.mark.parametrize("text", ["[]", "{}", '{"tests": [], "collection": {}}', "", "nonsense"])
def test_a_file_of_another_kind_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own error is a ValueError, too
        parse(text, 0, 1.0)


def test_a_test_without_outcome_is_not_one_that_passed() -> None:
    text = json.dumps({"tests": {"a::b": []}, "collection": {}})
    assert parse(text, 0, 1.0).tests == {"a::b": "no outcome"}


def test_summary_counts_outcomes() -> None:
    tests = {"a": "passed", "b": "passed", "c": "skipped"}
    assert summary(Run(0, 1.0, tests)) == "2 passed, 1 skipped"
    assert summary(Run(5, 1.0)) == "no tests"


def test_an_unknown_suite_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["nonesuch"])
    assert "iniconfig" in capsys.readouterr().err


def test_whatever_is_left_out_has_a_reason() -> None:
    assert all(reason.strip() for suite in SUITES.values() for _, reason in suite.deselect)
    assert all(suite.tests and suite.version for suite in SUITES.values())


JUNIT = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest">
{}
</testsuite></testsuites>"""

MESSAGES = {
    "test_kernel_panic": "the guest kernel panicked: sysrq triggered crash",
    "test_power_off": "the guest powered itself off",
    "test_kill_every_process": "the test process was killed by SIGKILL",
    "test_exit_at_once": "the test process exited with status 0 before the test was over",
    "test_segmentation_fault": "the test process was killed by SIGSEGV",
    "test_fork_bomb": "the test was not over after 10 s",
    "test_memory_exhaustion": "the test process was killed by SIGKILL because the guest ran out of memory",
    "test_hang": "the test was not over after 5 s",
    "test_all_is_well": "",
}


def junit(messages: dict[str, str]) -> str:
    """A document in which every test with a message failed with it."""
    failure = '<testcase name="{}"><failure message="{}">text</failure></testcase>'
    cases = [failure.format(*row) if row[1] else f'<testcase name="{row[0]}" />' for row in messages.items()]
    return JUNIT.format("\n".join(cases))


def test_crashes_that_name_their_cause_are_as_expected() -> None:
    assert judge(reasons(junit(MESSAGES))) == []


@pytest.mark.parametrize("name", [name for name, pattern in REASONS.items() if pattern])
def test_a_crash_that_passes_or_names_another_cause_is_not_as_expected(name: str) -> None:
    assert [line.split()[0] for line in judge(reasons(junit({**MESSAGES, name: ""})))] == [name]
    assert [line.split()[0] for line in judge(reasons(junit({**MESSAGES, name: "boom"})))] == [name]


def test_a_test_that_is_absent_unknown_or_wrongly_failed_is_not_as_expected() -> None:
    assert len(judge({})) == len(REASONS)
    assert judge(reasons(junit({**MESSAGES, "test_new": "boom"}))) == ["test_new is not expected at all"]
    wrong = judge(reasons(junit({**MESSAGES, "test_all_is_well": "boom"})))
    assert wrong == ["test_all_is_well should pass, but: boom\ntext"]


def test_the_table_names_exactly_the_examples() -> None:
    text = (Path(__file__).parents[3] / "examples" / "test_crashes.py").read_text()
    assert re.findall(r"^def (test_\w+)", text, re.MULTILINE) == list(REASONS)
