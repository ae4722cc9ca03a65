"""What the host's processors and kernel are: a guest that is shown the host's processor depends on it."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

__all__ = ["FIELDS", "cpuinfo", "identity", "processors"]

#: The fields of /proc/cpuinfo that say what a processor can do. Source: arch/x86/kernel/cpu/proc.c.
#: Frequencies are left out: ``cpu MHz`` and ``bogomips`` are measured, and differ from boot to boot.
FIELDS = (
    "vendor_id",
    "cpu family",
    "model",
    "model name",
    "stepping",
    "microcode",
    "address sizes",
    "flags",
    "vmx flags",
)


@cache
def cpuinfo() -> str:
    """The text of /proc/cpuinfo, read once. Raises OSError."""
    return Path("/proc/cpuinfo").read_text("utf-8", "replace")


def processors(text: str) -> list[dict[str, str]]:
    """The distinct processors in the text of /proc/cpuinfo, each with those of :data:`FIELDS` that it has.

    Flags are sorted. There is more than one only where cores differ in kind or in their microcode.
    """
    found = {tuple(_fields(block).items()) for block in text.split("\n\n")}
    return [dict(fields) for fields in sorted(found) if fields]


def _fields(block: str) -> dict[str, str]:
    rows = (line.split(":", 1) for line in block.splitlines() if ":" in line)
    values = {name.strip(): value.strip() for name, value in rows}
    for name in ("flags", "vmx flags"):
        if name in values:
            values[name] = " ".join(sorted(values[name].split()))
    return {name: values[name] for name in FIELDS if name in values}


def identity() -> dict[str, object]:
    """Processors and kernel (release and build) of this host, JSON-ready. Raises OSError."""
    system = os.uname()
    return {"processors": processors(cpuinfo()), "kernel": [system.release, system.version]}
