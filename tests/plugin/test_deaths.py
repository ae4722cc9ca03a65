"""Guests that die, hang or stop: each death is one failed test, and the run goes on.

What dies is a process that stands for a guest; ``kill_machine`` kills its
supervisor too, which is the end of the whole machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest

from pytest_smol.pool.admission import Ledger
from pytest_smol.protocol.wire import Message
from tests.plugin import fakes
from tests.plugin.lab import Lab, letters

#: Deaths, with what the report has to say. Nothing here touches anything but the guest's two processes.
HEAD = """
    import ctypes, os, signal, sys, threading, time
    import pytest
    assert "SMOL_GUEST" in os.environ

    def exit_status(): os._exit(3)
    def killed(): os.kill(os.getpid(), signal.SIGKILL)
    def segfault(): ctypes.string_at(0)
    def abort(): os.abort()
    def kill_machine():
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
"""

CAUSES = {
    "exit_status": "the test process exited with status 3 before the test was over",
    "killed": "the test process was killed by SIGKILL",
    "segfault": "the test process was killed by SIGSEGV",
    "abort": "the test process was killed by SIGABRT",
    "kill_machine": "QEMU closed its connections",
}

PLACES = """
    @pytest.fixture
    def in_setup(): die()

    @pytest.fixture
    def in_teardown():
        yield
        die()

    def test_before(): pass
    def test_setup(in_setup): pass
    def test_between(): pass
    def test_call(): die()
    def test_teardown(in_teardown): pass
    def test_after(): pass
"""


@pytest.mark.parametrize("death", CAUSES)
@pytest.mark.parametrize("scope", ["module", "test"])
def test_death_in_each_phase(lab: Lab, death: str, scope: str) -> None:
    lab.project(test_a=HEAD + f"    die = {death}\n" + PLACES)
    outcome = lab.smol("--smol", f"--smol-scope={scope}", "-v", "--junitxml=result.xml")
    assert outcome.status == 1
    assert letters(outcome.text.partition("short test summary")[0]) == {
        "test_before": ["PASSED"],
        "test_setup": ["ERROR"],
        "test_between": ["PASSED"],
        "test_call": ["FAILED"],
        "test_teardown": ["PASSED", "ERROR"],
        "test_after": ["PASSED"],
    }
    assert "1 failed, 4 passed, 2 errors" in outcome.text
    assert outcome.text.count(CAUSES[death]) >= 3
    assert "INTERNAL" not in outcome.text
    xml = outcome.files["result.xml"]
    assert xml.count("<testcase") == 6
    assert 'errors="2" failures="1"' in xml


def test_each_death_is_followed_by_a_fresh_fork(lab: Lab) -> None:
    lab.project(test_a=HEAD + "    die = killed\n" + PLACES)
    lab.smol("--smol")
    names = [[nodeid.rpartition("::")[2] for nodeid in fork] for fork in lab.record.ran]
    assert names == [
        ["test_before", "test_setup"],
        ["test_between", "test_call"],
        ["test_teardown"],
        ["test_after"],
    ]


def test_the_last_words_are_in_the_report(lab: Lab) -> None:
    lab.project(
        test_a=HEAD
        + """
    def test_says():
        import faulthandler
        os.write(2, b"captured as it is on fd 2")
        segfault()
        """
    )
    outcome = lab.smol("--smol")
    assert "Captured guest stderr" in outcome.text
    assert "Fatal Python error: Segmentation fault" in outcome.text
    assert "in test_says" in outcome.text


def test_death_of_a_session_fixture_after_the_last_test(lab: Lab) -> None:
    lab.project(
        test_a=HEAD
        + """
    @pytest.fixture(scope="session", autouse=True)
    def of_session():
        yield
        killed()
    def test_1(): pass
    def test_2(): pass
        """,
        test_b="def test_3(): pass\n",
    )
    outcome = lab.smol("--smol", "-v")
    assert "3 passed, 1 error" in outcome.text
    assert "ERROR at teardown of test_2" in outcome.text


@pytest.mark.parametrize(
    ("death", "cause"), [("os._exit(3)", "exited with status 3"), ("os.kill(os.getpid(), 9)", "SIGKILL")]
)
def test_death_while_a_module_is_imported(lab: Lab, death: str, cause: str) -> None:
    lab.project(
        test_a="def test_fine(): pass\n",
        test_b=f"import os\nassert 'SMOL_GUEST' in os.environ\n{death}\n",
        test_c="def test_fine(): pass\n",
    )
    outcome = lab.smol("--smol")
    assert outcome.status == 2
    assert "1 error" in outcome.text
    assert "ERROR collecting test_b.py" in outcome.text
    assert cause in outcome.text
    assert "INTERNAL" not in outcome.text


def test_death_while_a_conftest_is_loaded(lab: Lab) -> None:
    lab.project(
        conftest="import os\nassert 'SMOL_GUEST' in os.environ\nos._exit(3)\n", test_a="def test_a(): pass\n"
    )
    outcome = lab.smol("--smol")
    assert outcome.status == 2
    assert "exited with status 3" in outcome.text
    assert "INTERNAL" not in outcome.text


def test_death_of_a_marked_tests_session_is_an_error_of_each_test(lab: Lab) -> None:
    lab.project(
        test_a="""
            import os, pytest
            if "SMOL_GUEST" in os.environ:
                os._exit(3)
            @pytest.mark.smol
            def test_1(): open("it ran", "w")
            @pytest.mark.smol
            def test_2(): open("it ran", "w")
            def test_on_the_host(): pass
        """
    )
    outcome = lab.smol("-v")
    assert "1 passed, 2 errors" in outcome.text
    assert outcome.text.count("exited with status 3") >= 2
    assert not (lab.path / "it ran").exists()


# --- time limits ---------------------------------------------------------------------------------

HANGING = """
    import time, pytest
    def test_before(): pass
    {mark}
    def test_hangs():
        while True: time.sleep(0.1)
    def test_after(): pass
"""


@pytest.mark.parametrize(
    ("mark", "args"),
    [("@pytest.mark.smol(timeout=2)", ["--smol"]), ("# no mark", ["--smol", "--smol-timeout=2"])],
)
def test_a_test_that_hangs(lab: Lab, mark: str, args: list[str]) -> None:
    lab.project(test_a=HANGING.format(mark=mark))
    outcome = lab.smol(*args, "--smol-scope=module")
    assert "1 failed, 2 passed" in outcome.text
    assert "the test was not over after 2 s" in outcome.text
    assert "in test_hangs" in outcome.text  # where it hung
    assert "hint: " in outcome.text
    assert len(lab.record.forks) == 2


def test_no_room_for_any_machine(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fakes, "Ledger", partial(Ledger, available=lambda: 0))
    lab.project(test_a="def test_1(): pass\ndef test_2(): pass")
    outcome = lab.smol("--smol", "--smol-scope=test")
    assert outcome.status == 1
    assert "2 errors" in outcome.text
    assert "a guest of 512 MiB needs more memory than the 0 MiB that are available" in outcome.text
    assert "hint: free some memory" in outcome.text
    assert "INTERNALERROR" not in outcome.text
    assert lab.record.forks == []


def test_a_guest_that_hangs_and_ignores_the_abort(lab: Lab) -> None:
    lab.project(
        test_a="""
            import ctypes, signal, time
            def test_hangs():
                signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGABRT])
                while True: time.sleep(0.1)
            def test_after(): pass
        """
    )
    outcome = lab.smol("--smol", "--smol-timeout=2")
    assert "1 failed, 1 passed" in outcome.text


ENDLESS = {
    "a loop at import": {"test_a": "while True: pass\n"},
    "a loop at import that ignores the abort": {
        "test_a": "from signal import *\npthread_sigmask(SIG_BLOCK, [SIGABRT])\nwhile True: pass\n"
    },
    "a loop in a hook of collection": {
        "test_a": "def test_a(): pass\n",
        "conftest": "def pytest_pycollect_makeitem():\n    while True: pass\n",
    },
    "a loop when all are collected": {
        "test_a": "def test_a(): pass\n",
        "conftest": "def pytest_collection_modifyitems():\n    while True: pass\n",
    },
}


@pytest.mark.parametrize("files", ENDLESS.values(), ids=ENDLESS.keys())
def test_collection_without_end(lab: Lab, files: dict[str, str]) -> None:
    """It has the time limit of a test for each module, however long all of it may take."""
    lab.project(**files)
    outcome = lab.smol("--smol", "--smol-timeout=2")
    assert outcome.status == pytest.ExitCode.INTERRUPTED
    assert "collection was not over in time (2 s for each module)" in outcome.text
    assert "raise --smol-timeout" in outcome.text
    assert "1 error" in outcome.text
    assert not lab.record.forks


# --- stops ---------------------------------------------------------------------------------------


STOPS = {
    "pytest.exit('enough')": 2,
    "pytest.exit('enough', returncode=9)": 9,
    "raise KeyboardInterrupt('enough')": 2,
    "request.session.shouldstop = 'enough'": 2,
    "request.session.shouldfail = 'enough'": 1,
}
STOP_PLACES = ("call", "setup", "last")
STOP_SCOPES = ("test", "module", "session")


@pytest.mark.parametrize(
    ("where", "stop", "status", "scope"),
    [
        # Any two of where, stop and scope meet.
        (where, stop, status, STOP_SCOPES[(number + STOP_PLACES.index(where)) % 3])
        for number, (stop, status) in enumerate(STOPS.items())
        for where in STOP_PLACES
    ],
)
def test_a_guest_that_stops_stops_the_run(lab: Lab, where: str, stop: str, status: int, scope: str) -> None:
    body = """
        import pytest
        @pytest.fixture
        def stops(request):
            {setup}
        def test_1(): pass
        {before}
        def test_stops(request{fixture}): {call}
        {after}
    """
    other = "def test_other(): pass"
    lab.project(
        test_a=body.format(
            setup=stop if where == "setup" else "pass",
            fixture=", stops" if where == "setup" else "",
            call="pass" if where == "setup" else stop,
            before=other if where == "last" else "",
            after="" if where == "last" else other,
        ),
        test_b="def test_never(): open('it ran', 'w')\n",
    )
    plain, smol = lab.both(f"--smol-scope={scope}")[0]
    assert plain.status == smol.status == status
    assert "enough" in smol.text
    assert counts(smol.out) == counts(plain.out)
    assert not (lab.path / "it ran").exists()
    assert "INTERNAL" not in smol.text


def counts(out: Sequence[str]) -> str:
    """The last line, without its time."""
    return out[-1].strip("= ").partition(" in ")[0]


@pytest.mark.parametrize("stop", ["shouldstop", "shouldfail"])
def test_a_plugin_of_the_project_that_stops_after_a_report(lab: Lab, stop: str) -> None:
    lab.project(
        conftest=f"""
            import pytest
            class Stops:
                def pytest_runtest_logreport(self, report):
                    if report.when == "teardown" and "test_2" in report.nodeid:
                        self.session.{stop} = "two are enough"
                def pytest_sessionstart(self, session): self.session = session
            def pytest_configure(config): config.pluginmanager.register(Stops())
        """,
        test_a="def test_1(): pass\ndef test_2(): pass\ndef test_3(): pass\n",
        test_b="def test_4(): pass\n",
    )
    plain, smol = lab.both("-v")[0]
    assert (smol.status, counts(smol.out)) == (plain.status, counts(plain.out))
    assert "two are enough" in smol.text


def test_a_real_interrupt_ends_the_run_as_in_a_plain_run(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.plugin.fakes import FakeMachine

    def interrupted(self: FakeMachine, deadline: float) -> Message:
        raise KeyboardInterrupt

    lab.project(test_a="def test_1(): pass\ndef test_2(): pass\n")
    monkeypatch.setattr(FakeMachine, "receive", interrupted)
    outcome = lab.smol("--smol")
    assert outcome.status == 2
    assert not lab.record.forks
    assert "INTERNAL" not in outcome.text
