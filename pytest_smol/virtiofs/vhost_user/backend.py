"""One machine's file system: a vhost-user connection, its rings and the tree behind them.

Nothing here waits for a peer: each read and write of a socket, pipe or eventfd
returns at once, and a guest that asks without end gets its turn like others.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pytest_smol.errors import MachineError, ProtocolError, SmolError
from pytest_smol.virtiofs.filesystem.tree import Tree
from pytest_smol.virtiofs.fuse import Opcode
from pytest_smol.virtiofs.vhost_user import session
from pytest_smol.virtiofs.vhost_user.messages import MAX_REGIONS, Decoder, Message
from pytest_smol.virtiofs.virtio.memory import Memory
from pytest_smol.virtiofs.virtio.vring import Vring

__all__ = ["Loop", "Mount"]

BATCH = 16  # requests of one ring before others have their turn
SLICE = 0.02  # and seconds, for some requests cost a thousand times as much as others
SIGNAL = (1).to_bytes(8, "little")
NO_WAIT = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
OPCODE_NAMES = {opcode.value: opcode.name for opcode in Opcode}


class Loop(Protocol):
    """What a mount needs of the server."""

    def watch(self, fd: int, mount: Mount) -> None:
        """Call ``mount.ready(fd)`` whenever ``fd`` can be read."""

    def unwatch(self, fd: int) -> None:
        """Do so no more."""

    def closed(self, mount: Mount) -> None:
        """The mount is closed, and needs nothing any more."""


@dataclass
class Queue:
    """A ring's eventfds, and the ring itself while it runs."""

    kick: int | None = None
    call: int | None = None
    vring: Vring | None = None


class Mount:
    """One machine's file system, served until :meth:`close` or a failure.

    ``failure`` is set when the guest or QEMU broke a protocol; ``failed_fd``, an
    eventfd, becomes readable then. That QEMU ends is no failure. The mount owns
    ``sock`` and ``tree``.
    """

    def __init__(self, loop: Loop, sock: socket.socket, memory: Memory, tree: Tree) -> None:
        self.failure: SmolError | None = None
        self.failed_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._loop = loop
        self._sock = sock
        self._memory = memory
        self._tree = tree
        self._backend = session.Backend()
        self._decoder = Decoder()
        self._queues = [Queue() for _ in self._backend.rings]
        self._load_fd: int | None = None
        self._loaded = b""
        self._watched: dict[int, Callable[[], None]] = {}
        self._counts: Counter[int] = Counter()
        self._lock = threading.RLock()
        self._serving = True
        self._closed = False
        with self._lock:
            self._watch(sock.fileno(), self._receive)

    @property
    def requests(self) -> Counter[str]:
        """How many requests of each opcode were answered, by the opcode's name."""
        counts: Counter[str] = Counter()
        for opcode, count in self._counts.copy().items():
            counts[OPCODE_NAMES.get(opcode, "unknown")] += count
        return counts

    def close(self) -> None:
        """Stop serving and close all that is open; for any thread, any number of times.

        When it returns no system call touches the QEMU process any more.
        """
        with self._lock:
            self._stop()
            if not self._closed:
                self._closed = True
                os.close(self.failed_fd)
                self._loop.closed(self)

    def ready(self, fd: int) -> None:
        """``fd`` can be read: do what it is watched for. Never raises. For the server's thread."""
        with self._lock:
            callback = self._watched.get(fd)
            if callback is None:
                return
            try:
                callback()
            except SmolError as error:
                self._fail(error)
            except (ProcessLookupError, ConnectionError):
                self._stop()  # QEMU is gone, which its owner learns by itself
            except OSError as error:
                self._fail(ProtocolError(f"QEMU sent a file descriptor that cannot be used: {error}"))
            except Exception as error:  # a mistake of ours must not stop all other machines
                self._fail(MachineError(f"the file server failed: {error!r}"))

    def _fail(self, error: SmolError) -> None:
        self.failure = error
        self._stop()
        os.write(self.failed_fd, SIGNAL)

    def _stop(self) -> None:
        if not self._serving:
            return
        self._serving = False
        for fd in list(self._watched):
            self._unwatch(fd)
        for queue in self._queues:
            queue.vring = None
            _close(queue.kick, queue.call)
        _close(self._load_fd, *self._decoder.close())
        self._sock.close()
        self._tree.close()

    def _watch(self, fd: int, callback: Callable[[], None]) -> None:
        self._loop.watch(fd, self)  # raises OSError for what cannot be waited for
        self._watched[fd] = callback

    def _unwatch(self, fd: int) -> None:
        if self._watched.pop(fd, None) is not None:
            self._loop.unwatch(fd)

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
            _close(*(fd for fd in message.fds if fd != taken))

    def _send(self, reply: bytes) -> None:
        try:
            sent = self._sock.send(reply, NO_WAIT)
        except BlockingIOError:
            sent = 0
        if sent != len(reply):
            raise ProtocolError("QEMU does not read the replies to its vhost-user messages")

    def _set_memory(self, event: session.MemoryTable) -> None:
        self._memory.set_table(event.regions)
        for queue in self._queues:
            if queue.vring is not None:
                queue.vring.check()  # QEMU may take away memory, but not from under a ring

    def _set_kick(self, event: session.RingKick) -> None:
        queue = self._queues[event.ring]
        self._drop_kick(queue)
        queue.kick = event.fd
        os.set_blocking(event.fd, False)
        self._watch(event.fd, lambda: self._kicked(event.ring))
        self._run_or_stop(event.ring)

    def _set_call(self, event: session.RingCall) -> None:
        queue = self._queues[event.ring]
        _close(queue.call)
        queue.call = event.fd
        if event.fd is not None:
            os.set_blocking(event.fd, False)

    def _enable(self, event: session.RingEnabled) -> None:
        self._run_or_stop(event.ring)

    def _run_or_stop(self, index: int) -> None:
        """A ring runs while it has a kick and is enabled."""
        ring, queue = self._backend.rings[index], self._queues[index]
        runs = ring.enabled and queue.kick is not None
        if runs and queue.vring is None:
            queue.vring = Vring(self._memory, ring.num, ring.addresses, ring.base)
            # What the guest made available earlier, it announced to another server.
            self._process(index)
        elif not runs and queue.vring is not None:
            ring.base = queue.vring.last_avail
            queue.vring = None

    def _stop_ring(self, event: session.RingStopped) -> bytes:
        self._drop_kick(self._queues[event.ring])
        self._run_or_stop(event.ring)
        return self._backend.vring_base(event.ring)

    def _drop_kick(self, queue: Queue) -> None:
        if queue.kick is not None:
            self._unwatch(queue.kick)
            _close(queue.kick)
            queue.kick = None

    # Device state

    def _save(self, event: session.SaveState) -> None:
        try:
            os.set_blocking(event.fd, False)
            # Shorter than any pipe's buffer, so it is taken whole or not at all.
            if os.write(event.fd, session.STATE) != len(session.STATE):
                raise ProtocolError("QEMU does not take the device's state")
        finally:
            _close(event.fd)

    def _load(self, event: session.LoadState) -> None:
        # QEMU writes it only after our reply, so it is read when it has come.
        self._drop_load()
        self._load_fd, self._loaded = event.fd, b""
        os.set_blocking(event.fd, False)
        self._watch(event.fd, self._read_state)

    def _drop_load(self) -> None:
        fd, self._load_fd = self._load_fd, None
        if fd is not None:
            self._unwatch(fd)
            _close(fd)

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

    # Requests

    def _kicked(self, index: int) -> None:
        kick = self._queues[index].kick
        if kick is not None:
            with contextlib.suppress(BlockingIOError):
                os.read(kick, 8)
            self._process(index)

    def _process(self, index: int) -> None:
        queue = self._queues[index]
        if queue.vring is None:
            return
        end = time.monotonic() + SLICE
        notify, more = queue.vring.process(self._answer, BATCH, lambda: time.monotonic() >= end)
        if notify and queue.call is not None:
            _signal(queue.call)
        if more and queue.kick is not None:
            _signal(queue.kick)  # our own turn again, after everyone else's

    def _answer(self, request: bytes, room: int) -> bytes | None:
        opcode = int.from_bytes(request[4:8], "little")
        # One count for all that are unknown: a guest can think of four milliards of them.
        self._counts[opcode if opcode in OPCODE_NAMES else 0] += 1
        return self._tree.dispatch(request, room)


def _signal(fd: int) -> None:
    with contextlib.suppress(BlockingIOError):  # its counter is full: it is signalled
        os.write(fd, SIGNAL)


def _close(*fds: int | None) -> None:
    for fd in fds:
        if fd is not None:
            os.close(fd)


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
    session.MemoryTable: Mount._set_memory,
    session.RingKick: Mount._set_kick,
    session.RingCall: Mount._set_call,
    session.RingEnabled: Mount._enable,
    session.RingStopped: Mount._stop_ring,
    session.SaveState: Mount._save,
    session.LoadState: Mount._load,
    session.CheckState: Mount._check_state,
}
