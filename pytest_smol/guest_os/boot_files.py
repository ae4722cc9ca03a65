"""The kernel, initramfs and module indexes that a guest boots from, made once and kept in the user's cache.

A JSON file next to them, the stamp, records every file that they were made from as a file
dependency. While these are unchanged, as :mod:`pytest_smol.virtiofs.dependencies.comparison`
compares them, the boot files are used. Where only inode numbers or times differ, as in a copied
tree or a fresh container, the stamp is updated.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from pytest_smol.errors import DiskFull, KernelUnavailable
from pytest_smol.guest_os import cpio, initramfs
from pytest_smol.guest_os.kernel import GuestKernel, Module, load_order, open_kernel, read_module
from pytest_smol.guest_os.kernel_package import find_image, unpack_default
from pytest_smol.guest_os.module_index import index_files, read_modules
from pytest_smol.host.atomic_file import replace_file
from pytest_smol.virtiofs.dependencies.comparison import compare
from pytest_smol.virtiofs.dependencies.dependency import FileDependency, content_digest

__all__ = ["BootFiles", "kvm_modules", "prepare"]

#: The version of the stamp and of the initramfs; a stamp of another version is not used.
FORMAT = 3

PACKAGE = Path(__file__).parents[1]
INIT = PACKAGE / "guest" / "init"
RECIPE = PACKAGE / "images" / "kernel.json"

#: Where distributions install kernel modules, by release; some install the kernel's image there too.
LIB_MODULES = Path("/lib/modules")


@dataclass(frozen=True)
class BootFiles:
    """A kernel image of ``release`` and an initramfs for it.

    ``digest`` is that of the content of both files; it is part of a snapshot's key.
    ``modules`` is the directory of the kernel's modules, and ``index`` the one with the files in
    which modprobe looks them up. ``busybox`` is the program that the initramfs has.
    """

    kernel: Path
    initramfs: Path
    release: str
    digest: str
    modules: Path
    index: Path
    busybox: Path


def prepare(cache: Path, kernel: str | None, progress: Callable[[str], None]) -> BootFiles:
    """The boot files for ``kernel`` in the directory ``cache``, made where they are missing.

    ``kernel`` is the path of a bzImage, or None for the distribution's kernel.
    ``progress`` is called with a line before each step that takes long. Raises
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
    """The name of a stamp: of the kernel and of the installation of this package, whose files are sources."""
    image = "" if kernel is None else os.path.abspath(kernel)
    return hashlib.sha256(f"{image}\0{PACKAGE}".encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _build(root: Path, stamp: Path, wanted: str | None, progress: Callable[[str], None]) -> BootFiles:
    recipe = json.loads(RECIPE.read_text("utf-8"))
    kernel = open_kernel(
        Path(wanted).absolute() if wanted else _default_image(root, recipe["packages"], progress)
    )
    progress(f"making the initramfs for Linux {kernel.release}")
    busybox = initramfs.find_busybox()
    # Before the files are read: if one of them is changed meanwhile, the stamp does not match it.
    made_from = [kernel.image, kernel.modules / "modules.builtin", busybox, INIT, RECIPE]
    sources = {str(path): _dependency(path) for path in made_from}
    modules = _modules(kernel, recipe["modules"])
    for_disks = [
        each for each in _modules(kernel, recipe["modules"] + recipe["disks"]) if each not in modules
    ]
    content = cpio.archive(initramfs.members(INIT.read_bytes(), busybox.read_bytes(), modules, for_disks))
    digest = hashlib.sha256(kernel.image.read_bytes() + hashlib.sha256(content).digest()).hexdigest()
    # Named by content, as a machine may be booting from an older one.
    archive = root / f"initramfs-{digest[:16]}.cpio"
    index = _write_index(root, kernel)
    files = BootFiles(kernel.image, archive, kernel.release, digest, kernel.modules, index, busybox)
    _keep_or_replace(files.initramfs, content)
    _write_stamp(stamp, files, sources)
    return files


def _keep_or_replace(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` unless it is there: guests of another run may depend on the inode."""
    try:
        if path.read_bytes() == content:
            return
    except FileNotFoundError:
        pass
    replace_file(path, content)


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
    """The image of the kernel that this host runs if it is readable, as on Fedora and Arch; else None."""
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


def _dependency(path: Path) -> FileDependency:
    """The file at ``path``, or where a symbolic link there leads, with a digest of it. Raises OSError."""
    real = path.resolve()
    found = real.stat()
    digest = content_digest(str(real), found.st_mode)
    return FileDependency(
        str(real), found.st_mode, found.st_ino, found.st_size, found.st_mtime_ns, content=digest
    )


def kvm_modules(files: BootFiles) -> bytes:
    """The archive that an initramfs of a guest that runs machines has in addition.

    Raises :class:`~pytest_smol.errors.KernelUnavailable` where the kernel has no KVM.
    """
    kernel = open_kernel(files.kernel)
    recipe = json.loads(RECIPE.read_text("utf-8"))
    loaded = {module.name for module in _modules(kernel, recipe["modules"])}
    orders = [
        [module for module in _modules(kernel, [name]) if module.name not in loaded] for name in recipe["kvm"]
    ]
    return initramfs.kvm_archive(orders)


def _write_index(root: Path, kernel: GuestKernel) -> Path:
    """The directory below ``root`` with the index files of the kernel's modules, named by their content."""
    info = kernel.modules / "modules.builtin.modinfo"
    files = index_files(read_modules(kernel), kernel.builtin(), info.read_bytes() if info.is_file() else b"")
    digest = hashlib.sha256(b"".join(files[name] for name in sorted(files))).hexdigest()
    directory = root / f"modules-{digest[:16]}"
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        _keep_or_replace(directory / name, content)
    return directory


def _to_json(files: BootFiles, sources: Mapping[str, FileDependency]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "kernel": str(files.kernel),
        "initramfs": files.initramfs.name,
        "release": files.release,
        "digest": files.digest,
        "modules": str(files.modules),
        "index": files.index.name,
        "busybox": str(files.busybox),
        "size": files.initramfs.stat().st_size,
        "sources": {path: list(source) for path, source in sources.items()},
    }


def _write_stamp(stamp: Path, files: BootFiles, sources: Mapping[str, FileDependency]) -> None:
    replace_file(stamp, json.dumps(_to_json(files, sources), indent=1).encode("utf-8"))


def _read_stamp(stamp: Path) -> BootFiles | None:
    """The boot files that ``stamp`` records; None if it is damaged or one of their sources has changed."""
    try:
        table = json.loads(stamp.read_bytes())
        archive = stamp.parent / str(table["initramfs"])
        index = stamp.parent / str(table["index"])
        known = {path: FileDependency.from_json(row) for path, row in table["sources"].items()}
        if (
            table["format"] != FORMAT
            or not {str(INIT), str(RECIPE)} <= set(known)
            or archive.stat().st_size != table["size"]
            or not (index / "modules.dep").is_file()
        ):
            return None
        now = compare(tuple(known.values()))
        if now.reason or any(os.path.realpath(path) != source.path for path, source in known.items()):
            return None
        places = (Path(table["modules"]), index, Path(table["busybox"]))
        files = BootFiles(Path(table["kernel"]), archive, table["release"], table["digest"], *places)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    sources = {
        path: source._replace(ino=identity.ino, mtime_ns=identity.mtime_ns)
        for (path, source), identity in zip(known.items(), now.identities, strict=True)
    }
    if sources != known:
        with suppress(OSError):  # it only saves comparing contents the next time
            _write_stamp(stamp, files, sources)
    return files
