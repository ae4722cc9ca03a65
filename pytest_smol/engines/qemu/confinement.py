"""What a QEMU process may do: the rules that QEMU needs in addition to those of its machine's files."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pytest_smol.engines.confinement import domains
from pytest_smol.engines.confinement.domains import READ_RUN, Level
from pytest_smol.engines.confinement.landlock import Access, Rule
from pytest_smol.engines.qemu.accelerator import Accelerator

__all__ = ["describe", "own_rules", "probe", "require"]

#: Where a QEMU outside of the system's directories has its libraries and firmware, from its prefix.
_PREFIX_DIRECTORIES = ("lib", "lib64", "share/qemu", "share/seabios")

_DEVICES: Mapping[str, tuple[Rule, ...]] = {
    "kvm": (Rule("/dev/kvm", Access.READ_FILE | Access.WRITE_FILE | Access.IOCTL_DEV),)
}


def own_rules(program: str, accelerator: Accelerator) -> tuple[Rule, ...]:
    """What the QEMU ``program`` itself needs: its own files, and the device of its accelerator."""
    prefix = os.path.dirname(os.path.dirname(program))
    return (
        Rule(program, READ_RUN),
        *(Rule(os.path.join(prefix, below), READ_RUN) for below in _PREFIX_DIRECTORIES),
        *_DEVICES.get(accelerator.name, ()),
    )


def probe(program: str, accelerator: Accelerator) -> Level:
    """How far the QEMU ``program`` can be confined on this host: tried, as a container may forbid it."""
    return domains.probe([program, "--version"], own_rules(program, accelerator))


def require(accelerator: Accelerator, level: Level) -> None:
    """Raise :class:`ConfinementMissing` unless nothing is missing of what keeps a hostile guest in."""
    emulated = (
        []
        if accelerator.name == "kvm"
        else [f"{accelerator.name} is emulation, which is no security boundary"]
    )
    domains.require(level, emulated)


def describe(level: Level) -> str:
    """One line on how QEMU is confined: its own filter (``-sandbox``), and what ``level`` adds."""
    return f"QEMU's seccomp filter, {level.describe()}"
