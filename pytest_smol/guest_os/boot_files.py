"""What a guest boots from: a kernel, and an initramfs with busybox, modules and ``guest/init``.

Both are made once and kept in the user's cache. A stamp next to them names
every file that they were made from, so a warm start costs a few ``stat`` calls.

The program that ``guest/init`` starts, with its arguments and environment, is
one more file of the initramfs, added for each boot. The kernel's command line
would not do: it holds 2 kB, and every user of the host can read it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from pytest_smol.errors import DiskFull, HostError, KernelUnavailable, ToolMissing
from pytest_smol.guest_os import cpio
from pytest_smol.guest_os.kernel import GuestKernel, Module, load_order, open_kernel, read_module
from pytest_smol.guest_os.kernel_package import find_image, unpack_default
from pytest_smol.host.processor import cpuinfo

__all__ = ["BootFiles", "command_line", "prepare", "start_script", "tsc_khz", "with_start"]

#: Raised whenever the initramfs is laid out in another way.
FORMAT = 1

PACKAGE = Path(__file__).parents[1]
INIT = PACKAGE / "guest" / "init"
RECIPE = PACKAGE / "images" / "kernel.json"

#: Where distributions install modules, and some of them the kernel's image, by release.
LIB_MODULES = Path("/lib/modules")

#: x86's COMMAND_LINE_SIZE (arch/x86/include/asm/setup.h), the final NUL included.
COMMAND_LINE_SIZE = 2048

#: The file of the initramfs that tells guest/init what to start.
START = "start"

#: Empty directories of the initramfs: mount points of guest/init.
MOUNT_POINTS = ("dev", "proc", "lower", "upper", "newroot")

#: The commands of guest/init that are no shell builtins.
APPLETS = ("ifconfig", "insmod", "ln", "mkdir", "mount", "poweroff", "reboot", "switch_root", "umount")

#: Fields of an ELF64 header and of a program header: name -> (offset, format). Source: elf(5).
ELF64 = {"e_phoff": (0x20, "<Q"), "e_phentsize": (0x36, "<H"), "e_phnum": (0x38, "<H")}
PT_INTERP = 3


@dataclass(frozen=True)
class BootFiles:
    """``digest`` stands for the content of both files, so that it can be part of a snapshot's key."""

    kernel: Path
    initramfs: Path
    release: str
    digest: str


def prepare(cache: Path, kernel: str | None, progress: Callable[[str], None]) -> BootFiles:
    """The boot files for ``kernel`` (a bzImage's path; None: the distribution's), made where missing.

    ``progress`` gets a line before anything that takes long. Raises
    :class:`~pytest_smol.errors.KernelUnavailable`,
    :class:`~pytest_smol.errors.ToolMissing` (busybox, zstd) and
    :class:`~pytest_smol.errors.DiskFull`.
    """
    root = cache / "boot"
    stamp = root / f"{_name(kernel)}.json"
    known = _read_stamp(stamp)
    if known:
        return known
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / "lock"):
            return _read_stamp(stamp) or _build(root, stamp, kernel, progress)
    except OSError as error:
        raise DiskFull(
            f"the guest's boot files cannot be written to {root}: {error.strerror or error}",
            remedy="free some space there, or set XDG_CACHE_HOME to another place",
        ) from error


def _name(kernel: str | None) -> str:
    return "default" if kernel is None else hashlib.sha256(os.path.abspath(kernel).encode()).hexdigest()[:16]


def _build(root: Path, stamp: Path, wanted: str | None, progress: Callable[[str], None]) -> BootFiles:
    recipe = json.loads(RECIPE.read_text("utf-8"))
    kernel = open_kernel(
        Path(wanted).absolute() if wanted else _default_image(root, recipe["packages"], progress)
    )
    progress(f"making the initramfs for Linux {kernel.release}")
    busybox = find_busybox()
    # Taken before the files are read: a file that changes meanwhile makes the stamp stale, not wrong.
    sources = _fingerprints([kernel.image, kernel.modules / "modules.builtin", busybox, INIT, RECIPE])
    modules = _modules(kernel, recipe["modules"])
    content = cpio.archive(members(INIT.read_bytes(), busybox.read_bytes(), modules))
    digest = hashlib.sha256(kernel.image.read_bytes() + hashlib.sha256(content).digest()).hexdigest()
    # Named by content: a machine that boots meanwhile from an older one is not disturbed.
    files = BootFiles(kernel.image, root / f"initramfs-{digest[:16]}.cpio", kernel.release, digest)
    _replace(files.initramfs, content)
    _replace(stamp, json.dumps(_to_json(files, sources), indent=1).encode("utf-8"))
    return files


def _default_image(root: Path, packages: Mapping[str, Any], progress: Callable[[str], None]) -> Path:
    tree = root / "kernel"
    image = find_image(tree)
    if image is None:
        shutil.rmtree(tree, ignore_errors=True)
        try:
            unpack_default(tree, packages, progress)
        except KernelUnavailable:
            running = _running_image()
            if running is None:
                raise
            progress(f"no kernel package can be had: using the running kernel, {running}")
            return running
        image = find_image(tree)
    return image or tree / "boot" / "vmlinuz"


def _running_image() -> Path | None:
    """The image of the kernel that this host runs, where it is readable: Fedora and Arch have it there."""
    image = LIB_MODULES / platform.release() / "vmlinuz"
    try:
        return open_kernel(image).image
    except KernelUnavailable:
        return None


def _modules(kernel: GuestKernel, wanted: Sequence[str]) -> list[Module]:
    files = kernel.files()
    return load_order(
        wanted, kernel.builtin(), lambda name: read_module(files[name]) if name in files else None
    )


def members(init: bytes, busybox: bytes, modules: Sequence[Module]) -> list[cpio.Member]:
    """What the initramfs holds; ``modules.order`` lists the modules' files in the order to load them."""
    order = "".join(f"{module.name}.ko\n" for module in modules).encode("ascii")
    return [
        *(cpio.directory(name) for name in (*MOUNT_POINTS, "bin", "modules")),
        # The kernel opens it for init before anything is mounted.
        cpio.character_device("dev/console", 5, 1),
        cpio.file("bin/busybox", busybox, 0o755),
        *(cpio.symlink(f"bin/{applet}", "busybox") for applet in APPLETS),
        cpio.file("init", init, 0o755),
        *(cpio.file(f"modules/{module.name}.ko", module.data) for module in modules),
        cpio.file("modules.order", order),
    ]


def find_busybox() -> Path:
    """The statically linked busybox. Raises :class:`~pytest_smol.errors.ToolMissing`."""
    found = shutil.which("busybox") or shutil.which("busybox", path="/usr/bin:/bin")
    remedy = "install the package busybox-static"
    if found is None:
        raise ToolMissing("busybox is not installed", remedy=remedy)
    path = Path(found).resolve()
    if not is_static(path.read_bytes()):
        raise ToolMissing(f"{path} needs shared libraries, so it cannot run in an initramfs", remedy=remedy)
    return path


def is_static(program: bytes) -> bool:
    """Whether an ELF64 program names no dynamic loader; False for anything that is not one."""
    if not program.startswith(b"\x7fELF\x02\x01"):
        return False
    try:
        offset, size, count = (struct.unpack_from(form, program, at)[0] for at, form in ELF64.values())
        kinds = [struct.unpack_from("<I", program, offset + size * n)[0] for n in range(count)]
    except struct.error:
        return False
    return PT_INTERP not in kinds


def _fingerprints(paths: Iterable[Path]) -> dict[str, list[int]]:
    found = {str(path): path.stat() for path in paths}
    return {path: [status.st_ino, status.st_size, status.st_mtime_ns] for path, status in found.items()}


def _to_json(files: BootFiles, sources: Mapping[str, list[int]]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "kernel": str(files.kernel),
        "initramfs": files.initramfs.name,
        "release": files.release,
        "digest": files.digest,
        "size": files.initramfs.stat().st_size,
        "sources": sources,
    }


def _read_stamp(stamp: Path) -> BootFiles | None:
    """The files that ``stamp`` tells of, if nothing that they were made from has changed since."""
    try:
        table = json.loads(stamp.read_bytes())
        initramfs = stamp.parent / str(table["initramfs"])
        sources = table["sources"]
        fresh = (
            table["format"] == FORMAT
            and {str(INIT), str(RECIPE)} <= set(sources)
            and _fingerprints(map(Path, sources)) == sources
            and initramfs.stat().st_size == table["size"]
        )
        return (
            BootFiles(Path(table["kernel"]), initramfs, table["release"], table["digest"]) if fresh else None
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _replace(path: Path, content: bytes) -> None:
    """Write ``path`` so that no process ever sees a part of it. Raises OSError."""
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(scratch, path)
    except BaseException:
        os.unlink(scratch)
        raise


#: The kernel's parameters but for those that differ from machine to machine, with why.
#: Source of the names: the kernel's Documentation/admin-guide/kernel-parameters.txt.
PARAMETERS = (
    ("console=ttyS0", "the console is the evidence when a guest dies"),
    ("quiet", "every line costs an exit per character"),
    ("panic=-1", "a panic reboots at once, and QEMU runs with -no-reboot: it ends"),
    ("oops=panic", "a guest that has oopsed is not a machine to run tests on"),
    ("rdinit=/init", "guest/init"),
    ("smol.guest", "pytest_smol/plugin.py knows a guest by it; for the kernel a module's parameter"),
    ("random.trust_cpu=on", "no waiting for entropy"),
    ("init_on_alloc=1", "pages are zeroed by the guest before the file server fills them"),
    ("nowatchdog", "a frozen or starved guest is no fault of its own"),
    ("mitigations=off", "nothing in a guest is worth protecting from its only user"),
    ("audit=0", "no rules are ever loaded: these only cost boot time"),
    ("lsm=landlock,yama", "no policy is ever loaded for the others, and each is asked on every path"),
    ("psi=0", "nobody reads how long tasks wait, which is counted on every switch"),
    ("noautogroup", "there is one session to be fair to"),
    ("cgroup.memory=nokmem,nosocket", ""),
    ("sysctl.vm.stat_interval=3600", "a fork that waits has nothing to do"),
    ("sysctl.vm.compaction_proactiveness=0", ""),
    ("sysctl.vm.dirty_writeback_centisecs=0", "there is no disk to write to"),
    ("cryptomgr.notests", "the kernel's own tests of its ciphers take an eighth of an emulated boot"),
    ("tsc=reliable", "a guest that is frozen or starved must not distrust its clock"),
    ("no_timer_check", "the check fails on a busy host, and there is no other timer"),
    ("rcupdate.rcu_cpu_stall_suppress=1", "a host that pauses is no stall"),
)


def start_script(program: Sequence[str]) -> bytes:
    """The file START for ``program``, a path with arguments: shell code that guest/init reads with ``.``.

    Raises ValueError where ``program`` is empty or cannot be executed as it holds a NUL.
    """
    if not program or any("\0" in word for word in program):
        raise ValueError(f"not a program with arguments: {program!r}")
    return b"set -- %s\n" % os.fsencode(shlex.join(program))


def with_start(initramfs: Path, program: Sequence[str], directory: Path) -> Path:
    """A copy of ``initramfs`` in ``directory``, readable by the user only, that starts ``program``.

    The kernel unpacks archives that follow one another (its Documentation/driver-api/early-userspace/
    buffer-format.rst). Raises :class:`~pytest_smol.errors.DiskFull`.
    """
    content = initramfs.read_bytes() + cpio.archive([cpio.file(START, start_script(program), 0o600)])
    path = directory / "initramfs"
    try:
        _replace(path, content)
    except OSError as error:
        raise DiskFull(
            f"{path} could not be written: {error.strerror or error}",
            remedy="free some space there, or point TMPDIR to a larger file system",
        ) from error
    return path


def command_line(tsc_khz: int) -> str:
    """The kernel's command line, which is the same for all users and projects of a host.

    ``tsc_khz`` is the frequency of the time stamp counter in kHz (0: let the kernel find out).
    """
    parts = [name for name, _ in PARAMETERS]
    if tsc_khz:
        parts.append(f"tsc_early_khz={tsc_khz}")
    return " ".join(parts)


def parse_tsc_khz(cpuinfo: str) -> int:
    """kHz from the text of ``/proc/cpuinfo``. Linux derives bogomips from it: kHz * 2 / 1000.

    Raises :class:`~pytest_smol.errors.HostError` where no value stands.
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

    The kernel measures it against a timer otherwise, and on a busy host that
    measurement can fail, which hangs the guest before its first console line.
    """
    return parse_tsc_khz(cpuinfo())
