"""The device side of one virtio-fs device: a guest's memory, its queues, and the tree that answers requests.

How memory is reached and how queues are set up is the transport's: a subclass is told by
vhost-user messages (:mod:`pytest_smol.virtiofs.vhost_user.transport`); an engine in this process
calls :meth:`FsBackend.start_queue` itself. Nothing here blocks: each read and write of a socket, pipe or
eventfd returns at once, and of each guest a limited number of requests is answered in a row.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pytest_smol.errors import MachineError, ProtocolError, SmolError
from pytest_smol.virtiofs.filesystem.tree import Tree
from pytest_smol.virtiofs.fuse import Opcode
from pytest_smol.virtiofs.virtio.memory import Memory
from pytest_smol.virtiofs.virtio.vring import Addresses, Vring

__all__ = ["BATCH", "QUEUES", "SLICE", "FsBackend", "Loop", "Transport", "close_fds"]

#: The high priority queue, which carries FORGET, and one request queue (virtio 1.2, section 5.11.2).
QUEUES = 2

BATCH = 16  # requests of one queue before others have their turn
SLICE = 0.02  # and seconds, for some requests cost a thousand times as much as others
SIGNAL = (1).to_bytes(8, "little")
OPCODE_NAMES = {opcode.value: opcode.name for opcode in Opcode}


class Loop(Protocol):
    """What a back end needs of the server."""

    def watch(self, fd: int, backend: FsBackend) -> None:
        """Call ``backend.ready(fd)`` whenever ``fd`` can be read. Raises OSError where poll cannot."""

    def unwatch(self, fd: int) -> None:
        """Do so no more."""

    def closed(self, backend: FsBackend) -> None:
        """The back end is closed, and needs nothing any more."""


class Transport(Protocol):
    """A guest memory and its queues, as an engine offers them to the file server."""

    def serve(self, loop: Loop, tree: Tree) -> FsBackend:
        """A back end that answers the guest's requests with ``tree``, which it owns from now on."""


@dataclass
class Queue:
    """A virtqueue's eventfds, and its ring while it runs."""

    kick: int | None = None
    call: int | None = None
    vring: Vring | None = None


class FsBackend:
    """One machine's file system, served until :meth:`close` or a failure.

    ``failure`` is set when the guest or its engine broke a protocol; ``failed_fd``, an
    eventfd, becomes readable then. That the engine's process ends is no failure. The back end
    owns ``tree``. Methods are for the server's thread, but for :meth:`close` and what says so.
    """

    def __init__(self, loop: Loop, memory: Memory, tree: Tree) -> None:
        self.failure: SmolError | None = None
        self.failed_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._loop = loop
        self._memory = memory
        self._tree = tree
        self._queues = [Queue() for _ in range(QUEUES)]
        self._watched: dict[int, Callable[[], None]] = {}
        self._counts: Counter[int] = Counter()
        self._lock = threading.RLock()
        self._serving = True
        self._closed = False

    @property
    def requests(self) -> Counter[str]:
        """How many requests of each opcode were answered, by the opcode's name. For any thread."""
        counts: Counter[str] = Counter()
        for opcode, count in self._counts.copy().items():
            counts[OPCODE_NAMES.get(opcode, "unknown")] += count
        return counts

    def close(self) -> None:
        """Stop serving and close all that is open; for any thread, any number of times.

        When it returns the guest's memory is not touched any more.
        """
        with self._lock:
            self._stop()
            if not self._closed:
                self._closed = True
                os.close(self.failed_fd)
                self._loop.closed(self)

    def ready(self, fd: int) -> None:
        """``fd`` can be read: do what it is watched for. Never raises."""
        with self._lock:
            callback = self._watched.get(fd)
            if callback is None:
                return
            try:
                callback()
            except SmolError as error:
                self._fail(error)
            except (ProcessLookupError, ConnectionError):
                self._stop()  # the engine's process is gone, which its owner learns by itself
            except OSError as error:
                self._fail(
                    ProtocolError(f"the virtual machine gave a file descriptor that cannot be used: {error}")
                )
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
            self.unwatch(fd)
        for queue in self._queues:
            queue.vring = None
            close_fds(queue.kick, queue.call)
        self.release()
        self._tree.close()

    def release(self) -> None:
        """Close what the transport owns; called once, when serving ends."""

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever ``fd`` can be read. Raises OSError for what cannot be waited for."""
        with self._lock:
            self._loop.watch(fd, self)
            self._watched[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Do so no more; idempotent."""
        if self._watched.pop(fd, None) is not None:
            self._loop.unwatch(fd)

    # Queues

    def set_kick(self, index: int, fd: int) -> None:
        """Take over ``fd``, the eventfd on which the guest announces requests of queue ``index``."""
        self.drop_kick(index)
        self._queues[index].kick = fd
        os.set_blocking(fd, False)
        self.watch(fd, lambda: self._kicked(index))

    def drop_kick(self, index: int) -> None:
        """Close that eventfd, if there is one."""
        queue = self._queues[index]
        fd, queue.kick = queue.kick, None
        if fd is not None:
            self.unwatch(fd)
            os.close(fd)

    def set_call(self, index: int, fd: int | None) -> None:
        """Take over ``fd``, the eventfd that tells the guest of answers; with None it is not told."""
        queue = self._queues[index]
        close_fds(queue.call)
        queue.call = fd
        if fd is not None:
            os.set_blocking(fd, False)

    def has_kick(self, index: int) -> bool:
        """Whether queue ``index`` has an eventfd on which requests are announced."""
        return self._queues[index].kick is not None

    def start_queue(self, index: int, num: int, addresses: Addresses, base: int) -> None:
        """Serve queue ``index``, unless it is served: a ring of ``num`` entries whose next one is ``base``.

        Raises :class:`ProtocolError` for a ring that cannot be.
        """
        queue = self._queues[index]
        if queue.vring is None:
            queue.vring = Vring(self._memory, num, addresses, base)
            # What the guest made available earlier, it announced to another server.
            self._process(index)

    def stop_queue(self, index: int) -> int | None:
        """Serve queue ``index`` no more; gives the number of its next entry, None if it was not served."""
        queue = self._queues[index]
        vring, queue.vring = queue.vring, None
        return vring.last_avail if vring is not None else None

    def check_queues(self) -> None:
        """Check that all queues that run lie in the guest's memory. Raises :class:`ProtocolError`."""
        for queue in self._queues:
            if queue.vring is not None:
                queue.vring.check()

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
        # One count for all unknown opcodes: a guest can send 2**32 different ones.
        self._counts[opcode if opcode in OPCODE_NAMES else 0] += 1
        return self._tree.dispatch(request, room)


def _signal(fd: int) -> None:
    with contextlib.suppress(BlockingIOError):  # its counter is full: it is signalled
        os.write(fd, SIGNAL)


def close_fds(*fds: int | None) -> None:
    """Close those of ``fds`` that are not None."""
    for fd in fds:
        if fd is not None:
            os.close(fd)
