"""A file server with two guests: a hostile one, whose memory is another process's, and its sibling."""

from __future__ import annotations

import mmap
import os
import select
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType

from pytest_smol.errors import ProtocolError
from pytest_smol.virtiofs.filesystem.tree import Tree
from pytest_smol.virtiofs.fuse import Opcode
from pytest_smol.virtiofs.server import Server
from pytest_smol.virtiofs.view import Content, View
from tests.unit.virtiofs.fake_guest import GUEST, BytesMemory, request
from tests.unit.virtiofs.front_end import PATIENCE, FrontEnd, wait

__all__ = ["CANARY", "SIZE", "Arena", "Guest", "Victim"]

PAGE = mmap.PAGESIZE
SIZE = 1 << 20
CANARY = b"canary! " * (PAGE // 8)

_VICTIM = """
import ctypes, mmap, sys
memory = mmap.mmap(int(sys.argv[1]), 0)
print(ctypes.addressof(ctypes.c_char.from_buffer(memory)), flush=True)
sys.stdin.read()
"""


class Victim:
    """A process in QEMU's place: guest RAM with a canary page on either side, which is seen from here too."""

    def __init__(self) -> None:
        with open(os.memfd_create("ram"), "r+b", buffering=0) as file:
            file.truncate(SIZE + 2 * PAGE)
            self.map = mmap.mmap(file.fileno(), 0)
            self.process = subprocess.Popen(
                [sys.executable, "-S", "-c", _VICTIM, str(file.fileno())],
                pass_fds=[file.fileno()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        self.map[:PAGE] = self.map[-PAGE:] = CANARY
        assert self.process.stdout is not None
        self.origin = int(self.process.stdout.readline()) + PAGE
        self.memory = BytesMemory(1)
        self.memory.bytes = memoryview(self.map)[PAGE:-PAGE]  # type: ignore[assignment]

    def canaries_sing(self) -> bool:
        """Whether nothing around the RAM was written."""
        return self.map[:PAGE] == self.map[-PAGE:] == CANARY

    def kill(self) -> None:
        """Kill it without clearing it away, as when QEMU dies by itself."""
        self.process.kill()
        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.memory.bytes.release()  # type: ignore[attr-defined]
        self.map.close()


class Guest(FrontEnd):
    """A guest that may write whatever it likes into its memory."""

    def __init__(self, server: Server, tree: Tree, victim: Victim) -> None:
        super().__init__(server, tree, victim=(victim.process.pid, victim.memory, victim.origin))
        self.victim = victim

    def kick_ring(self) -> None:
        os.eventfd_write(self.kick, 1)

    def offer(self, *descriptors: tuple[int, int, int, int], head: int = 0) -> None:
        """Make a chain of these descriptors (address, length, flags, next) available, and say so."""
        for index, row in enumerate(descriptors):
            self.driver.describe(index, *row)
        self.driver.offer(head)
        self.kick_ring()

    def failure(self) -> str:
        """How its back end failed; waits for that."""
        wait(self.backend.failed_fd)
        assert isinstance(self.backend.failure, ProtocolError)
        return self.backend.failure.message

    def is_served(self) -> bool:
        """Whether it gets an answer, as it should where nothing failed."""
        return self.fuse(Opcode.GETATTR, 1, bytes(16))[0] == 0

    def answers(self, count: int) -> None:
        """Wait until ``count`` requests are answered or the back end has failed."""
        poll = select.poll()
        poll.register(self.call, select.POLLIN)
        poll.register(self.backend.failed_fd, select.POLLIN)
        while self.driver.used_idx < count and self.backend.failure is None:
            assert poll.poll(PATIENCE * 1000), "nothing came"
            if self.backend.failure is None:
                os.eventfd_read(self.call)


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


class Arena:
    """A context manager. At its end the sibling must be served, canaries untouched and descriptors closed."""

    def __init__(self) -> None:
        self._before = descriptors()
        self._stack = ExitStack()
        self._victims: list[Victim] = []
        self.server = self._stack.enter_context(Server())
        self.sibling = self.guest()

    def guest(self, tree: Tree | None = None, start: bool = True) -> Guest:
        """One more guest, negotiated, and with its request queue running unless ``start`` is false."""
        victim = Victim()
        self._stack.callback(victim.close)
        self._victims.append(victim)
        guest = Guest(self.server, tree or Tree(View({"/f": Content(b"content")})), victim)
        self._stack.callback(guest.close)
        guest.negotiate()
        if start:
            guest.start()
        return guest

    def replaced(self, handle: Callable[[bytes, int], bytes | None]) -> Tree:
        """A tree whose requests are answered by ``handle``."""

        class Replaced(Tree):
            def dispatch(self, request_: bytes, room: int) -> bytes | None:
                return handle(request_, room)

        return Replaced(View({}))

    def __enter__(self) -> Arena:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if error is None:
                assert self.sibling.is_served()
                assert self.sibling.backend.failure is None
                assert all(victim.canaries_sing() for victim in self._victims)
        assert error is not None or descriptors() == self._before


GETATTR = request(Opcode.GETATTR, 1, bytes(16))
RAM_END = GUEST + SIZE
