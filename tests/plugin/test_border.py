"""What runs on which side of the border."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.plugin.lab import Lab

#: At the head of every file of a project: notes on which side it is imported.
NOTE = """
import json, os
def note(what):
    with open(os.environ["HOME"] + "/notes", "a") as file:
        file.write(json.dumps([what, os.getpid(), "SMOL_GUEST" in os.environ]) + "\\n")
note(__file__.rpartition("/")[2])
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lab: Lab) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def notes(home: Path) -> list[tuple[str, bool]]:
    """What was noted, and whether on the host; a guest must say of itself that it is one."""
    path = home / "notes"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for _, pid, in_guest in rows:
        assert in_guest == (pid != os.getpid())
    return [(what, pid == os.getpid()) for what, pid, _ in rows]


PROJECT = {
    "pytest_ini": "[pytest]\npythonpath = .\n",
    "conftest": NOTE + "import pytest\n@pytest.fixture\ndef helped(): note('fixture'); return 1\n",
    "helper": NOTE,
    "test_a": NOTE + "import helper\ndef test_a(helped): note('test_a')\n",
    "sub__conftest": NOTE.replace("note(__file", "note('sub/' + __file"),
    "sub__test_b": NOTE + "def test_b(): note('test_b')\n",
}


@pytest.mark.parametrize(
    "args",
    [
        "--smol",
        "--smol --collect-only",
        "--smol sub/test_b.py",
        "--smol test_a.py::test_a",
        "--smol --lf",
        "--smol --nf --durations=3 --junitxml=x.xml",
        "--smol --doctest-modules",
        "--smol --pyargs helper",
        "--smol --fixtures",
        "--smol --fixtures-per-test",
        "--smol --cache-show",
        "--smol --markers",
        "--smol --setup-plan",
        "--smol -p no:cacheprovider --import-mode=importlib",
        "--smol --confcutdir=sub",
        "--smol --no-such-option",
        "--smol no_such_file.py",
    ],
)
def test_with_smol_no_code_of_the_project_runs_on_the_host(lab: Lab, home: Path, args: str) -> None:
    lab.project(**PROJECT)
    lab.smol(*args.split())
    assert not [what for what, on_host in notes(home) if on_host]


def test_with_smol_all_of_it_runs_in_guests(lab: Lab, home: Path) -> None:
    lab.project(**PROJECT)
    outcome = lab.smol("--smol")
    assert outcome.status == 0, outcome
    names = [
        "conftest.py",
        "fixture",
        "helper.py",
        "sub/conftest.py",
        "test_a",
        "test_a.py",
        "test_b",
        "test_b.py",
    ]
    assert sorted(what for what, _ in notes(home)) == names


MARKED = (
    NOTE
    + """
import pytest
@pytest.mark.smol
def test_away(): note("test_away")
def test_on_the_host(): note("test_on_the_host")
@pytest.mark.smol
class TestAway:
    def test_x(self): note("test_x")
"""
)


def test_with_markers_only_marked_tests_run_in_guests(lab: Lab, home: Path) -> None:
    lab.project(test_a=MARKED)
    outcome = lab.smol("-v")
    assert "3 passed" in outcome.text
    ran = {what: on_host for what, on_host in notes(home) if what != "test_a.py"}
    assert ran == {"test_away": False, "test_on_the_host": True, "test_x": False}
    assert ("test_a.py", True) in notes(home)


def test_marked_tests_report_as_in_a_plain_run(lab: Lab, home: Path) -> None:
    body = """
        import pytest
        @pytest.fixture
        def broken(): raise ValueError("broken")
        {mark}
        class TestAll:
            def test_pass(self): print("said")
            def test_fail(self): assert [1] == [2]
            def test_error(self, broken): pass
            @pytest.mark.skip(reason="no")
            def test_skip(self): pass
            @pytest.mark.xfail
            def test_xfail(self): assert 0
        def test_on_the_host(): pass
    """
    lab.project(test_a=body.format(mark="@pytest.mark.smol"))
    smol = lab.smol("-v", "-rA")
    lab.project(test_a=body.format(mark="# no mark here"))
    plain = lab.plain("-v", "-rA")
    collected = next(line for line in smol.out if line.startswith("smol: "))
    assert "QEMU" in collected
    assert smol.comparable() == plain.comparable()


def test_a_marked_test_never_runs_on_the_host(lab: Lab, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands in the way of a machine: the test fails or the run ends."""
    monkeypatch.setenv("SMOL_QEMU", "/nonexistent/qemu")
    lab.project(test_a=MARKED)
    outcome = lab.plain("-v")  # with the real factory
    said = "\n".join(outcome.err)
    assert outcome.status == 4, outcome
    assert "/nonexistent/qemu" in said
    assert "hint: " in said
    assert "INTERNAL" not in said + outcome.text
    assert notes(home) == [("test_a.py", True)]


def test_without_qemu_smol_ends_before_anything(lab: Lab, home: Path) -> None:
    lab.project(test_a=MARKED)
    outcome = lab.plain("--smol", "-o", "smol_qemu=/nonexistent/qemu")
    said = "\n".join(outcome.err)
    assert outcome.status == 4
    assert "/nonexistent/qemu" in said
    assert "hint: " in said
    assert not notes(home)
    assert not outcome.out


def test_insisting_on_kvm_without_kvm(lab: Lab, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_smol.engines.qemu import accelerator, program
    from tests.plugin.fakes import EMULATOR

    monkeypatch.setattr(accelerator, "probe", lambda: accelerator.KvmRefused("there is no /dev/kvm"))
    monkeypatch.setattr(program, "find", lambda program: EMULATOR)
    lab.project(test_a=MARKED)
    outcome = lab.plain("--smol", "--smol-accel=kvm")
    said = "\n".join(outcome.err)
    assert outcome.status == 4
    assert "KVM cannot be used: there is no /dev/kvm" in said
    assert "hint: " in said
    assert not notes(home)


def test_environment_of_the_guest(lab: Lab, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "secret")
    monkeypatch.setenv("WANTED", "wanted")
    lab.project(
        pytest_ini="[pytest]\nsmol_env = WANTED NOT_SET_ANYWHERE\n",
        test_a="""
            import os
            def test_environment():
                assert os.environ["WANTED"] == "wanted"
                assert os.environ["SMOL_GUEST"] == "1"
                assert "SECRET_TOKEN" not in os.environ
                assert "NOT_SET_ANYWHERE" not in os.environ
        """,
    )
    assert lab.smol("--smol").status == 0


def test_tests_know_their_directory_arguments_and_path(lab: Lab, home: Path) -> None:
    lab.project(
        sub__test_a="""
            import os, sys
            def test_where(request):
                assert os.getcwd() == str(request.config.rootpath)
                assert request.config.invocation_params.args[0] == "--smol"
                assert os.path.dirname(__file__) in sys.path
        """
    )
    assert lab.smol("--smol", "--rootdir=.").status == 0


def test_distribution_controller_starts_nothing(
    lab: Lab, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pytest-xdist's controller has ``--dist``; its workers run the tests, and load the plugin themselves."""
    lab.project(
        xdistlike="""
            def pytest_addoption(parser):
                parser.addoption("--dist", default="no")
        """,
        test_a=MARKED,
    )
    monkeypatch.syspath_prepend(lab.path)  # pytest 8 loads what -p names before it looks at pythonpath
    outcome = lab.smol("-p", "xdistlike", "--dist=load", "-k", "on_the_host")
    assert outcome.status == 0
    assert not lab.record.factories


def test_a_host_without_the_tests_of_the_guest_reports_each(lab: Lab, home: Path) -> None:
    """Collection that differs in the guest: the host has the test, the guest has not."""
    lab.project(
        test_a="""
            import os, pytest
            def test_both(): pass
            if "SMOL_GUEST" not in os.environ:
                @pytest.mark.smol
                def test_host_only(): open("it ran", "w")
            @pytest.mark.smol
            def test_marked(): pass
        """
    )
    outcome = lab.smol("-v")
    assert "2 passed, 1 error" in outcome.text
    assert "the guest did not collect this test" in outcome.text
    assert not (lab.path / "it ran").exists()


def test_a_variable_does_not_make_a_host_a_guest(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMOL_GUEST", "1")
    monkeypatch.delitem(sys.modules, "pytest_smol.guest.runner", raising=False)
    monkeypatch.setenv("SMOL_QEMU", "/nonexistent/qemu")
    lab.project(test_a="def test_a(): pass\n")
    outcome = lab.plain("--smol")
    assert outcome.status == 4
    assert "/nonexistent/qemu" in "\n".join(outcome.err)
