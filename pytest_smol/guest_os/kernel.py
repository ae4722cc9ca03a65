"""A Linux kernel on disk: its image, its release and its modules."""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_smol.errors import KernelUnavailable, ToolMissing

__all__ = ["GuestKernel", "Module", "load_order", "open_kernel", "release_of"]

#: The fields of the setup header that are read: name -> (offset, struct format).
#: Source: the kernel's Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".
SETUP_HEADER = {
    "setup_sects": (0x1F1, "<B"),
    "boot_flag": (0x1FE, "<H"),
    "header": (0x202, "<4s"),
    "kernel_version": (0x20E, "<H"),
}

#: ``kernel_version`` is an offset from this one in the image.
KERNEL_VERSION_BASE = 0x200

#: Directories that a kernel's modules may be in, relative to that of its image; ``{0}`` is the release.
MODULE_DIRECTORIES = (
    "../lib/modules/{0}",
    "../usr/lib/modules/{0}",
    "/lib/modules/{0}",
    "lib/modules/{0}",
    ".",
)

_NAMING = "name a bzImage whose modules are in ../lib/modules/RELEASE from there, or in /lib/modules"


@dataclass(frozen=True)
class Module:
    """A loadable module: its name with underscores, and the bytes of its ELF file."""

    name: str
    data: bytes

    @property
    def depends(self) -> tuple[str, ...]:
        """The names of the modules that must be loaded before it, from its ``.modinfo``.

        ``modules.dep`` has them too, but is made when a kernel package is installed,
        and missing where a package was only unpacked.
        """
        return tuple(name.replace("-", "_") for name in modinfo(self.data, "depends").split(",") if name)


@dataclass(frozen=True)
class GuestKernel:
    """A kernel image, its release and the directory of its modules."""

    image: Path
    release: str
    modules: Path

    def builtin(self) -> frozenset[str]:
        """Names of the modules that are part of the image."""
        try:
            lines = (self.modules / "modules.builtin").read_text("utf-8").split()
        except OSError:
            return frozenset()
        return frozenset(module_name(line) for line in lines)

    def files(self) -> dict[str, Path]:
        """The files of the modules that are not part of the image, by module name."""
        found = sorted((self.modules / "kernel").rglob("*.ko*"))
        return {module_name(path.name): path for path in found if path.suffix in DECOMPRESS}


def module_name(path: str) -> str:
    """The module's name for a file name: ``fs/fuse/virtio-fs.ko.xz`` gives ``virtio_fs``."""
    return os.path.basename(path).partition(".")[0].replace("-", "_")


def modinfo(module: bytes, key: str) -> str:
    """The first value of ``key`` in a module's ``.modinfo``: texts ``key=value``, each with a NUL."""
    _, mark, rest = module.partition(b"\0" + key.encode("ascii") + b"=")
    return rest.partition(b"\0")[0].decode("utf-8", "replace") if mark else ""


def release_of(image: bytes) -> str:
    """The release, as ``uname -r`` gives it, of a bzImage; ``image`` is its first 32 KiB or more.

    Raises :class:`~pytest_smol.errors.KernelUnavailable` for anything but a bzImage with a release.
    """
    try:
        fields = {name: struct.unpack_from(form, image, at)[0] for name, (at, form) in SETUP_HEADER.items()}
    except struct.error:
        fields = {}
    if fields.get("header") != b"HdrS" or fields.get("boot_flag") != 0xAA55:
        raise KernelUnavailable("the kernel is not an x86 bzImage", remedy=_NAMING)
    start = fields["kernel_version"] + KERNEL_VERSION_BASE
    words = image[start:].partition(b"\0")[0].split() if fields["kernel_version"] else []
    if not words or start >= (fields["setup_sects"] + 1) * 512:
        raise KernelUnavailable("the kernel does not say which release it is", remedy=_NAMING)
    release: str = words[0].decode("ascii", "replace")
    if "/" in release:
        raise KernelUnavailable(f"the kernel's release has a slash: {release!r}", remedy=_NAMING)
    return release


def open_kernel(image: Path) -> GuestKernel:
    """The kernel whose image is ``image``, with the directory of its modules.

    Raises :class:`~pytest_smol.errors.KernelUnavailable` where either cannot be found or read.
    """
    try:
        with image.open("rb") as file:
            release = release_of(file.read(0x10000))
    except OSError as error:
        raise KernelUnavailable(
            f"the kernel {image} cannot be read: {error.strerror}",
            remedy="name one that you may read, or leave smol_kernel unset",
        ) from error
    # The image may be a symbolic link: modules are looked for near the link, then near its target.
    for start in dict.fromkeys((image.absolute().parent, image.resolve().parent)):
        for pattern in MODULE_DIRECTORIES:
            modules = start / pattern.format(release)
            if (modules / "modules.builtin").is_file():
                return GuestKernel(image, release, modules.resolve())
    raise KernelUnavailable(f"the kernel {image} has no modules for its release {release}", remedy=_NAMING)


def _zstd(data: bytes) -> bytes:
    tool = shutil.which("zstd")
    if tool is None:
        raise ToolMissing(
            "this kernel's modules are compressed with zstd, and zstd is not installed",
            remedy="install the package zstd",
        )
    done = subprocess.run([tool, "-dcq"], input=data, capture_output=True, check=False)
    if done.returncode:
        raise OSError(done.stderr.decode("utf-8", "replace").strip())
    return done.stdout


#: How a module file is decompressed, by the suffix of its name.
DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".ko": bytes,
    ".xz": lzma.decompress,
    ".gz": gzip.decompress,
    ".zst": _zstd,
}


_MODULE = "reinstall that kernel's package, or name another kernel with smol_kernel"


def read_module(path: Path) -> Module:
    """The module in the file ``path``, decompressed.

    Raises :class:`~pytest_smol.errors.KernelUnavailable` for a damaged file
    and :class:`~pytest_smol.errors.ToolMissing` where zstd is needed.
    """
    try:
        data = DECOMPRESS[path.suffix](path.read_bytes())
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise KernelUnavailable(
            f"the kernel module {path} cannot be read: {error}", remedy=_MODULE
        ) from error
    if not data.startswith(b"\x7fELF"):
        raise KernelUnavailable(f"the kernel module {path} is no ELF file", remedy=_MODULE)
    return Module(module_name(path.name), data)


def load_order(
    wanted: Sequence[str], builtin: Iterable[str], read: Callable[[str], Module | None]
) -> list[Module]:
    """The modules ``wanted`` and all that they depend on, each after its own dependencies.

    Modules in ``builtin`` are left out. ``read`` returns the module of a name, or None
    where there is none. Raises
    :class:`~pytest_smol.errors.KernelUnavailable` that names the missing module.
    """
    settled = set(builtin)
    order: list[Module] = []

    def settle(name: str, needed_by: str) -> None:
        if name in settled:
            return
        settled.add(name)
        module = read(name)
        if module is None:
            raise KernelUnavailable(
                f"the kernel has no module {name}{needed_by}",
                remedy="choose a kernel with virtio-mmio, virtio-console, FUSE, virtio-fs and overlayfs",
            )
        for other in module.depends:
            settle(other, f", which {name} depends on")
        order.append(module)

    for name in wanted:
        settle(name, "")
    return order
