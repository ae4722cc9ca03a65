"""The loop that serves all machines' file systems: one thread, one epoll."""

from __future__ import annotations

import os
import select
import threading
from types import TracebackType
from typing import final

from pytest_smol.virtiofs.backend import FsBackend, Transport
from pytest_smol.virtiofs.filesystem.tree import Tree

__all__ = ["Server"]


@final
class Server:
    """A context manager; its thread is a daemon and ends with it, as do all back ends.

    :meth:`attach` and :meth:`FsBackend.close` are for any thread.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._open: set[FsBackend] = set()
        self._backends: dict[int, FsBackend] = {}  # by file descriptor watched
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="smol-virtiofs", daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        os.write(self._wake, (1).to_bytes(8, "little"))
        self._thread.join()
        for backend in list(self._open):
            backend.close()
        self._epoll.close()
        os.close(self._wake)

    def attach(self, transport: Transport, tree: Tree) -> FsBackend:
        """Serve ``tree`` to the guest that ``transport`` leads to. The back end owns both from now on."""
        backend = transport.serve(self, tree)
        self._open.add(backend)
        return backend

    def watch(self, fd: int, backend: FsBackend) -> None:
        """Call ``backend.ready(fd)`` in the server's thread whenever ``fd`` can be read.

        Raises OSError for one that cannot be waited for.
        """
        self._epoll.register(fd, select.EPOLLIN)
        self._backends[fd] = backend

    def unwatch(self, fd: int) -> None:
        """Do so no more."""
        self._backends.pop(fd, None)
        self._epoll.unregister(fd)

    def closed(self, backend: FsBackend) -> None:
        """The backend is closed, and needs nothing any more."""
        self._open.discard(backend)

    def _run(self) -> None:
        while not self._stopping:
            for fd, _ in self._epoll.poll():
                # A number may be another back end's by now: ready() then finds
                # nothing to read, for nothing watched ever blocks.
                backend = self._backends.get(fd)
                if backend is not None:
                    backend.ready(fd)
