"""What L1 boots from: the kernel of the boot files, and an initramfs that loads its KVM modules as well."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pytest_smol.engines.protocol import Kernel
from pytest_smol.guest_os import boot_files, cpio, initramfs, kernel_parameters
from pytest_smol.guest_os.kernel import load_order, open_kernel, read_module
from pytest_smol.host import cache_directory

__all__ = ["COUNTED_TSC_KHZ", "KVM_MODULE", "kernel_for"]

#: TCG emulates AMD's virtualisation extension; it has no VMX.
KVM_MODULE = "kvm_amd"

#: With ``-icount shift=0`` an instruction is a nanosecond of virtual time, and the counter counts these.
COUNTED_TSC_KHZ = 1_000_000

#: What a guest's kernel is told and L1's is not: it would make pytest in L1 believe that it runs in a guest.
_OF_GUESTS = "smol.guest"


def kernel_for(directory: Path, program: Sequence[str], tsc_khz: int) -> Kernel:
    """The kernel of L1, with an initramfs in ``directory`` that starts ``program`` as PID 1.

    ``tsc_khz`` is the frequency of its time stamp counter. Raises :class:`~pytest_smol.errors.SmolError`
    where the boot files cannot be made, or their kernel has no module for AMD's SVM.
    """
    files = boot_files.prepare(cache_directory.directory(), None, print)
    kernel = open_kernel(files.kernel)
    recipe = json.loads(boot_files.RECIPE.read_text("utf-8"))
    found = kernel.files()
    modules = load_order(
        [*recipe["modules"], KVM_MODULE],
        kernel.builtin(),
        lambda name: read_module(found[name]) if name in found else None,
    )
    init, busybox = boot_files.INIT.read_bytes(), initramfs.find_busybox().read_bytes()
    archive = directory / "initramfs-without-start"
    archive.write_bytes(cpio.archive(initramfs.members(init, busybox, modules)))
    parameters = kernel_parameters.command_line(tsc_khz).split()
    parameters.remove(_OF_GUESTS)
    return Kernel(files.kernel, initramfs.with_start(archive, program, directory), " ".join(parameters))
