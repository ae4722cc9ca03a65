"""Whether KVM lets its guests run machines themselves. Source: the kernel's x86/running-nested-guests.rst."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pytest_smol.errors import AcceleratorUnusable

__all__ = ["require_nesting"]

_REMEDY = (
    "load the module with nested=1 (options {} nested=1 in /etc/modprobe.d), or use --smol-accel=tcg, "
    "which emulates a processor with the extension"
)


def require_nesting(modules: Path = Path("/sys/module")) -> None:
    """Raises :class:`~pytest_smol.errors.AcceleratorUnusable` where this host's KVM does not nest.

    Where no module tells (KVM is built in, or not shown here) it may nest, and the guest's boot tells.
    """
    for module in ("kvm_amd", "kvm_intel"):
        with suppress(OSError):
            value = (modules / module / "parameters" / "nested").read_text("ascii").strip()
            if value in ("N", "0"):
                raise AcceleratorUnusable(
                    f"VMs cannot run VMs here: {module}.nested is {value}", remedy=_REMEDY.format(module)
                )
