"""One machine: a virtual machine, the back end that serves its files, and the channel to its guest."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType

from pytest_smol.engines.protocol import VirtualMachine
from pytest_smol.errors import SmolError
from pytest_smol.machine.channel import Channel, OutputSink
from pytest_smol.machine.consoles import ConsoleFile
from pytest_smol.protocol.wire import Message
from pytest_smol.virtiofs.filesystem.state import TreeState
from pytest_smol.virtiofs.filesystem.tree import Tree
from pytest_smol.virtiofs.server import Server

__all__ = ["Machine", "OutputSink"]


class Machine:
    """A virtual machine with all that is connected to it. A context manager: leaving it kills the VM.

    It owns ``vm``, and attaches it to the file server, which shows it ``tree``.
    :meth:`start` lets it run. ``on_output`` is given what the test process writes
    to its standard output and error, with the name of the stream.
    """

    def __init__(
        self, vm: VirtualMachine, server: Server, tree: Tree, on_output: OutputSink | None = None
    ) -> None:
        self.vm = vm
        self.tree = tree
        with ExitStack() as stack:
            stack.callback(vm.close)
            self.backend = server.attach(vm.transport, tree)
            stack.callback(self.backend.close)
            self.channel = channel = Channel(vm, self.backend, on_output)
            self.console, self.output, self.terminal = channel.console, channel.output, channel.terminal
            self._stack = stack.pop_all()

    # --- life -----------------------------------------------------------------------------

    def start(self, state: Path | None = None) -> None:
        """Run: from the device state in the file ``state``, or from the kernel. Raises :class:`SmolError`."""
        try:
            self.vm.start(state)
        except SmolError as error:
            raise (self.backend.failure or error) from error

    def freeze(self, state: Path) -> TreeState:
        """Stop the machine, write its device state to the file ``state`` and end its process.

        The memory file holds the rest. Gives the file server's node table. Raises :class:`SmolError`.
        """
        try:
            self.vm.freeze(state)
        except SmolError as error:
            raise (self.backend.failure or error) from error
        self.backend.close()
        return self.tree.freeze()

    def kill(self) -> None:
        """Kill the machine without waiting for its end. For any thread, idempotent."""
        self.vm.kill()

    def close(self) -> None:
        """Kill the machine and close all that belongs to it; idempotent."""
        self._stack.close()

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- the channel ----------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """As :meth:`Channel.send`."""
        self.channel.send(message)

    def receive(self, deadline: float) -> Message:
        """As :meth:`Channel.receive`."""
        return self.channel.receive(deadline)

    def drain(self) -> None:
        """As :meth:`Channel.drain`."""
        self.channel.drain()

    def last_words(self, lines: int = 40) -> str:
        """As :meth:`Channel.last_words`."""
        return self.channel.last_words(lines)

    def abort_test(self) -> None:
        """As :meth:`Channel.abort_test`."""
        self.channel.abort_test()

    def show_output(self, sink: OutputSink | None) -> None:
        """As :meth:`Channel.show_output`."""
        self.channel.show_output(sink)

    def keep_console(self, file: ConsoleFile | None) -> None:
        """As :meth:`Channel.keep_console`; the file is closed with the machine. Nothing happens for None."""
        if file is not None:
            self.channel.keep_console(self._stack.enter_context(file))

    def lend_terminal(
        self, take: Callable[[bytes], None], around_output: Callable[[], AbstractContextManager[None]]
    ) -> AbstractContextManager[None]:
        """As :meth:`Channel.lend_terminal`."""
        return self.channel.lend_terminal(take, around_output)

    def watch(self, fd: int, events: int, ready: Callable[[], None]) -> None:
        """As :meth:`Channel.watch`."""
        self.channel.watch(fd, events, ready)

    def unwatch(self, fd: int) -> None:
        """As :meth:`Channel.unwatch`."""
        self.channel.unwatch(fd)

    def attend(self, deadline: float) -> None:
        """As :meth:`Channel.attend`."""
        self.channel.attend(deadline)
