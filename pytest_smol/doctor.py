"""Checks of what machines need on this host; ``pytest-smol doctor`` prints what they find."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_smol.engines.choice import engine_checks
from pytest_smol.errors import HostError, SmolError
from pytest_smol.guest_os import boot_files, initramfs
from pytest_smol.host import cache_directory
from pytest_smol.host.process import find_setpriv
from pytest_smol.host.resources import available_memory, require_memory
from pytest_smol.host.run_directory import RunDirectory, require_space
from pytest_smol.settings import Settings
from pytest_smol.virtiofs.virtio.memory import ALLOW_TRACING, Memory, ProcessMemory

__all__ = ["CHECKS", "Finding", "examine"]

#: The oldest kernel of a host: the first with pidfd_open(2).
OLDEST_KERNEL = (5, 3)

#: None where Python was built with the headers of an older kernel.
PIDFD_OPEN: Callable[[int], int] | None = getattr(os, "pidfd_open", None)


@dataclass(frozen=True)
class Finding:
    """The result of one check. ``good`` is False where something is missing; ``remedy`` says what to do."""

    subject: str
    good: bool
    text: str
    remedy: str = ""


#: Returns what the host has, in one line. Raises SmolError, with its remedy, or OSError.
Check = Callable[[Settings], str]


def examine(settings: Settings, checks: Sequence[tuple[str, Check]] | None = None) -> Iterator[Finding]:
    """The findings of ``checks``, by default :data:`CHECKS`, in their order."""
    for subject, check in CHECKS if checks is None else checks:
        try:
            yield Finding(subject, True, check(settings))
        except SmolError as error:
            yield Finding(subject, False, error.message, error.remedy)
        except OSError as error:
            yield Finding(subject, False, str(error), "see what refuses this user that file or system call")


def check_python(settings: Settings) -> str:
    """The version and path of the interpreter. Never fails: the package cannot be installed in older ones."""
    return f"{platform.python_version()} at {sys.executable}"


def check_host_kernel(settings: Settings, release: str | None = None) -> str:
    """The host's kernel, ``release`` as ``uname -r`` gives it. Raises HostError if it is too old."""
    release = platform.release() if release is None else release
    found = re.match(r"(\d+)\.(\d+)", release)
    if found is None or tuple(map(int, found.groups())) < OLDEST_KERNEL:
        raise HostError(
            f"this host runs Linux {release}, which has no pidfd_open(2)",
            remedy="use a host with Linux 5.3 or newer",
        )
    return f"Linux {release}"


def check_pidfd(settings: Settings, pidfd_open: Callable[[int], int] | None = PIDFD_OPEN) -> str:
    """Whether a process can be waited for by a file descriptor, pidfd_open(2). Raises HostError."""
    if pidfd_open is None:
        raise HostError(
            f"the Python at {sys.executable} has no os.pidfd_open",
            remedy="use a Python that was built with the headers of Linux 5.3 or newer",
        )
    try:
        os.close(pidfd_open(os.getpid()))
    except OSError as error:
        raise HostError(
            f"pidfd_open(2) fails: {error.strerror}",
            remedy="use Linux 5.3 or newer; in a container, allow pidfd_open in its seccomp profile",
        ) from error
    return "pidfd_open works"


def check_launcher(settings: Settings, path: str | None = None) -> str:
    """The setpriv(1) on ``path`` (default: ``$PATH``), which makes machines end when pytest ends.

    Raises as :func:`find_setpriv` does.
    """
    return f"{find_setpriv(path)}: machines end when pytest does"


def check_process_vm(settings: Settings, memory_of: Callable[[int], Memory] = ProcessMemory) -> str:
    """Whether a child's memory can be read and written, as the file server does with a machine's.

    ``memory_of`` gives the memory of a pid. Raises HostError.
    """
    program = (
        "import ctypes, sys; buffer = ctypes.create_string_buffer(b'before');"
        "print(ctypes.addressof(buffer), flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-I", "-S", "-c", program]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        address = child.stdout.readline().strip()
        if not address:
            raise HostError(
                f"{sys.executable} does not start a child", remedy="install Python with its ctypes"
            )
        segments = [(int(address), 6)]
        for call, moves in (("readv", _reads), ("writev", _writes)):
            _require_transfer(f"process_vm_{call}(2)", moves, memory_of(child.pid), segments)
    return "process_vm_readv and process_vm_writev work on a child"


_Segments = list[tuple[int, int]]


def _require_transfer(
    call: str, moves: Callable[[Memory, _Segments], bool], memory: Memory, segments: _Segments
) -> None:
    reason, remedy = "other bytes are there", ""
    try:
        if moves(memory, segments):
            return
    except SmolError as error:
        reason, remedy = error.message, error.remedy
    raise HostError(f"{call} on a child fails: {reason}", remedy=remedy or ALLOW_TRACING)


def _reads(memory: Memory, segments: _Segments) -> bool:
    return memory.read(segments) == b"before"


def _writes(memory: Memory, segments: _Segments) -> bool:
    memory.write(segments, b"behind")
    return memory.read(segments) == b"behind"


def check_busybox(settings: Settings) -> str:
    """The path of busybox. Raises ToolMissing unless there is one that is linked statically."""
    return f"static, at {initramfs.find_busybox()}"


def check_cache(settings: Settings) -> str:
    """The path of the cache. Raises SettingError or DiskFull where it cannot be used."""
    return str(cache_directory.directory())


def check_guest_kernel(settings: Settings) -> str:
    """The guest's kernel, initramfs and modules, made where they are missing. Raises HostError."""
    files = boot_files.prepare(cache_directory.directory(), settings.kernel, lambda text: None)
    modules = (files.index / "modules.dep").read_bytes().count(b"\n")
    source = f"in {files.modules}" if settings.kernel else f"of linux-image-{files.release}"
    initramfs_size = files.initramfs.stat().st_size >> 10
    return f"Linux {files.release}, initramfs of {initramfs_size} KiB, {modules} modules {source}"


def check_memory(settings: Settings, root: Path = Path("/")) -> str:
    """The memory that is available; ``/proc`` and ``/sys`` are looked up below ``root``.

    Raises NotEnoughMemory unless a guest fits.
    """
    require_memory(settings.memory, root)
    return f"{available_memory(root) >> 20} MiB available, {settings.memory} MiB for a guest"


def check_space(settings: Settings, require: Callable[[Path, int], None] = require_space) -> str:
    """The space in the cache and in the snapshot directory, which is that of temporary files by default.

    ``require`` raises DiskFull where a directory has less than so many bytes.
    Raises SettingError for a snapshot directory that other users may change,
    DiskFull for one that cannot be written to.
    """
    snapshots = "temporary files" if settings.snapshot_dir is None else "snapshots"
    temporary = Path(tempfile.gettempdir())
    places = {"cache": cache_directory.directory(), snapshots: settings.snapshot_dir or temporary}
    with RunDirectory(settings.snapshot_dir):  # a run makes one there too
        for place in places.values():
            require(place, settings.memory << 20)
    return ", ".join(f"{shutil.disk_usage(path).free >> 20} MiB for {what}" for what, path in places.items())


#: All checks, by the subject that is printed, in the order in which a run needs what they are about.
CHECKS: tuple[tuple[str, Check], ...] = (
    ("python", check_python),
    ("host kernel", check_host_kernel),
    ("pidfd", check_pidfd),
    *engine_checks(),
    ("launcher", check_launcher),
    ("process_vm", check_process_vm),
    ("busybox", check_busybox),
    ("cache", check_cache),
    ("guest kernel", check_guest_kernel),
    ("memory", check_memory),
    ("space", check_space),
)
