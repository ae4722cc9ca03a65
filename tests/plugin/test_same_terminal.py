"""What is written to the terminal in addition to reports is at the same place as in a plain run."""

from __future__ import annotations

import io
import re

import pytest
from _pytest.capture import CaptureIO

from tests.plugin.lab import Lab, Outcome, normalised

TALKS = """
    import logging
    import pytest

    print("while it is imported")
    log = logging.getLogger("talks")

    @pytest.fixture
    def fix(capsys):
        print("in setup")
        log.warning("logged in setup")
        yield
        log.warning("logged in teardown")
        print("in teardown")

    def test_prints():
        print("first")
        print("no newline", end="")

    @pytest.mark.parametrize("n", range(3))
    def test_more(n, fix):
        log.warning("number %d", n)
        log.info("informed")
        print("number", n)
        assert n != 1

    def test_around_capture(capsys):
        with capsys.disabled():
            print("seen by all")
        print("captured")
        assert capsys.readouterr().out == "captured\\n"

    def test_quiet(): pass
"""


@pytest.mark.parametrize(
    "args",
    [
        "",
        "-v",
        "-s",
        "-s -v",
        "--capture=sys",
        "--capture=tee-sys -rA",
        "-o log_cli=true",
        "-o log_cli=true -s",
        "-o log_cli=true --log-cli-level=INFO --color=yes -v",
        "--log-cli-level=DEBUG -q",
        "-o log_cli=true -x",
        "--setup-show",
        "--setup-show -s",
        "--setup-show --color=yes -v",
    ],
)
def test_order(lab: Lab, args: str) -> None:
    lab.project(test_a=TALKS, test_b=TALKS)
    lab.same(args)


def test_order_in_machines_of_their_own(lab: Lab) -> None:
    lab.project(test_a=TALKS)
    lab.same("-s -v --smol-scope=test")


def test_standard_error_stands_where_it_was_written(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, where both streams are one."""
    monkeypatch.syspath_prepend(lab.path)  # pytest 8 loads what -p names before it looks at pythonpath
    lab.project(
        one_stream="""
            import os, sys
            def pytest_sessionstart():
                if "SMOL_GUEST" not in os.environ:
                    sys.stderr = sys.stdout
        """,
        test_a="""
            import sys
            def test_a():
                print("out")
                print("err", file=sys.stderr)
            def test_b(): sys.stderr.write("err of b\\n")
            def test_c(): print("out of c")
        """,
    )
    outcome = lab.same(*(f"-p one_stream {args}" for args in ("-s", "-s -v")))
    assert "err of b" in outcome.text


THREE = "def test_1(): pass\ndef test_2(): assert 0\ndef test_3(): pass\n"


def test_standard_error_between_tests_is_shown_with_s_only(lab: Lab) -> None:
    lab.project(
        conftest="""
            import sys
            def pytest_runtest_logfinish(nodeid): print("finished", nodeid, file=sys.stderr)
        """,
        test_a=THREE,
    )
    [(plain, smol)] = lab.both("")
    assert "finished test_a.py::test_1" in plain.err
    assert "finished" not in "\n".join(smol.err)
    assert normalised(smol.out) == normalised(plain.out)
    lab.same("-s")


WRITES = """
    import pytest

    @pytest.fixture(autouse=True)
    def reporter(request):
        reporter = request.config.pluginmanager.get_plugin("terminalreporter")
        capture = request.config.pluginmanager.get_plugin("capturemanager")
        with capture.global_and_fixture_disabled():
            reporter.write_line("a line of a fixture", bold=True)
            reporter.write("a part ")
            reporter.write_sep("-", "a title", red=True)
            reporter.section("a section")
            reporter.ensure_newline()
        yield
"""


@pytest.mark.parametrize("args", ["", "-v", "--color=yes", "-q --color=yes"])
def test_what_a_conftest_writes_to_the_reporter(lab: Lab, args: str) -> None:
    lab.project(conftest=WRITES, test_a=THREE)
    lab.same(args)


@pytest.mark.parametrize("args", ["", "-v", "-q --color=yes"])
def test_what_a_conftest_prints_when_a_test_is_over(lab: Lab, args: str) -> None:
    lab.project(conftest="def pytest_runtest_logfinish(nodeid): print('finished', nodeid)\n", test_a=THREE)
    if pytest.version_tuple >= (8, 3) or "-v" in args:
        lab.same(args)
        return
    # It writes the last percentage in the same hook, and first; with --smol the guest's are called first.
    [(plain, smol)] = lab.both(args)
    assert without_progress(smol) == without_progress(plain)


def without_progress(outcome: Outcome) -> str:
    return re.sub(r"\[100%\]|\s|\x1b\[\d*m", "", "\n".join(outcome.comparable()))


COLOURED = """
    import logging, pytest
    def test_differs():
        logging.getLogger("some").warning("a warning is logged in yellow")
        assert {"a": 1, "b": [1, 2]} == {"a": 1, "b": [1, 3]}
    def test_text(): assert "a\\nb\\nc" == "a\\nx\\nc"
    def test_group():
        raise RuntimeError("outer") from ValueError("inner")
    @pytest.mark.xfail(reason="known")
    def test_known(): assert 0
"""


@pytest.mark.parametrize("args", ["", "-vv", "--tb=short -rA", "--code-highlight=no", "-o log_cli=true"])
def test_colours_of_a_terminal(lab: Lab, monkeypatch: pytest.MonkeyPatch, args: str) -> None:
    """The host shows colours because it is a terminal, which a guest cannot see."""
    monkeypatch.setattr("_pytest._io.terminalwriter.should_do_markup", lambda file: True)
    lab.project(test_a=COLOURED)
    outcome = lab.same(args)
    assert "\x1b[31m" in outcome.text


def test_width_of_a_terminal(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS")
    monkeypatch.setattr("_pytest._io.terminalwriter.get_terminal_width", lambda: 117)
    lab.project(test_a=TALKS)
    outcome = lab.same("-o log_cli=true -v")
    assert 117 in map(len, outcome.out)


LONG = "def test_a(): assert list(range(300)) == list(range(1, 301))\ndef test_b(): assert 'x' * 900 == 'y'\n"


@pytest.mark.parametrize("args", ["", "-v", "-vv"])
@pytest.mark.parametrize("variable", ["", "CI", "BUILD_NUMBER"])
def test_truncation(lab: Lab, monkeypatch: pytest.MonkeyPatch, args: str, variable: str) -> None:
    monkeypatch.delenv("BUILD_NUMBER", raising=False)
    if variable:
        monkeypatch.setenv(variable, "1")
    lab.project(test_a=LONG)
    lab.same(args)


class AsciiStream(CaptureIO):
    """Stands in the place of a standard stream whose encoding is ASCII."""

    def __init__(self) -> None:
        io.TextIOWrapper.__init__(self, io.BytesIO(), "ascii", newline="", write_through=True)


def test_a_host_that_cannot_show_a_character(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Characters that the encoding of the host's standard output lacks are shown escaped."""
    lab.project(test_a="def test_a(): print('\\u20ac')\n")
    monkeypatch.setattr("_pytest.capture.CaptureIO", AsciiStream)
    outcome = lab.in_machines("-s")
    assert outcome.status == 0
    assert "\\u20ac" in outcome.text


END = """
    import pytest

    seen = []

    def pytest_report_header(config):
        return ["a line of the header", f"rootdir has {config.rootpath.name[:4]}"]

    def pytest_runtest_logreport(report):
        if report.when == "call":
            seen.append(f"{report.nodeid} {report.outcome}")

    def pytest_sessionfinish(session, exitstatus):
        print("finishing with", int(exitstatus), session.testsfailed, session.testscollected)

    def pytest_terminal_summary(terminalreporter, exitstatus, config):
        terminalreporter.write_sep("=", "the project's own summary", yellow=True)
        for each in seen:
            terminalreporter.write_line(each, green=True)
        counts = {key: len(found) for key, found in terminalreporter.stats.items() if key}
        terminalreporter.write_line(str(sorted(counts.items())))
        terminalreporter.line(f"{len(terminalreporter.stats.get('failed', []))} failed: {exitstatus!r}")
        for report in terminalreporter.stats.get("failed", []):
            terminalreporter.section(report.head_line)
            terminalreporter.line(report.longreprtext.splitlines()[-1])
        for warning in terminalreporter.stats.get("warnings", []):
            terminalreporter.line(f"{warning.nodeid}: {warning.message.splitlines()[0][-30:]}")

    def pytest_unconfigure(config):
        print("unconfigured")
"""

ENDED = """
    import warnings
    import pytest
    warnings.warn("while it is imported")
    def test_a(): warnings.warn("a warning of a test")
    def test_b(): assert 0
    def test_c(): pytest.skip("why not")
    @pytest.mark.xfail
    def test_d(): assert 0
    @pytest.fixture
    def broken(): raise ValueError("broken")
    def test_e(broken): pass
"""


@pytest.mark.parametrize(
    "args",
    [
        "",
        "-v",
        "-q",
        "-qq",
        "--color=yes",
        "--no-header",
        "--no-summary",
        "--collect-only",
        "-k nothing",
        "-x",
        "-p no:terminal",
        "--smol-scope=test",
        "--deselect test_a.py::test_b",
        "-rA --tb=line",
        "--lf",
    ],
)
def test_header_and_end_of_a_conftest(lab: Lab, args: str) -> None:
    lab.project(conftest=END, test_a=ENDED, test_b="def test_f(): pass\n")
    lab.same(args)


def test_end_after_collection_errors(lab: Lab) -> None:
    lab.project(conftest=END, test_a=ENDED, test_b="import no_such_module\n")
    lab.same("", "--continue-on-collection-errors")


def test_a_plugin_of_a_conftest(lab: Lab) -> None:
    lab.project(
        conftest="pytest_plugins = ['own_plugin']\n",
        own_plugin="""
            class Registered:
                def pytest_terminal_summary(self, terminalreporter):
                    terminalreporter.write_line("of an instance")
            def pytest_configure(config):
                config.pluginmanager.register(Registered())
            def pytest_report_header(): return "of a plugin"
            def pytest_terminal_summary(terminalreporter):
                terminalreporter.write_line("of a plugin")
        """,
        test_a="def test_a(): pass\n",
        pytest_ini="[pytest]\npythonpath = .\n",
    )
    outcome = lab.same("")
    assert outcome.text.count("of a plugin") == 2
    assert outcome.text.count("of an instance") == 1


def test_a_plugin_that_the_host_has_too_ends_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(lab.path)  # pytest 8 loads what -p names before it looks at pythonpath
    lab.project(
        shared_plugin="""
            def pytest_report_header(): return "of a plugin"
            def pytest_terminal_summary(terminalreporter):
                terminalreporter.write_line("of a plugin")
        """,
        test_a="def test_a(): pass\n",
    )
    outcome = lab.same("-p shared_plugin")
    assert outcome.text.count("of a plugin") == 2
    assert len(lab.record.forks) == 1


def test_a_conftest_sets_the_exit_status(lab: Lab) -> None:
    lab.project(
        conftest="def pytest_sessionfinish(session):\n    session.exitstatus = 42\n",
        test_a="def test_a(): assert 0\n",
    )
    assert lab.same("").status == 42


def test_a_conftest_exits_at_the_end(lab: Lab) -> None:
    lab.project(
        conftest="import pytest\ndef pytest_sessionfinish():\n    pytest.exit('at the end', returncode=9)\n",
        test_a="def test_a(): assert 0\n",
    )
    [(plain, smol)] = lab.both("")
    assert smol.status == plain.status == 9


@pytest.mark.parametrize(
    "deed", ["raise ValueError('at the end')", "import os; os._exit(0)", "import os; os.abort()"]
)
def test_an_end_that_goes_wrong_is_one_line(lab: Lab, deed: str) -> None:
    lab.project(conftest=f"def pytest_terminal_summary():\n    {deed}\n", test_a="def test_a(): pass\n")
    outcome = lab.smol("--smol")
    assert outcome.status == 0
    [line] = [line for line in outcome.out if "of the project's own plugins failed" in line]
    assert line.startswith("smol: pytest_terminal_summary")
    assert "1 passed" in outcome.out[-1]
    assert not any("INTERNAL" in line for line in outcome.out)


def test_without_an_end_of_its_own_no_machine_is_made_for_it(lab: Lab) -> None:
    lab.project(conftest="def pytest_report_header(): return 'header'\n", test_a="def test_a(): pass\n")
    lab.same("")
    assert len(lab.record.forks) == 1


def test_cost_is_one_line_with_v(lab: Lab) -> None:
    lab.project(test_a="def test_a(): pass\n", test_b="def test_b(): pass\n")
    outcome = lab.smol("--smol", "-v")
    [line] = [line for line in outcome.out if line.startswith("smol: 2 forks, p50 ")]
    assert line.endswith(" s in guests")
    assert "forks" not in lab.smol("--smol").text


def test_where_tests_ran_is_told_with_vv(lab: Lab) -> None:
    lab.project(
        test_a="""
            import pytest
            @pytest.mark.smol
            def test_away(): pass
            @pytest.mark.smol
            def test_fails(): assert 0
            def test_on_the_host(): pass
        """
    )
    verbose = lab.smol("-vv").text
    assert "test_away PASSED in VM" in verbose
    assert "test_fails FAILED in VM" in verbose
    assert "test_on_the_host PASSED on host" in verbose
    assert "in VM" not in lab.smol("-v").text
    assert "in VM" not in lab.smol("--smol", "-vv").text


STATUS = """
    import pytest

    def pytest_report_teststatus(report, config):
        if report.when == "call" and report.passed:
            return "fine", "+", ("FINE", {"cyan": True})
        if report.when == "call" and report.failed:
            return "failed", "-", "NOT FINE"

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(item, call):
        report = yield
        if report.when == "call":
            report.sections.append(("Added", "by a conftest"))
            if "turns" in item.name:
                report.outcome, report.longrepr = "failed", "turned by a conftest"
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(report):
        if report.failed and not isinstance(report.longrepr, str):
            report.longrepr = "shortened by a conftest"

    def pytest_make_parametrize_id(config, val, argname):
        return f"{argname}={val}"

    def pytest_itemcollected(item):
        if "renamed" in item.name:
            item._nodeid = item.nodeid.replace("renamed", "other")
"""


@pytest.mark.parametrize("args", ["", "-v", "-v --color=yes", "-rA"])
def test_a_conftest_changes_reports_and_ids(lab: Lab, args: str) -> None:
    lab.project(
        conftest=STATUS,
        test_a="""
            import pytest
            @pytest.mark.parametrize("n", [1, 2])
            def test_n(n): assert n == 1
            def test_turns(): pass
            def test_renamed(): pass
        """,
    )
    lab.same(args)
