"""The cause of a death, from what was left behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from pytest_smol.engines.qemu.exit_reasons import exit_evidence
from pytest_smol.host.signal_names import signal_name
from pytest_smol.machine import exit_evidence as machine_evidence
from pytest_smol.machine.exit_evidence import Tail

PANIC = "[    1.2] Kernel panic - not syncing: sysrq triggered crash \n[    1.3] CPU: 0 PID: 71"
OUT_OF_MEMORY = "[  9.1] Out of memory: Killed process 64 (python3) total-vm:400000kB"


@dataclass(frozen=True)
class Left:
    """What is known of a dead machine; ``status`` and ``stderr`` are QEMU's."""

    console: str = ""
    events: Sequence[dict[str, Any]] = ()
    died: dict[str, Any] | None = None
    status: int | None = None
    stderr: str = ""
    run_state: str | None = None


def cause(left: Left) -> str:
    evidence = exit_evidence(left.events, left.run_state, left.status, left.stderr)
    return machine_evidence.cause(left.console, left.died, evidence.reason)


def remedy(left: Left) -> str:
    evidence = exit_evidence(left.events, left.run_state, left.status, left.stderr)
    return machine_evidence.remedy(left.console) or evidence.remedy


def died(*, status: int | None = None, signal: int | None = None) -> dict[str, Any]:
    return {"type": "died", "status": status, "signal": signal}


def shutdown(reason: str) -> dict[str, Any]:
    return {"event": "SHUTDOWN", "data": {"guest": True, "reason": reason}}


# --- the end of a stream


def test_a_tail_gives_the_last_lines() -> None:
    tail = Tail()
    tail.add(b"one\r\ntwo\nthree\n")
    assert tail.lines(2) == ["two", "three"]
    assert tail.lines(9) == ["one", "two", "three"]
    assert tail.text() == "one\ntwo\nthree"


def test_an_unfinished_last_line_counts_as_a_line() -> None:
    tail = Tail()
    tail.add(b"one\ntwo\nthree")
    assert tail.lines(2) == ["two", "three"]


def test_a_line_may_come_in_pieces_and_a_character_too() -> None:
    tail = Tail()
    for byte in "grün\n".encode():
        tail.add(bytes([byte]))
    assert tail.lines(1) == ["grün"]


def test_nothing_has_no_lines() -> None:
    assert Tail().lines(5) == []
    assert Tail().text() == ""


def test_what_is_not_text_is_shown_all_the_same() -> None:
    tail = Tail()
    tail.add(b"\xff\x00\n")
    assert tail.text() == "\ufffd\x00"


def test_only_the_end_is_kept_and_all_is_counted() -> None:
    tail = Tail(limit=10)
    for _ in range(100):
        tail.add(b"0123456")
    assert tail.total == 700
    assert tail.text() == "4560123456"


def test_one_large_piece_is_cut_too() -> None:
    tail = Tail(limit=4)
    tail.add(b"x" * 100 + b"last")
    assert tail.text() == "last"


# --- the cause


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (Left(console=PANIC), "the guest kernel panicked: sysrq triggered crash"),
        (Left(died=died(status=3)), "the test process exited with status 3 before the test was over"),
        (Left(died=died(signal=11)), "the test process was killed by SIGSEGV"),
        (
            Left(died=died(signal=9), console=OUT_OF_MEMORY),
            "the test process was killed by SIGKILL because the guest ran out of memory",
        ),
        (Left(events=[shutdown("guest-shutdown")]), "the guest powered itself off"),
        (Left(events=[shutdown("guest-reset")]), "the guest rebooted itself"),
        (Left(events=[shutdown("guest-panic")]), "the guest kernel panicked"),
        (Left(events=[shutdown("host-signal")]), "QEMU was asked to end by a signal on the host"),
        (Left(run_state="io-error"), "QEMU paused the guest after an I/O error"),
        (Left(run_state="prelaunch"), "QEMU paused the guest (prelaunch)"),
        (
            Left(run_state="internal-error", stderr="KVM internal error.\nRAX=0\n"),
            "QEMU paused the guest after an internal error of its accelerator: KVM internal error.",
        ),
        (Left(events=[shutdown("guest-reset")], run_state="shutdown"), "the guest rebooted itself"),
        (Left(), "QEMU closed its connections"),
        (Left(status=-9), "QEMU was killed by SIGKILL on the host"),
        (Left(status=0), "QEMU ended with status 0"),
        (
            Left(status=1, stderr="warning\nqemu: cannot set up guest memory\n"),
            "QEMU ended with status 1: qemu: cannot set up guest memory",
        ),
    ],
)
def test_the_cause_is_named(left: Left, expected: str) -> None:
    assert cause(left) == expected


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (Left(died=died(signal=9), console=OUT_OF_MEMORY), "--smol-memory"),
        (
            Left(status=-7),
            "TMPDIR",
        ),  # SIGBUS: a page of the memory file for which there is no room
        (Left(status=-7), "--smol-snapshot-dir"),
        (Left(status=-9), ""),
    ],
)
def test_what_can_be_done_is_said(left: Left, expected: str) -> None:
    assert expected in remedy(left)
    assert bool(remedy(left)) == bool(expected)


def test_a_panic_explains_all_that_follows_from_it() -> None:
    events = [shutdown("guest-reset")]
    assert "panicked" in cause(Left(PANIC, events, died(signal=9), 0))


def test_the_test_process_explains_more_than_the_machine() -> None:
    assert "status 1" in cause(Left(events=[shutdown("guest-shutdown")], died=died(status=1)))


@pytest.mark.parametrize(
    "event",
    [{"event": "STOP"}, {"event": "SHUTDOWN"}, shutdown("host-qmp-quit"), {"event": "RESET", "data": {}}],
)
def test_events_that_explain_nothing_are_passed_over(event: dict[str, Any]) -> None:
    assert cause(Left(events=[event], status=2)) == "QEMU ended with status 2"


def test_of_several_events_the_one_that_explains_counts() -> None:
    events = [{"event": "STOP"}, shutdown("host-qmp-quit"), shutdown("guest-reset")]
    assert cause(Left(events=events)) == "the guest rebooted itself"


@pytest.mark.parametrize(
    ("number", "name"),
    [(9, "SIGKILL"), (6, "SIGABRT"), (0, "signal 0"), (45, "signal 45"), (10**19, f"signal {10**19}")],
)
def test_signals_have_names(number: int, name: str) -> None:
    assert signal_name(number) == name
