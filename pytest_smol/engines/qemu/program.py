"""Which QEMU program is used: its path and its version."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass

from pytest_smol.errors import HostError, QemuTooOld, ToolMissing

__all__ = ["OLDEST", "Emulator", "find", "parse_version"]

#: The oldest QEMU that can migrate vhost-user-fs and has ``rom=`` for file memory.
OLDEST = (8, 2)

_INSTALL = "install QEMU 8.2 or newer (Debian: qemu-system-x86, on Debian 12 from its backports suite)"


@dataclass(frozen=True)
class Emulator:
    """A QEMU program: its resolved path, its version and what tells one build of it from another."""

    path: str
    version: tuple[int, ...]
    identity: str

    @property
    def version_text(self) -> str:
        """The version with dots."""
        return ".".join(map(str, self.version))


def parse_version(text: str) -> tuple[int, ...]:
    """The version in the first line of ``qemu --version``. Raises :class:`HostError`."""
    found = re.search(r"version (\d+)\.(\d+)\.(\d+)", text)
    if not found:
        raise HostError("QEMU does not say which version it is", evidence=text[:200], remedy=_INSTALL)
    return tuple(int(part) for part in found.groups())


def find(program: str) -> Emulator:
    """The QEMU to use. Raises :class:`ToolMissing` or :class:`QemuTooOld`."""
    path = shutil.which(program)
    if path is None:
        raise ToolMissing(f"{program} is not installed", remedy=_INSTALL)
    path = os.path.realpath(path)
    argv = [path, "--version"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise HostError(f"{path} does not run: {error}", remedy=_INSTALL) from error
    version = parse_version(done.stdout)
    if version < OLDEST:
        raise QemuTooOld(
            f"{path} is QEMU {'.'.join(map(str, version))}, which cannot fork guests", remedy=_INSTALL
        )
    status = os.stat(path)
    return Emulator(path, version, f"{done.stdout.splitlines()[0]} {status.st_size} {status.st_mtime_ns}")
