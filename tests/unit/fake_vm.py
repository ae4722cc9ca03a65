"""A virtual machine that is none: sockets whose other ends are the test's, no memory and no file requests."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from pytest_smol.engines.protocol import PORTS, ExitEvidence
from pytest_smol.virtiofs.backend import FsBackend, Loop
from pytest_smol.virtiofs.filesystem.tree import Tree
from pytest_smol.virtiofs.virtio.memory import Memory, Segment

__all__ = ["FakeTransport", "FakeVm"]


class _NoMemory(Memory):
    """The memory of a guest that has no queue, so that nothing reads or writes it."""

    def read(self, segments: Sequence[Segment]) -> bytes:
        raise AssertionError(segments)

    def write(self, segments: Sequence[Segment], data: bytes) -> None:
        raise AssertionError(segments)


class FakeTransport:
    """Leads to a guest that asks for no file; implements ``Transport``."""

    def serve(self, loop: Loop, tree: Tree) -> FsBackend:
        return FsBackend(loop, _NoMemory(), tree)


class FakeVm:
    """Implements ``VirtualMachine`` with pairs of sockets; ``guest_ports`` are the guest's ends."""

    pid = 0
    stopped = False
    disk_error = ""
    event_fds: Sequence[int] = ()

    def __init__(self) -> None:
        self.transport = FakeTransport()
        self.stack = ExitStack()
        pairs = {name: socket.socketpair() for name in ("console", *PORTS)}
        self.ports: Mapping[str, socket.socket] = {
            name: self.stack.enter_context(mine) for name, (mine, _) in pairs.items()
        }
        self.guest_ports = {name: self.stack.enter_context(other) for name, (_, other) in pairs.items()}

    def start(self, state: Path | None = None) -> None:
        """It runs already."""

    def running(self) -> bool:
        return True

    def freeze(self, state: Path) -> None:
        raise AssertionError("it has no state")

    def wait_ended(self, timeout: float) -> None:
        """It has no process."""

    def exit_evidence(self) -> ExitEvidence:
        return ExitEvidence("QEMU closed its connections")

    def kill(self) -> None:
        """It has no process."""

    def close(self) -> None:
        self.stack.close()
