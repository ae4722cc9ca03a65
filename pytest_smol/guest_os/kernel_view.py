"""What a guest sees of its own kernel's modules, and a modprobe for hosts that have none.

The entries are below one directory, because a view has nothing of its own in ``/usr``, where the host's
files are. ``guest/surroundings.py`` makes the symbolic links there that lead to them.
"""

from __future__ import annotations

import os
from pathlib import Path

from pytest_smol.guest_os.boot_files import BootFiles
from pytest_smol.guest_os.module_index import SUBDIRECTORIES
from pytest_smol.virtiofs.view import Entry, HostPath

__all__ = ["kernel_entries"]

#: Where a guest finds all this; guest/surroundings.py has the same path.
PLACE = "/var/lib/pytest-smol"

#: Files of a kernel package that belong to the module indexes and are not made by depmod.
_OF_THE_PACKAGE = ("modules.order", "modules.builtin", "modules.builtin.modinfo")


def kernel_entries(files: BootFiles) -> dict[str, Entry]:
    """The entries of a view for the modules of the kernel in ``files``, and for busybox."""
    modules = f"{PLACE}/modules/{files.release}"
    shown = [files.modules / name for name in (*SUBDIRECTORIES, *_OF_THE_PACKAGE)]
    entries = {f"{modules}/{path.name}": _host_path(path) for path in shown if path.exists()}
    entries.update({f"{modules}/{path.name}": _host_path(path) for path in sorted(files.index.iterdir())})
    return {**entries, f"{PLACE}/bin/busybox": _host_path(files.busybox)}


def _host_path(path: Path) -> HostPath:
    return HostPath(os.path.realpath(path))
