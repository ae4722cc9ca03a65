"""pytest-xdist with tests in machines."""

from __future__ import annotations

import re
import signal
import subprocess
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.plugin.lab import Outcome, dedented
from tests.thirdparty.bench import Bench
from tests.vm.dialogue import Dialogue
from tests.vm.project import Project, machines, wait_until

pytestmark = pytest.mark.vm

XDIST = ("xdist",)

SUITE = """
    import os
    import uuid
    import warnings

    import pytest

    IMPORTED = uuid.uuid4().hex

    class OwnWarning(UserWarning):
        pass

    @pytest.fixture(scope="module")
    def shared():
        yield "shared"

    @pytest.fixture
    def broken():
        yield
        raise ValueError("teardown")

    @pytest.mark.parametrize("number", range(3))
    def test_passes(number, shared, record_property):
        record_property("imported", IMPORTED)

    def test_fails(shared):
        print("output")
        assert {"a": 1} == {"a": 2}

    @pytest.mark.skip(reason="no")
    def test_skips(): pass

    @pytest.mark.xfail
    def test_xfails(): assert 0

    def test_teardown(broken): pass

    def test_warns(): warnings.warn(OwnWarning("own"))

    class TestClass:
        def test_worker(self, worker_id, testrun_uid, request, record_property):
            assert worker_id == request.config.workerinput["workerid"] == os.environ["PYTEST_XDIST_WORKER"]
            assert testrun_uid == os.environ["PYTEST_XDIST_TESTRUNUID"]
            assert os.environ["PYTEST_XDIST_WORKER_COUNT"] == str(request.config.workerinput["workercount"])

        def test_subtests(self, subtests):
            with subtests.test(msg="one", value=1):
                assert 0
            with subtests.test(msg="two"):
                pass
"""

OTHER = """
    def test_other(): pass
    def test_another(): assert not "text"
"""


def cases(outcome: Outcome) -> Counter[str]:
    """The test cases of the junit report, whatever their order: names, verdicts and messages."""
    found: Counter[str] = Counter()
    for case in ElementTree.fromstring(outcome.files["junit.xml"]).iter("testcase"):
        verdicts = [(child.tag, child.get("message")) for child in case if child.tag != "properties"]
        found[f"{case.get('classname')} {case.get('name')} {sorted(verdicts, key=str)}"] += 1
    return found


def verdicts(outcome: Outcome) -> list[str]:
    """The lines of the summaries, whatever their order, without times and workers' names."""
    lines = [re.sub(r"gw\d+|in \d.*", "", line) for line in outcome.out]
    return sorted(
        line for line in lines if line.startswith(("FAILED", "ERROR", "=== ", "  ")) or "own" in line
    )


def imports(outcome: Outcome) -> set[str]:
    """What distinguishes the imports that tests saw: machines of one snapshot saw the same."""
    return set(re.findall(r'name="imported" value="(\w+)"', outcome.files["junit.xml"]))


def assert_same(plain: Outcome, smol: Outcome) -> None:
    assert smol.status == plain.status, str(smol)
    assert cases(smol) == cases(plain)
    assert verdicts(smol) == verdicts(plain)


@pytest.mark.parametrize(
    "run",
    [
        "-n2 --dist=loadscope",
        "-n2 --dist=worksteal",
        "-nauto --maxprocesses=1 --dist=loadfile",
        "--tx=2*popen --dist=each",
    ],
)
def test_every_way_of_distribution_gives_what_a_plain_run_gives(bench: Bench, run: str) -> None:
    bench.write("test_suite.py", SUITE)
    bench.write("test_other.py", OTHER)
    ((plain, smol),) = bench.both(f"{run} --junitxml=junit.xml", plugins=XDIST)
    assert_same(plain, smol)
    assert len(imports(smol)) == 1, "the workers did not share one snapshot"


def test_options_of_the_ini_file_distribute_and_guests_do_not(bench: Bench) -> None:
    """Also the usual way of distribution."""
    bench.write("pytest.ini", "[pytest]\naddopts = -n 2 -p xdist --junitxml=junit.xml\n")
    bench.write("test_suite.py", SUITE)
    bench.write("test_other.py", OTHER)
    ((plain, smol),) = bench.both("", plugins=XDIST)
    assert_same(plain, smol)
    assert len(imports(smol)) == 1, "the workers did not share one snapshot"


def test_modules_that_are_collected_apart_are_distributed_alike(bench: Bench) -> None:
    bench.write("pytest.ini", "[pytest]\nsmol_collect = module\n")
    bench.write("test_suite.py", SUITE)
    bench.write("test_other.py", OTHER)
    ((plain, smol),) = bench.both("-n2 --junitxml=junit.xml", plugins=XDIST)
    assert_same(plain, smol)


SCREEN = """
    import os

    def test_screen(request):
        writer = request.config.get_terminal_writer()
        assert [] == [os.environ.get("COLUMNS"), request.config.option.color, writer.hasmarkup]
"""


def on_a_terminal(bench: Bench, *args: str) -> list[str]:
    """The lines of pytest's own about an assertion, from a run on a terminal of 132 columns."""
    with Dialogue(bench.command(*args), bench.root, bench.environment(XDIST, COLUMNS=None)) as dialogue:
        dialogue.resize(50, 132)
        dialogue.end()
    return [line for line in dialogue.text.splitlines() if re.match(r"(\x1b\[[0-9;]*m)*E  ", line)]


@pytest.mark.parametrize("args", [(), ("--color=yes",)], ids=["auto", "yes"])
def test_colours_and_width_are_those_of_a_worker(bench: Bench, args: tuple[str, ...]) -> None:
    """A worker is on no terminal, but readline tells what a controller starts how wide its own is."""
    bench.write("test_screen.py", SCREEN)
    plain = on_a_terminal(bench, "-n2", *args)
    assert "132" in "".join(plain)
    assert on_a_terminal(bench, "-n2", "--smol", *args) == plain
    bench.assert_in_machines(" ".join(("-n2", "--smol", *args)))


def test_without_workers_it_is_as_without_pytest_xdist(bench: Bench) -> None:
    bench.write("test_other.py", OTHER)
    bench.same("-v -n0", plugins=XDIST)


MARKED = """
    import os

    import conftest
    import pytest

    def in_machine():
        return os.uname().nodename.startswith("smol-")

    @pytest.fixture(scope="module")
    def fixture():
        return in_machine()

    def test_on_host(fixture):
        assert not in_machine() and not fixture

    @pytest.mark.smol
    def test_machine(fixture, request, worker_id, record_property):
        assert in_machine() and fixture
        record_property("imported", conftest.IMPORTED)
        assert request.config.workerinput["database"] == f"of {worker_id}"

    def test_on_host_again(fixture):
        assert not in_machine() and not fixture

    @pytest.mark.smol
    class TestClass:
        count = 0
        def test_first(self): TestClass.count += 1
        def test_second(self): assert in_machine()
"""


def test_only_marked_tests_of_a_worker_run_in_machines(bench: Bench) -> None:
    bench.write("test_marked.py", MARKED)
    bench.write("test_more.py", MARKED)
    bench.write(
        "conftest.py",
        """
        import uuid
        IMPORTED = uuid.uuid4().hex
        def pytest_configure_node(node):
            node.workerinput["database"] = f"of {node.gateway.id}"
        """,
    )
    ran = bench.run("-n2", "-v", "--junitxml=junit.xml", plugins=XDIST)
    assert ran.status == 0, str(ran)
    assert ran.text.count("PASSED") == 10
    tests = ("test_machine", "TestClass::test_first", "TestClass::test_second")
    assert bench.ran_in_machines() == {
        f"test_{file}.py::{test}" for file in ("marked", "more") for test in tests
    }
    assert len(imports(ran)) == 1, "the workers did not share one snapshot"


def test_a_host_that_cannot_is_one_usage_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.write("test_marked.py", "import pytest\n\n@pytest.mark.smol\ndef test_it(): pass\n")
    monkeypatch.setenv("SMOL_QEMU", "/no/qemu")
    for args in ("--smol", "-v"):
        ran = bench.run("-n2", args, plugins=XDIST)
        assert ran.status == 4, str(ran)
        assert "\n".join(ran.err).count("/no/qemu is not installed") == 1
        assert "INTERNALERROR" not in ran.text


HOSTILE = r"""
    import warnings

    import pytest

    def test_output(): print("\udc80")
    def test_message(): assert "\udc80" == "x"
    def test_error(): raise ValueError("\udcff")
    def test_skip(): pytest.skip("\udc80")
    def test_warning():
        for name in ("__path__", "stand_in", "clean", "", "a b"):
            warnings.warn(type(name, (Warning,), {})("\udc80"))
"""


def test_a_guest_sends_nothing_that_kills_the_controller(bench: Bench) -> None:
    bench.write("test_hostile.py", HOSTILE)
    ran = bench.smol("-n2", "-v", plugins=XDIST)
    assert ran.status == 1, str(ran)
    assert "2 failed, 2 passed, 1 skipped" in ran.text
    assert "INTERNALERROR" not in ran.text


def test_an_exit_ends_the_run_with_its_code(bench: Bench) -> None:
    bench.write(
        "test_exit.py",
        """
        import pytest
        def test_exits(): pytest.exit("enough", returncode=7)
        """,
    )
    ran = bench.smol("-n2", plugins=XDIST)
    assert ran.status == 7, str(ran)
    assert "Exit: enough" in ran.text
    assert "INTERNALERROR" not in ran.text


def test_what_is_wrong_with_the_project_ends_the_run_as_in_a_plain_run(bench: Bench) -> None:
    bench.write("test_broken.py", "import nothing_of_that_name")
    bench.write("test_other.py", OTHER)
    for run in ("-n2 --junitxml=junit.xml", "-n2 -x --junitxml=junit.xml"):
        ((plain, smol),) = bench.both(run, plugins=XDIST, runs_tests="-x" not in run)
        assert_same(plain, smol)
    bench.write("conftest.py", "raise RuntimeError('broken')")
    ((plain, smol),) = bench.both("-n2", plugins=XDIST, runs_tests=False)
    assert smol.status == plain.status == 4


def test_a_machine_that_dies_while_it_collects_is_one_error(bench: Bench) -> None:
    bench.write("test_dies.py", "import os; os._exit(9)")
    ran = bench.smol("-n2", plugins=XDIST, runs_tests=False)
    assert ran.status == 1, str(ran)
    assert "1 error in" in ran.text
    assert "the test process exited with status 9" in ran.text


def test_what_the_project_adds_to_the_end_is_shown_once(bench: Bench) -> None:
    bench.write("test_other.py", OTHER)
    bench.write(
        "conftest.py",
        """
        def pytest_report_header(): return "own header"
        def pytest_terminal_summary(terminalreporter):
            terminalreporter.write_line(f"own summary of {len(terminalreporter.stats['failed'])}")
        """,
    )
    ran = bench.smol("-n2", plugins=XDIST)
    assert [line for line in ran.out if "own" in line] == ["own header", "own summary of 1"]


def test_what_is_hidden_from_tests_is_said_once(bench: Bench) -> None:
    bench.write(".env", "A=b")
    bench.write("test_env.py", "import os\ndef test(): assert not os.path.exists('.env')")
    ran = bench.smol("-n2", plugins=XDIST)
    assert ran.status == 0, str(ran)
    assert ran.text.count("smol: hidden from tests: .env (smol_show") == 1


def test_no_debugger_hangs(bench: Bench) -> None:
    bench.write("test_debugger.py", "def test_stops(): breakpoint()\ndef test_asks(): input()")
    ran = bench.smol("-n2", plugins=XDIST)
    assert ran.status == 1, str(ran)
    assert "2 failed" in ran.text
    refused = bench.smol("-n2", "--pdb", plugins=XDIST, runs_tests=False)
    assert (refused.status, "--pdb is incompatible" in "\n".join(refused.err)) == (4, True)


SLOW = """
    import time

    import pytest

    @pytest.mark.parametrize("number", range(6))
    def test_takes_its_time(number):
        time.sleep(LONG if number in (1, 2) else 0)
"""


@pytest.fixture
def project(tmp_path: Path, plugins_python: Path) -> Project:
    made = Project(tmp_path, str(plugins_python), env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})
    made.write("pytest.ini", "[pytest]\naddopts = -p no:cacheprovider -p smol -p xdist\n")
    return made


def left_behind(project: Project) -> list[str]:
    """What is left of a run but the directories of pytest's tmp_path, which a plain run leaves too."""
    return [each for each in project.left_behind() if not Path(each).name.startswith("pytest-of-")]


def workers_of(pid: int) -> list[int]:
    """The processes that ``pid`` started, first come first."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def test_a_worker_that_is_killed_is_replaced_and_leaves_nothing(project: Project) -> None:
    project.write("test_slow.py", dedented(SLOW.replace("LONG", "5")))
    run = project.start("-n2", "--smol", "-v")
    run.wait_for("test_takes_its_time[1]")  # or else the worker dies with a test that is over
    wait_until(lambda: len(machines(project.home)) == 2, "a machine in each worker")
    subprocess.run(["kill", "-9", str(workers_of(run.process.pid)[0])], check=True)
    result = run.result()
    assert result.status == 1, result.output
    assert "replacing crashed worker" in result.stdout
    assert "1 failed, 5 passed" in result.stdout
    assert left_behind(project) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 2), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_and_leaves_nothing(
    project: Project, number: signal.Signals, status: int
) -> None:
    project.write("test_slow.py", dedented(SLOW.replace("LONG", "600")))
    run = project.start("-n2", "--smol", "-v")
    run.wait_for("PASSED")
    run.send(number)
    result = run.result()
    assert result.status == status, result.output
    assert "INTERNALERROR" not in result.output
    wait_until(lambda: not machines(project.home), "the end of all machines")
    assert left_behind(project) == []
