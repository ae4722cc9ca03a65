"""Which accelerator to use: KVM where it works at the speed of hardware, TCG otherwise.

That ``/dev/kvm`` can be opened proves nothing: on some hosts KVM accepts every
call and interprets guests, hundreds of times slower than hardware runs them.
So a counted loop is run through it and timed.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable
from dataclasses import dataclass

from pytest_smol.engines.kvm import probe as kvm
from pytest_smol.engines.kvm.probe import KvmRefused, best_time
from pytest_smol.errors import AcceleratorUnusable, HostError, SettingError

__all__ = ["Accelerator", "choose"]

#: Iterations of the loop. Hardware takes microseconds for all, an interpreter about 10 ms.
ITERATIONS = 10_000

#: Seconds that hardware stays well below even when the host is busy or KVM is nested, and an
#: interpreter well above: 100 ns an iteration.
SLOW = 0.001

#: How often the loop is timed before KVM is called slow: another process may preempt it.
ATTEMPTS = 3

#: Seconds after which the probe is given up.
TIMEOUT = 2.0


@dataclass(frozen=True)
class Accelerator:
    """QEMU's ``-accel`` (``kvm`` or ``tcg``) and ``-cpu``.

    ``reason`` is a clause for the header: why KVM is not used, or that it is slow; empty otherwise.
    """

    name: str
    cpu: str
    reason: str


#: What the probe found: the best time of the loop in seconds, or why KVM does not work.
Finding = float | KvmRefused


def verdict(finding: Finding) -> str:
    """Why ``auto`` does not use KVM, as one clause; empty if it does."""
    if isinstance(finding, KvmRefused):
        return str(finding)
    if finding >= SLOW:
        turn = finding / ITERATIONS * 1e9
        return (
            f"KVM works but interprets guests: {turn:.0f} ns for each iteration of a loop, hardware takes 1"
        )
    return ""


def shadow_paging() -> str:
    """A clause that says so if KVM works without nested paging, which is slower; empty if it has it."""
    parameter, _, value = kvm.nested_paging().partition("=")
    if value not in ("N", "0"):
        return ""
    return f"without nested paging, as {parameter} is {value}: what changes page tables is slow"


def decide(wanted: str, probe: Callable[[], Finding]) -> Accelerator:
    """The accelerator for ``wanted`` (``auto``, ``kvm`` or ``tcg``); ``probe`` is not called for ``tcg``.

    ``auto`` is KVM only where it is fast, ``kvm`` is KVM wherever it works. Raises
    :class:`~pytest_smol.errors.AcceleratorUnusable` for ``kvm`` where KVM does not work,
    :class:`~pytest_smol.errors.SettingError` for another word.
    """
    if wanted not in ("auto", "kvm", "tcg"):
        raise SettingError(f"there is no accelerator {wanted!r}", remedy="use auto, kvm or tcg")
    if wanted == "tcg":
        return Accelerator("tcg", "max", "")
    finding = probe()
    reason = verdict(finding)
    if wanted == "auto":
        return Accelerator("tcg", "max", reason) if reason else Accelerator("kvm", "host", shadow_paging())
    if isinstance(finding, KvmRefused):
        how = finding.remedy or "use a host, or a virtual machine with nested virtualisation, where KVM works"
        raise AcceleratorUnusable(f"KVM cannot be used: {reason}", remedy=f"{how}; or use --smol-accel=auto")
    return Accelerator("kvm", "host", reason or shadow_paging())


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


def probe() -> Finding:
    """The best time of the loop, or why it did not run. Returns within :data:`TIMEOUT`."""
    found: list[Finding] = []

    def run() -> None:
        try:
            found.append(best_time(ITERATIONS, ATTEMPTS, SLOW))
        except KvmRefused as error:
            found.append(error)
        except Exception as error:  # a probe never fails a run: there is TCG
            found.append(KvmRefused(f"the probe failed with {error!r}"))

    # In a thread: on a broken host KVM_RUN may not return, and no exception interrupts it.
    thread = threading.Thread(target=run, name="kvm-probe", daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    return (
        found[0] if found else KvmRefused(f"a loop of {ITERATIONS} iterations did not end in {TIMEOUT:g} s")
    )
