"""The doctor's checks of QEMU: its program, its accelerator, and how its processes are confined."""

from __future__ import annotations

from collections.abc import Callable

from pytest_smol.engines.confinement.domains import Level
from pytest_smol.engines.qemu import accelerator, confinement, program
from pytest_smol.errors import ConfinementMissing
from pytest_smol.settings import Settings

__all__ = ["CHECKS"]


def check_qemu(settings: Settings) -> str:
    """The version and path of QEMU. Raises as :func:`program.find` does."""
    found = program.find(settings.qemu)
    return f"{found.version_text} at {found.path}"


def check_accelerator(settings: Settings) -> str:
    """KVM or TCG, and why. Raises as :func:`accelerator.choose` does."""
    chosen = accelerator.choose(settings.accel)
    return f"{chosen.name} ({chosen.reason})" if chosen.reason else chosen.name


def check_confinement(settings: Settings) -> str:
    """How QEMU is confined. Raises as :func:`describe_confinement` does, or HostError without a QEMU."""
    emulator, chosen = program.find(settings.qemu), accelerator.choose(settings.accel)
    boundary = "" if chosen.name == "kvm" else "; emulation is no security boundary all the same"
    return describe_confinement(confinement.probe(emulator.path, chosen)) + boundary


def describe_confinement(level: Level) -> str:
    """``level`` in one line. An older Landlock is named, as it refuses less.

    Raises ConfinementMissing where Landlock, the filter of system calls or the
    limits are missing altogether, or where the kernel's means cannot be used.
    """
    if level.reason:
        raise ConfinementMissing(
            f"QEMU is not confined by all that this kernel has: {confinement.describe(level)}",
            remedy="allow seccomp(2), prlimit(2) and Landlock's calls in the container's seccomp profile;"
            " if it is QEMU that does not start, install it below /usr",
        )
    lacks = [
        name
        for name, has in (
            ("Landlock", level.landlock),
            ("seccomp filter", level.filter),
            ("limits", level.limits),
        )
        if not has
    ]
    if lacks:
        raise ConfinementMissing(
            f"QEMU runs with no {', no '.join(lacks)}: {confinement.describe(level)}",
            remedy="use Linux 5.13, or better 6.12, with landlock in its list of security modules (lsm=)",
        )
    return confinement.describe(level)


#: By the subject that is printed. Each returns what the host has, in one line, or raises SmolError.
CHECKS: tuple[tuple[str, Callable[[Settings], str]], ...] = (
    ("qemu", check_qemu),
    ("accelerator", check_accelerator),
    ("confinement", check_confinement),
)
