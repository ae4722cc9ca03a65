"""The back end of one vhost-user connection: its messages set up the guest's memory and queues.

The other end, in the engine's process, is the front end.
Source: QEMU's "Vhost-user Protocol" specification (docs/interop/vhost-user.rst).
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

from pytest_smol.errors import ProtocolError
from pytest_smol.virtiofs.backend import FsBackend, Loop, close_fds
from pytest_smol.virtiofs.filesystem.tree import Tree
from pytest_smol.virtiofs.vhost_user import session
from pytest_smol.virtiofs.vhost_user.messages import MAX_REGIONS, Decoder, Message
from pytest_smol.virtiofs.virtio.memory import Memory, ProcessMemory

__all__ = ["VhostUserFsBackend", "VhostUserTransport"]

NO_WAIT = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


@dataclass(frozen=True)
class VhostUserTransport:
    """The guest in the engine's process ``pid``, whose vhost-user front end has the other end of ``sock``.

    ``pid`` is a child of this process that is not reaped before the back end is closed. The
    back end owns ``sock``.
    """

    sock: socket.socket
    pid: int

    def serve(self, loop: Loop, tree: Tree) -> VhostUserFsBackend:
        """As :meth:`Transport.serve`."""
        return VhostUserFsBackend(loop, self.sock, ProcessMemory(self.pid), tree)


class VhostUserFsBackend(FsBackend):
    """As :class:`FsBackend`; owns ``sock`` as well."""

    def __init__(self, loop: Loop, sock: socket.socket, memory: Memory, tree: Tree) -> None:
        super().__init__(loop, memory, tree)
        self._sock = sock
        self._backend = session.Backend()
        self._decoder = Decoder()
        self._load_fd: int | None = None
        self._loaded = b""
        self.watch(sock.fileno(), self._receive)

    def release(self) -> None:
        """As :meth:`FsBackend.release`."""
        close_fds(self._load_fd, *self._decoder.close())
        self._sock.close()

    # vhost-user

    def _receive(self) -> None:
        try:
            data, fds = _receive(self._sock, self._decoder.missing)
        except BlockingIOError:
            return
        if not data:
            self._stop()
            return
        for message in self._decoder.feed(data, fds):
            self._handle(message)

    def _handle(self, message: Message) -> None:
        taken: int | None = None
        try:
            event, reply = self._backend.receive(message)
            taken = getattr(event, "fd", None)
            if event is not None:
                reply = _EVENTS[type(event)](self, event) or reply
            if reply:
                self._send(reply)
        finally:
            close_fds(*(fd for fd in message.fds if fd != taken))

    def _send(self, reply: bytes) -> None:
        try:
            sent = self._sock.send(reply, NO_WAIT)
        except BlockingIOError:
            sent = 0
        if sent != len(reply):
            raise ProtocolError("the virtual machine does not read the replies to its vhost-user messages")

    def _set_memory(self, event: session.MemoryTable) -> None:
        self._memory.set_table(event.regions)
        self.check_queues()  # the new table may lack memory, but not that of a running ring

    def _set_kick(self, event: session.RingKick) -> None:
        self.set_kick(event.ring, event.fd)
        self._run_or_stop(event.ring)

    def _set_call(self, event: session.RingCall) -> None:
        self.set_call(event.ring, event.fd)

    def _enable(self, event: session.RingEnabled) -> None:
        self._run_or_stop(event.ring)

    def _run_or_stop(self, index: int) -> None:
        """A ring runs while it has a kick and is enabled."""
        ring = self._backend.rings[index]
        if ring.enabled and self.has_kick(index):
            self.start_queue(index, ring.num, ring.addresses, ring.base)
        elif (base := self.stop_queue(index)) is not None:
            ring.base = base

    def _stop_ring(self, event: session.RingStopped) -> bytes:
        self.drop_kick(event.ring)
        self._run_or_stop(event.ring)
        return self._backend.vring_base(event.ring)

    # Device state

    def _save(self, event: session.SaveState) -> None:
        try:
            os.set_blocking(event.fd, False)
            # Shorter than any pipe's buffer, so it is taken whole or not at all.
            if os.write(event.fd, session.STATE) != len(session.STATE):
                raise ProtocolError("the virtual machine does not take the device's state")
        finally:
            close_fds(event.fd)

    def _load(self, event: session.LoadState) -> None:
        # The front end writes it only after our reply, so it is read when it has come.
        self._drop_load()
        self._load_fd, self._loaded = event.fd, b""
        os.set_blocking(event.fd, False)
        self.watch(event.fd, self._read_state)

    def _drop_load(self) -> None:
        fd, self._load_fd = self._load_fd, None
        if fd is not None:
            self.unwatch(fd)
            close_fds(fd)

    def _read_state(self) -> None:
        while (fd := self._load_fd) is not None:
            try:
                data = os.read(fd, 4096)
            except BlockingIOError:
                return
            self._loaded += data
            if not data or len(self._loaded) > len(session.STATE):
                self._drop_load()
                return

    def _check_state(self, event: session.CheckState) -> bytes:
        self._read_state()
        whole = self._load_fd is None and self._loaded in (b"", session.STATE)
        return self._backend.state_checked(whole)


def _receive(sock: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """Up to ``size`` bytes and the file descriptors that came with them."""
    ints = array.array("i")
    room = socket.CMSG_SPACE(MAX_REGIONS * ints.itemsize)
    data, ancillary, _, _ = sock.recvmsg(size, room, NO_WAIT | socket.MSG_CMSG_CLOEXEC)
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            ints.frombytes(payload[: len(payload) // ints.itemsize * ints.itemsize])
    return data, list(ints)


_EVENTS: dict[type, Callable[..., bytes | None]] = {
    session.MemoryTable: VhostUserFsBackend._set_memory,
    session.RingKick: VhostUserFsBackend._set_kick,
    session.RingCall: VhostUserFsBackend._set_call,
    session.RingEnabled: VhostUserFsBackend._enable,
    session.RingStopped: VhostUserFsBackend._stop_ring,
    session.SaveState: VhostUserFsBackend._save,
    session.LoadState: VhostUserFsBackend._load,
    session.CheckState: VhostUserFsBackend._check_state,
}
