"""What L1 sees of this host: the system, the interpreter, the checkout and the boot files, all read-only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pytest_smol.guest_os.host_paths import add, reach
from pytest_smol.guest_os.host_view import base_view
from pytest_smol.host import cache_directory
from pytest_smol.virtiofs.hiding.rules import Hiding
from pytest_smol.virtiofs.view import Entry, View

__all__ = ["ROOT", "view_of_host"]

#: The checkout that this is a part of.
ROOT = Path(__file__).parents[3]

#: L1 is the host of the tests, so nothing is hidden from it but the memory of other runs.
_NOTHING_HIDDEN = Hiding(
    credentials=(),
    environments=(),
    keys=(),
    suspects=(),
    public=(),
    test_modules=(),
    installed=(),
    redacted=(),
)


def view_of_host(extra: Sequence[Path] = ()) -> View:
    """The root of L1, with the files and directories ``extra``. Raises OSError where one is missing."""
    base = base_view(hidden=_NOTHING_HIDDEN)
    boot = cache_directory.location(os.environ) / "boot"
    entries: dict[str, Entry] = {}
    for path in (ROOT, boot, *extra):
        add(entries, reach(os.path.abspath(path)))
    return base.union(entries)
