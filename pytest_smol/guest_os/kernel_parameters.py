"""The command line of the guest's kernel.

The program that the guest starts is not on it, but in a file of the initramfs:
the line holds 2 kB, and all users of the host can read it in ``/proc``.
"""

from __future__ import annotations

import re

from pytest_smol.errors import HostError
from pytest_smol.host.processor import cpuinfo

__all__ = ["COMMAND_LINE_SIZE", "PARAMETERS", "command_line", "parse_tsc_khz", "tsc_khz"]

#: x86's COMMAND_LINE_SIZE (arch/x86/include/asm/setup.h), the final NUL included.
COMMAND_LINE_SIZE = 2048

#: The kernel's parameters that are the same for all hosts, each with its reason.
#: Source of the names: the kernel's Documentation/admin-guide/kernel-parameters.txt.
PARAMETERS = (
    ("console=ttyS0", "the console is the evidence when a guest dies"),
    ("quiet", "every line costs an exit per character"),
    ("panic=-1", "a panic reboots at once, and the engine ends a machine instead of rebooting it"),
    ("oops=panic", "after an oops the state of the kernel is undefined"),
    ("rdinit=/init", "guest/init"),
    (
        "smol.guest",
        "pytest_smol/plugin.py detects a guest by it; the kernel ignores it",
    ),
    ("random.trust_cpu=on", "the random generator is ready without waiting for entropy"),
    ("init_on_alloc=1", "pages are zeroed by the guest before the file server fills them"),
    ("nowatchdog", "a guest that is frozen or gets no CPU time would be reported as locked up"),
    ("mitigations=off", "a guest has one user, so nothing in it is protected from another"),
    ("audit=0", "no audit rules are loaded"),
    ("lsm=landlock,yama", "the other modules have no policy, but are called for each path"),
    ("psi=0", "pressure is accounted at each context switch, and not read"),
    ("noautogroup", "it schedules between sessions, and there is one"),
    ("sysctl.kernel.kexec_load_disabled=1", "the machine of another kernel could not be observed"),
    ("sysctl.vm.stat_interval=3600", "statistics would wake up a fork that waits"),
    ("sysctl.vm.compaction_proactiveness=0", "compaction would wake up a fork that waits"),
    ("cryptomgr.notests", "the kernel's own tests of its ciphers take an eighth of an emulated boot"),
    ("tsc=reliable", "a guest that was frozen would mark its time stamp counter as unstable"),
    ("no_timer_check", "the check fails on a busy host, and there is no other timer"),
    ("rcupdate.rcu_cpu_stall_suppress=1", "a guest that gets no CPU time would report stalls"),
)


#: Further parameters of a guest that has no scratch disks, and of one that has some.
WITHOUT_DISKS = (("sysctl.vm.dirty_writeback_centisecs=0", "there is no disk to write to"),)
WITH_DISKS = (("smol.disks", "guest/init loads the modules for disks; the kernel ignores it"),)


#: The parameter of a guest that runs no machines itself; one that does has the other one in its place.
GUEST = "smol.guest"
NESTED = "smol.nested"


def command_line(tsc_khz: int, *, disks: bool = False, nested: bool = False) -> str:
    """The kernel's command line, which is the same for all users and projects of a host.

    ``disks`` says whether the guest has scratch disks, ``nested`` whether it runs machines itself: then
    pytest that its tests start is not in a guest but on a host, and guest/init loads the modules of KVM.
    ``tsc_khz`` is the frequency of the time stamp counter in kHz; with 0 the kernel measures it.
    """
    parts = [name for name, _ in (*PARAMETERS, *(WITH_DISKS if disks else WITHOUT_DISKS))]
    if nested:
        parts[parts.index(GUEST)] = NESTED
    if tsc_khz:
        parts.append(f"tsc_early_khz={tsc_khz}")
    return " ".join(parts)


def parse_tsc_khz(cpuinfo: str) -> int:
    """The frequency of the time stamp counter in kHz, from the text of ``/proc/cpuinfo``.

    Linux computes bogomips from it, as kHz * 2 / 1000. Raises
    :class:`~pytest_smol.errors.HostError` where the text has no bogomips.
    """
    found = re.search(r"^bogomips\s*:\s*([0-9]+(?:\.[0-9]+)?)\s*$", cpuinfo, re.MULTILINE)
    if not found:
        raise HostError(
            "the processor's frequency is not in /proc/cpuinfo",
            evidence=cpuinfo[:500],
            remedy="run on an x86-64 Linux whose /proc/cpuinfo has a line with bogomips",
        )
    return int(float(found.group(1)) * 500)


def tsc_khz() -> int:
    """The frequency of this machine's time stamp counter in kHz.

    If it is not given to the guest's kernel, that measures it against a timer. On a
    busy host the measurement can fail, and the guest hangs before its first console line.
    Raises :class:`~pytest_smol.errors.HostError` where /proc/cpuinfo does not tell it.
    """
    return parse_tsc_khz(cpuinfo())
