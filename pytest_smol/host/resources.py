"""What the host has left: memory, within the limits of this process's control groups."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pytest_smol.errors import NotEnoughMemory

__all__ = ["available_memory", "cores", "memory_domain", "needed_memory", "require_memory", "require_part"]

#: What an engine's process and this one need in addition to a guest's memory, in bytes.
_OVERHEAD = 64 << 20

#: cgroups of version 1 say so in bytes: some number near the greatest.
_NO_LIMIT = 1 << 60


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that can be used without swapping: /proc/meminfo's MemAvailable, or less by a cgroup's limit."""
    meminfo = (root / "proc/meminfo").read_text()
    lines = dict(line.split(":", 1) for line in meminfo.splitlines() if ":" in line)
    available = int(lines["MemAvailable"].split()[0]) << 10
    return min([available, *(room for _, room in _limits(root))])


def memory_domain(root: Path = Path("/")) -> str:
    """A name that is the same for all processes under one limit of memory: this boot, and the control group.

    Control groups without a limit are ignored, so without limits all processes of a user are in one domain.
    """
    parts = [next((str(group) for group, _ in _limits(root)), "")]
    with suppress(OSError):
        parts.append((root / "proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):  # a group of the same name in another container is another
        parts.append(os.readlink(root / "proc/self/ns/cgroup"))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _limits(root: Path) -> Iterator[tuple[Path, int]]:
    """The groups above this process that limit memory, innermost first, with what each leaves; cgroups(7)."""
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield from _room(root / "sys/fs/cgroup", path, "memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            yield from _room(root / "sys/fs/cgroup/memory", path, *names)


def _room(mount: Path, path: str, limit: str, usage: str) -> Iterator[tuple[Path, int]]:
    group = mount / path.lstrip("/")
    while group != mount.parent:
        try:
            most, used = (group / limit).read_text().strip(), (group / usage).read_text()
        except OSError:  # the root group has no limit, and a namespace may hide the others
            most, used = "max", "0"
        if most != "max" and int(most) < _NO_LIMIT:
            yield group, max(0, int(most) - int(used))
        group = group.parent


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def needed_memory(memory: int) -> int:
    """Bytes that a machine with a guest of ``memory`` MiB may come to use."""
    return (memory << 20) + _OVERHEAD


def require_memory(memory: int, root: Path = Path("/")) -> None:
    """Raise :class:`NotEnoughMemory` unless a guest of ``memory`` MiB fits."""
    available = available_memory(root)
    if available < needed_memory(memory):
        raise NotEnoughMemory(
            f"a guest of {memory} MiB needs more memory than the {available >> 20} MiB that are available",
            remedy="free some memory, raise this container's limit or lower --smol-memory",
        )


def require_part(memory: int, part: int | None) -> None:
    """Raise :class:`NotEnoughMemory` unless a guest of ``memory`` MiB fits into ``part``.

    That is what one of several processes may use, in bytes; None where there is one process.
    """
    if part is not None and part < needed_memory(memory):
        raise NotEnoughMemory(
            f"a guest of {memory} MiB needs more memory than the {part >> 20} MiB"
            " that are available to each worker",
            remedy="start fewer workers (-n), free some memory, or lower --smol-memory",
        )
