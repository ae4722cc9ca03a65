"""A project with a bit of everything looks the same plain and in real machines."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

import pytest

from tests.evidence.boot_ids import host_boot_id, outside_machines
from tests.plugin.lab import cases, difference, normalised
from tests.vm.project import Project, Result

pytestmark = pytest.mark.vm

FILES = {
    "pytest.ini": """
        [pytest]
        addopts = -p no:cacheprovider --doctest-modules --strict-markers
        pythonpath = src
        markers = slow
        filterwarnings = error::FutureWarning
    """,
    "src/package/__init__.py": '''
        def double(n):
            """
            >>> double(2)
            4
            >>> double(3)
            7
            """
            return 2 * n
    ''',
    "conftest.py": """
        from pathlib import Path
        import pytest

        def pytest_addoption(parser):
            parser.addoption("--name", default="nobody")

        @pytest.hookimpl(tryfirst=True)
        def pytest_runtest_setup(item):
            boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            item.user_properties.append(("boot id", boot_id))

        def pytest_report_header(config):
            return f"the name is {config.getoption('name')}"

        def pytest_assertrepr_compare(config, op, left, right):
            if isinstance(left, complex):
                return ["complex numbers differ", f"by {abs(left - right)}"]

        def pytest_report_teststatus(report):
            if report.when == "call" and report.passed and report.nodeid.endswith("test_status"):
                return "fine", "+", ("FINE", {"cyan": True})

        @pytest.fixture(scope="session")
        def of_session(): return object()

        passed = []

        def pytest_runtest_logreport(report):
            if report.when == "call" and report.passed:
                passed.append(report.nodeid)

        def pytest_terminal_summary(terminalreporter, exitstatus):
            terminalreporter.section("the project's summary", yellow=True)
            terminalreporter.write_line(f"{len(passed)} passed, {exitstatus!r}")
    """,
    "tests/test_outcomes.py": """
        import logging, os, subprocess, sys, unittest, warnings
        import pytest
        from package import double

        @pytest.fixture(scope="module", params=["a", "b"])
        def letter(request, of_session): return request.param

        @pytest.fixture
        def breaks():
            yield
            print("in teardown")
            raise OSError("teardown")

        def test_status(): assert double(2) == 4
        def test_letter(letter): assert letter == "a"
        def test_differs(): assert {"a": 1} == {"a": 2}
        def test_complex(): assert 1j == 2j
        def test_breaks(breaks): print("said", file=sys.stderr); assert 0
        def test_logs():
            logging.getLogger("some").warning("logged")
            raise ValueError("outer") from KeyError("inner")
        def test_warns(): warnings.warn("a warning")
        def test_warns_error(): warnings.warn("an error", FutureWarning)
        @pytest.mark.skipif("sys.platform == 'linux'", reason="by condition")
        def test_skips(): pass
        @pytest.mark.xfail(reason="known", strict=True)
        def test_xfails(n=1): assert n == 2
        @pytest.mark.xfail(strict=True)
        def test_xpasses(): pass
        def test_records(record_property, record_testsuite_property):
            record_property("object", [1])
            record_testsuite_property("suite", "value")
        def test_prints(capfd):
            print("first", flush=True)
            os.write(1, b"straight\\n")
            subprocess.run(["echo", "of a child"])
            with capfd.disabled():
                print("seen by all", flush=True)
        def test_unicode(): assert "zürich €" == "zürich", "\\udc80"

        class Cases(unittest.TestCase):
            def test_equal(self): self.assertEqual([1], [2])
            def test_passes(self): pass

        def test_subtests(subtests):
            for n in range(3):
                with subtests.test("a number", n=n): assert n != 1
    """,
    "tests/zz_more/test_more.py": """
        import pytest
        @pytest.mark.slow
        @pytest.mark.parametrize("n", range(4), ids=lambda n: f"n{n}")
        def test_n(n): assert n != 2
        class TestState:
            def test_sys_exit(self): raise SystemExit(3)
            def test_exits(self): pytest.exit("enough", returncode=7)
        def test_never(): pass
    """,
}


def boot_ids(result: Result) -> dict[str, list[str]]:
    """The boot id of the kernel on which each test ran.

    junit's report has a case without a name for the test that called pytest.exit, plain as well.
    """
    return {
        name: [value for key, value in case.properties.items() if key == "boot id"]
        for name, case in result.cases.items()
        if name
    }


def without_boot_ids(junit: str) -> list[str]:
    """The test cases of a report, without the property that differs from kernel to kernel."""
    return [re.sub(r'(name="boot id" value=)"[^"]*"', r'\1"ID"', line) for line in cases(junit)]


def shown(result: Result) -> list[str]:
    """What a user sees of a run."""
    lines: Iterable[str] = normalised(result.stdout.splitlines())
    kept = [line for line in lines if "generated xml file" not in line]
    return [f"exit status {result.status}", *kept, "stderr:", *normalised(result.stderr.splitlines())]


#: Command lines, and how many modules with tests each has.
RUNS = {
    ("-v", "--name=me"): 3,
    ("--color=yes", "-rA", "--tb=short"): 3,
    ("-s", "-o", "log_cli=true", "--color=yes", "--maxfail=30"): 3,
    ("--setup-show", "-q", "--deselect=tests/zz_more", "tests"): 1,
}


@pytest.mark.kvm
@pytest.mark.kvm_long
@pytest.mark.parametrize("args", RUNS, ids=" ".join)
def test_all_a_user_sees(project: Project, args: tuple[str, ...]) -> None:
    for name, text in FILES.items():
        project.write(name, textwrap.dedent(text).lstrip())
    environment = {"COLUMNS": "90", "PYTHONHASHSEED": "0"}
    plain = project.run(*args, **environment)
    assert plain.status in (1, 7), plain.output
    host = host_boot_id()
    assert {boot_id for ids in boot_ids(plain).values() for boot_id in ids} == {host}
    for scope in ("module", "test"):
        smol = project.run("--smol", f"--smol-scope={scope}", *args, **environment)
        wrong = outside_machines(boot_ids(smol), host)
        assert not wrong, wrong
        kernels = {boot_id for ids in boot_ids(smol).values() for boot_id in ids}
        assert len(kernels) == (RUNS[args] if scope == "module" else len(boot_ids(smol)))
        if scope == "test" and "--setup-show" in args:
            continue  # each machine sets its own fixtures up
        differs = difference(shown(plain), shown(smol))
        assert not differs, differs
        differs = difference(without_boot_ids(plain.junit), without_boot_ids(smol.junit))
        assert not differs, differs
    assert not project.left_behind()
