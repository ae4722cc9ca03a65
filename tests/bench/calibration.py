"""Three commands that run on any host: the time that it takes for what another one counts in instructions."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

__all__ = ["COMMANDS", "native_ms", "run_command"]

_QEMU = ("qemu-system-x86_64", "-nodefaults", "-display", "none", "-machine", "microvm,acpi=on")

#: By name. QEMU is told to quit at once.
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "python -c pass": (sys.executable, "-c", "pass"),
    "pytest --version": (sys.executable, "-m", "pytest", "-p", "no:smol", "-VV"),
    "qemu, start and quit": (*_QEMU, "-accel", "tcg", "-m", "512M", "-S", "-monitor", "stdio"),
}


def run_command(command: Sequence[str]) -> float:
    """Run ``command`` to its end; gives the processor time that it used, in ms."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert process.stdin is not None
    process.stdin.write(b"quit\n")
    process.stdin.close()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return (used.ru_utime + used.ru_stime) * 1000


def native_ms(repeats: int) -> dict[str, float]:
    """The least processor time of each command on this host, which is least disturbed by others, in ms."""
    for command in COMMANDS.values():
        run_command(command)
    return {name: min(run_command(command) for _ in range(repeats)) for name, command in COMMANDS.items()}
