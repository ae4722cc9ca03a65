"""Whether the tests of a run ran in machines: by the boot ids that the plugin ``smol_boot_ids`` records."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

__all__ = ["PLUGIN", "BootIds", "host_boot_id", "outside_machines", "parse"]

#: The plugin, to be copied to where the runs import it from.
PLUGIN = Path(__file__).with_name("smol_boot_ids.py")

#: The boot ids of the kernels on which each test ran, by the test's node id or name.
BootIds = Mapping[str, Collection[str]]


def host_boot_id() -> str:
    """The boot id of the kernel that this process runs on."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def parse(text: str) -> dict[str, frozenset[str]]:
    """What the plugin wrote as ``text``. Raises :class:`ValueError` for a text that it did not write."""
    table = json.loads(text)
    if not isinstance(table, dict) or not all(isinstance(ids, list) for ids in table.values()):
        raise ValueError("not written by smol_boot_ids")
    return {nodeid: frozenset(map(str, ids)) for nodeid, ids in table.items()}


def outside_machines(found: BootIds, host: str) -> str:
    """Why it is not proven that all tests of a run ran in machines; empty if it is.

    ``host`` is the host's boot id. A run without tests proves nothing, and neither does a test without a
    boot id.
    """
    if not found:
        return "no test ran"
    on_host = sorted(name for name, ids in found.items() if host in ids)
    if on_host:
        return f"on the host ran {', '.join(on_host)}"
    unknown = sorted(name for name, ids in found.items() if not ids)
    return f"no machine reported {', '.join(unknown)}" if unknown else ""
