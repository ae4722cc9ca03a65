"""The loop that serves all machines' file systems: one thread, one epoll."""

from __future__ import annotations

import os
import select
import socket
import threading
from types import TracebackType
from typing import final

from pytest_smol.virtiofs.filesystem.tree import Tree
from pytest_smol.virtiofs.vhost_user.backend import Mount
from pytest_smol.virtiofs.virtio.memory import ProcessMemory

__all__ = ["Mount", "Server"]


@final
class Server:
    """A context manager; its thread is a daemon and ends with it, as do all mounts.

    :meth:`attach` and :meth:`Mount.close` are for any thread.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._open: set[Mount] = set()
        self._mounts: dict[int, Mount] = {}  # by file descriptor watched
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
        for mount in list(self._open):
            mount.close()
        self._epoll.close()
        os.close(self._wake)

    def attach(self, sock: socket.socket, pid: int, tree: Tree) -> Mount:
        """Serve ``tree`` to the QEMU process ``pid``, whose vhost-user chardev is the other end of ``sock``.

        ``pid`` is a child of this process that is not reaped before the mount
        is closed. The mount owns ``sock`` and ``tree`` from now on.
        """
        mount = Mount(self, sock, ProcessMemory(pid), tree)
        self._open.add(mount)
        return mount

    def watch(self, fd: int, mount: Mount) -> None:
        """Call ``mount.ready(fd)`` in the server's thread whenever ``fd`` can be read.

        Raises OSError for one that cannot be waited for.
        """
        self._epoll.register(fd, select.EPOLLIN)
        self._mounts[fd] = mount

    def unwatch(self, fd: int) -> None:
        """Do so no more."""
        self._mounts.pop(fd, None)
        self._epoll.unregister(fd)

    def closed(self, mount: Mount) -> None:
        """The mount is closed, and needs nothing any more."""
        self._open.discard(mount)

    def _run(self) -> None:
        while not self._stopping:
            for fd, _ in self._epoll.poll():
                # A number may be another mount's by now: ready() then finds
                # nothing to read, for nothing watched ever blocks.
                mount = self._mounts.get(fd)
                if mount is not None:
                    mount.ready(fd)
