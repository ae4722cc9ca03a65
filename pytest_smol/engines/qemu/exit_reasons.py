"""From what a QEMU process left behind to one clause that says why it ended. Pure."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

from pytest_smol.engines.protocol import ExitEvidence
from pytest_smol.host.signal_names import signal_name

__all__ = ["disk_error", "exit_evidence"]

#: QEMU's ShutdownCause (qapi/run-state.json) as a clause.
_SHUTDOWN_REASONS = {
    "guest-shutdown": "the guest powered itself off",
    "guest-reset": "the guest rebooted itself",
    "guest-panic": "the guest kernel panicked",
    "host-signal": "QEMU was asked to end by a signal on the host",
}

#: QEMU's RunState (qapi/run-state.json) of a guest that was paused without a command, as a clause.
_PAUSED_REASONS = {
    "internal-error": "QEMU paused the guest after an internal error of its accelerator",
    "io-error": "QEMU paused the guest after an I/O error",
    "guest-panicked": "the guest kernel panicked",
    "watchdog": "QEMU paused the guest as its watchdog expired",
}

_SPACE_REMEDY = "free some where TMPDIR or --smol-snapshot-dir points, or point it to another file system"

_SIGBUS_REMEDY = (
    "where the guest's memory is kept no space may be left: free some in TMPDIR and XDG_CACHE_HOME,"
    " or name a directory with more space with --smol-snapshot-dir"
)


def exit_evidence(
    events: Sequence[dict[str, Any]], run_state: str | None, status: int | None, stderr: str
) -> ExitEvidence:
    """The evidence of QMP ``events``, the exit ``status`` of QEMU, negative for a signal, and its ``stderr``.

    ``run_state`` is that of a guest that QEMU has paused without a command, None for any other.
    """
    reason = _shutdown(events) or _paused(run_state, stderr) or _process_exit(status, stderr)
    remedy = _SIGBUS_REMEDY if status == -signal.SIGBUS else ""
    return ExitEvidence(reason, status, stderr, remedy)


def disk_error(events: Sequence[dict[str, Any]]) -> str:
    """What the host refused of a scratch disk according to QMP ``events``; empty where there is none."""
    errors = [event.get("data", {}) for event in events if event.get("event") == "BLOCK_IO_ERROR"]
    if not errors:
        return ""
    if any(error.get("nospace") is True for error in errors):
        return f"the host has no space left for what tests write to scratch disks: {_SPACE_REMEDY}"
    reason = str(errors[0].get("reason", ""))[:200]
    return f"the host could not {errors[0].get('operation') or 'use'} a scratch disk: {reason}"


def _shutdown(events: Sequence[dict[str, Any]]) -> str | None:
    reasons = [event.get("data", {}).get("reason") for event in events if event.get("event") == "SHUTDOWN"]
    return next((_SHUTDOWN_REASONS[reason] for reason in reasons if reason in _SHUTDOWN_REASONS), None)


def _paused(run_state: str | None, stderr: str) -> str | None:
    if run_state is None:
        return None
    reason = _PAUSED_REASONS.get(run_state, f"QEMU paused the guest ({run_state})")
    # The first line that names KVM's error; a dump of registers follows it.
    errors = [line.strip() for line in stderr.splitlines() if "error" in line.lower()]
    return f"{reason}: {errors[0]}" if errors else reason


def _process_exit(status: int | None, stderr: str) -> str:
    if status is None:
        return "QEMU closed its connections"
    if status < 0:
        return f"QEMU was killed by {signal_name(-status)} on the host"
    last = stderr.strip().splitlines()[-1:]
    return f"QEMU ended with status {status}" + (f": {last[0]}" if last else "")
