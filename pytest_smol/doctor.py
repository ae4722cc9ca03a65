"""What this host has and lacks for running machines, finding by finding."""

from __future__ import annotations

import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_smol.engines.qemu import accelerator, confinement, program
from pytest_smol.errors import SmolError
from pytest_smol.guest_os import boot_files
from pytest_smol.host import cache_directory
from pytest_smol.host.resources import available_memory
from pytest_smol.settings import Settings

__all__ = ["Finding", "examine"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's: ``good`` is False where no machine can run without a remedy."""

    subject: str
    good: bool
    text: str
    remedy: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """All findings, in the order in which a run needs what they are about."""
    for subject, check in _CHECKS:
        try:
            yield Finding(subject, True, check(settings))
        except SmolError as error:
            yield Finding(subject, False, error.message, error.remedy)


def _python(settings: Settings) -> str:
    return f"{platform.python_version()} at {sys.executable}"


def _qemu(settings: Settings) -> str:
    found = program.find(settings.qemu)
    return f"{found.version_text} at {found.path}"


def _accelerator(settings: Settings) -> str:
    chosen = accelerator.choose(settings.accel)
    return f"{chosen.name} ({chosen.reason})" if chosen.reason else chosen.name


def _busybox(settings: Settings) -> str:
    return f"static, at {boot_files.find_busybox()}"


def _kernel(settings: Settings) -> str:
    files = boot_files.prepare(cache_directory.directory(), settings.kernel, lambda text: None)
    return f"Linux {files.release}, initramfs of {files.initramfs.stat().st_size >> 10} KiB"


def _launcher(settings: Settings) -> str:
    found = shutil.which("setpriv")
    return f"{found}: machines die with pytest" if found else "setpriv is missing: see util-linux"


def _memory(settings: Settings) -> str:
    room = available_memory()
    return f"{room >> 20} MiB available, {settings.memory} MiB for a guest"


def _space(settings: Settings) -> str:
    places = {"cache": cache_directory.directory(), "temporary files": Path(tempfile.gettempdir())}
    return ", ".join(f"{shutil.disk_usage(path).free >> 20} MiB for {what}" for what, path in places.items())


def _confinement(settings: Settings) -> str:
    emulator, chosen = program.find(settings.qemu), accelerator.choose(settings.accel)
    level = confinement.probe(emulator.path, chosen)
    boundary = "" if chosen.name == "kvm" else "; emulation is no security boundary all the same"
    return confinement.describe(level) + boundary


_CHECKS: tuple[tuple[str, Callable[[Settings], str]], ...] = (
    ("python", _python),
    ("qemu", _qemu),
    ("accelerator", _accelerator),
    ("launcher", _launcher),
    ("confinement", _confinement),
    ("busybox", _busybox),
    ("cache", lambda settings: str(cache_directory.directory())),
    ("kernel", _kernel),
    ("memory", _memory),
    ("space", _space),
)
