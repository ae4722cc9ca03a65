"""The parts of scripts/kvm that need no machine: its command line, its report and how it takes output."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pytest_smol.errors import AcceleratorUnusable
from tests.kvm.l1 import ALL, SKIPPED
from tests.kvm.l1.machine import Output, check_emulation
from tests.kvm.l1.run import FAILED, OWN_JUNIT, arguments_of, main, outcomes, report
from tests.kvm.l1.uevents import created

MARK = b"\0end\0"


def pytest_arguments(*argv: str) -> tuple[str, ...]:
    found = arguments_of(argv)
    assert found.argv[:3] == (sys.executable, "-m", "pytest")
    return found.argv[3:]


def test_without_arguments_the_marked_tests_run() -> None:
    assert pytest_arguments() == (*ALL, f"--junitxml={OWN_JUNIT}")


def test_arguments_are_pytests() -> None:
    assert pytest_arguments("-x", "tests/vm", "--emulated")[:3] == ("-x", "tests/vm", "--emulated")
    assert not arguments_of(["-x", "--emulated"]).emulated


@pytest.mark.parametrize("words", [["--junitxml", "out.xml"], ["--junit-xml=out.xml"]])
def test_a_junit_report_goes_where_pytest_would_write_it(words: list[str]) -> None:
    found = arguments_of(["-q", *words])
    assert found.junit == os.path.join(os.getcwd(), "out.xml")
    assert found.argv[3:] == ("-q", *words)


def test_a_command_is_run_as_it_is() -> None:
    found = arguments_of(["--emulated", "--memory", "6144", "--", "sh", "-c", "--", "exit"])
    assert (found.argv, found.emulated, found.memory, found.junit) == (
        ("sh", "-c", "--", "exit"),
        True,
        6144,
        "",
    )


def test_a_file_that_is_to_be_brought() -> None:
    found = arguments_of(["--counted", "--bring", "out.json", "--", "true"])
    assert found.bring == os.path.join(os.getcwd(), "out.json")


def test_counted_means_emulated() -> None:
    found = arguments_of(["--counted", "--", "true"])
    assert found.counted
    assert found.emulated


@pytest.mark.parametrize("argv", [["--"], ["--memory", "much", "--", "true"]])
def test_what_cannot_be_run(argv: list[str]) -> None:
    with pytest.raises(SystemExit):
        arguments_of(argv)


@pytest.mark.parametrize(("options", "status"), [(["--or-skip"], SKIPPED), ([], FAILED)])
def test_where_no_host_can_be_emulated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str], status: int
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert main([*options, "--emulated", "--", "true"]) == status
    shown = capsys.readouterr().err
    assert "qemu-system-x86_64 is not installed" in shown
    assert ("skipped" in shown) == (status == SKIPPED)


def test_a_qemu_that_emulates_nothing(tmp_path: Path) -> None:
    qemu = tmp_path / "qemu"
    qemu.write_text("#!/bin/sh\necho kvm\n")
    qemu.chmod(0o755)
    with pytest.raises(AcceleratorUnusable, match="without TCG"):
        check_emulation(str(qemu))


@pytest.mark.parametrize("size", range(1, 8))
def test_output_ends_at_its_mark_however_it_is_cut(size: int) -> None:
    data = b"one\0e\0two" + MARK + b"\0e"
    taken: list[bytes] = []
    output = Output("stdout", MARK, lambda name, part: taken.append(part))
    for begin in range(0, len(data), size):
        assert not output.ended or begin >= data.index(MARK) + len(MARK)
        output.take(data[begin : begin + size])
    assert output.ended
    assert b"".join(taken).startswith(b"one\0e\0two")
    assert MARK not in b"".join(taken)


def test_output_is_passed_on_at_once() -> None:
    taken: list[bytes] = []
    output = Output("stdout", MARK, lambda name, part: taken.append(part))
    output.take(b"a line\n")
    assert taken == [b"a line\n"]


EVENT = (
    b"change@/devices/virtual/misc/kvm\0ACTION=change\0DEVPATH=/devices/virtual/misc/kvm\0SUBSYSTEM=misc\0"
)


def test_machines_are_counted_by_the_events_of_kvm() -> None:
    tail = b"COUNT=1\0EVENT=create\0PID=77\0SEQNUM=900"
    assert created(EVENT + b"CREATED=12\0" + tail) == 12
    assert created(EVENT + b"CREATED=12\0" + tail.replace(b"create", b"destroy")) is None
    assert created(b"add@/module/kvm\0ACTION=add") is None


JUNIT = b'<testsuites><testsuite tests="9" failures="2" errors="1" skipped="3"/></testsuites>'


def test_outcomes_are_counted() -> None:
    assert outcomes(JUNIT) == "3 passed, 3 failed, 3 skipped"
    assert outcomes(b"") == ""


def test_the_report_is_aligned() -> None:
    lines = report({"host": "this one", "processor": "a"}).splitlines()
    assert lines[-2:] == ["host:      this one", "processor: a"]
