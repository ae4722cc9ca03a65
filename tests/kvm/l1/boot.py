"""What L1 boots from: the boot files of guests that run machines themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytest_smol.engines.protocol import Kernel
from pytest_smol.guest_os import boot_files, initramfs, kernel_parameters
from pytest_smol.host import cache_directory

__all__ = ["kernel_for"]

#: The time stamp counter counts nanoseconds of QEMU's virtual time, with ``-icount``.
TSC_KHZ = 1_000_000


def kernel_for(directory: Path, program: Sequence[str]) -> Kernel:
    """The kernel of L1, with an initramfs in ``directory`` that starts ``program`` as PID 1.

    Raises :class:`~pytest_smol.errors.SmolError`
    where the boot files cannot be made, or their kernel has no KVM.
    """
    files = boot_files.prepare(cache_directory.directory(), None, print)
    archive = initramfs.with_start(files.initramfs, program, directory, boot_files.kvm_modules(files))
    return Kernel(files.kernel, archive, kernel_parameters.command_line(TSC_KHZ, nested=True))
