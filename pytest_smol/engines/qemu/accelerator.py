"""Which accelerator to use: KVM where it is really there and really fast, TCG otherwise.

A ``/dev/kvm`` that opens proves nothing: there are hosts whose KVM accepts
every call and interprets guests hundreds of times slower than hardware runs
them. So a counted loop is run through it and timed.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable
from dataclasses import dataclass

from pytest_smol.engines.kvm.probe import KvmRefused, time_loop
from pytest_smol.errors import AcceleratorUnusable, HostError, SettingError

__all__ = ["Accelerator", "choose"]

#: Turns of the loop. Hardware takes microseconds, an interpreter some 10 ms.
ITERATIONS = 10_000

#: Seconds that hardware stays well below even when the host is busy or KVM is nested, and an
#: interpreter well above: 100 ns a turn.
SLOW = 0.001

#: How often the loop is run before it is called slow; a busy host is forgiven this often.
ATTEMPTS = 3

#: Seconds after which a loop that has not come back is given up.
PATIENCE = 2.0


@dataclass(frozen=True)
class Accelerator:
    """QEMU's ``-accel`` (``kvm`` or ``tcg``) and ``-cpu``, and a clause for the header, often empty."""

    name: str
    cpu: str
    reason: str


#: What is known of KVM here: the best time of the loop in seconds, or why it cannot be used.
Finding = float | str


def verdict(finding: Finding) -> str:
    """Why KVM is not to be used, as one clause; empty if it is usable."""
    if isinstance(finding, str):
        return finding
    if finding >= SLOW:
        turn = finding / ITERATIONS * 1e9
        return f"KVM is there but interprets guests: {turn:.0f} ns a loop turn, hardware takes 1"
    return ""


def decide(wanted: str, probe: Callable[[], Finding]) -> Accelerator:
    """The accelerator for ``wanted`` (``auto``, ``kvm`` or ``tcg``); ``probe`` is called where it matters.

    Raises :class:`~pytest_smol.errors.AcceleratorUnusable` if KVM is insisted
    on and not usable, :class:`~pytest_smol.errors.SettingError` for another word.
    """
    if wanted not in ("auto", "kvm", "tcg"):
        raise SettingError(f"there is no accelerator {wanted!r}", remedy="use auto, kvm or tcg")
    if wanted == "tcg":
        return Accelerator("tcg", "max", "")
    reason = verdict(probe())
    if not reason:
        return Accelerator("kvm", "host", "")
    if wanted == "kvm":
        raise AcceleratorUnusable(
            f"KVM cannot be used: {reason}",
            remedy="use --smol-accel=auto, or a host (or a virtual machine with nested "
            "virtualisation) whose /dev/kvm you may open",
        )
    return Accelerator("tcg", "max", reason)


def choose(wanted: str) -> Accelerator:
    """The accelerator for ``wanted`` on this host. Raises as :func:`decide` does.

    Raises :class:`~pytest_smol.errors.HostError` on anything but x86-64 Linux.
    """
    system, machine = platform.system(), platform.machine()
    if (system, machine) != ("Linux", "x86_64"):
        raise HostError(
            f"this host is {system} on {machine}, and machines run on Linux on x86_64 only",
            remedy="run pytest without --smol here",
        )
    return decide(wanted, probe)


def best_of(attempts: int, measure: Callable[[], float]) -> float:
    """The least of up to ``attempts`` times; the first that is not slow ends it."""
    best = measure()
    for _ in range(attempts - 1):
        if best < SLOW:
            break
        best = min(best, measure())
    return best


def probe() -> Finding:
    """The best time of the loop, or why it did not run. Never hangs."""
    found: list[Finding] = []

    def run() -> None:
        try:
            found.append(best_of(ATTEMPTS, lambda: time_loop(ITERATIONS)))
        except KvmRefused as error:
            found.append(str(error))
        except Exception as error:  # a probe never fails a run: TCG is always there
            found.append(f"the probe failed with {error!r}")

    # In a thread: KVM_RUN on a broken host may not come back, and no exception reaches into it.
    thread = threading.Thread(target=run, name="kvm-probe", daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return found[0] if found else f"a loop of {ITERATIONS} turns did not end within {PATIENCE:g} s"
