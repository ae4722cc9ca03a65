"""One virtual machine: boot or restore, talk, freeze, kill."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from pytest_smol.engines.qemu.command_line import CHARDEVS, Hardware, Kernel, command_line
from pytest_smol.engines.qemu.qmp import QmpClient
from pytest_smol.errors import MachineDied, MachineTimeout, ProtocolError, SmolError
from pytest_smol.host.process import ChildProcess
from pytest_smol.machine.consoles import ConsoleFile
from pytest_smol.machine.exit_evidence import ExitEvidence, Tail, cause, remedy
from pytest_smol.protocol.output_order import OutputOrder
from pytest_smol.protocol.wire import FROM_GUEST, MAX_FRAME, Decoder, Message, WireError, encode
from pytest_smol.virtiofs.filesystem.state import TreeState
from pytest_smol.virtiofs.filesystem.tree import Tree
from pytest_smol.virtiofs.server import Server

__all__ = ["Machine", "OutputSink"]

_CAPABILITIES = [
    {"capability": "x-ignore-shared", "state": True},
    {"capability": "events", "state": True},
]

#: How long QEMU itself may take for one step, in seconds; generous, for a busy host.
_QEMU_TIMEOUT = 60.0

#: How long to wait for QEMU to end by itself after its connections closed, in seconds.
_LAST_WORDS = 5.0

#: The longest that poll(2) is asked to wait at once, in seconds.
_LONGEST_WAIT = 86400.0

#: How long to wait for output that a guest wrote before a message that has come, in seconds.
_MARKER_WAIT = 5.0

#: How often one stream is read before the others have their turn; holds the largest frame.
_MOST_READS = 2 * (MAX_FRAME >> 16)

#: The most messages that wait to be taken, and the most bytes of them, before no more are read.
_MOST_WAITING = 1000
_MOST_UNTAKEN = 2 * MAX_FRAME


def _read_late(port: str) -> bool:
    """Whether ``port`` is read after those that messages come over."""
    return port not in ("control", "lifecycle")


def _file_channel(path: Path) -> list[dict[str, Any]]:
    address = {"transport": "file", "filename": str(path), "offset": 0}
    return [{"channel-type": "main", "addr": address}]


#: Takes the name of a stream (``stdout`` or ``stderr``) and what the guest wrote to it.
OutputSink = Callable[[str, bytes], None]


#: Starts QEMU, given its command line and the descriptors to inherit.
Spawn = Callable[[Sequence[str], Sequence[int]], ChildProcess]


class Machine:
    """A QEMU process with all that is connected to it. A context manager: leaving it kills the VM.

    ``ram`` is the memory file. With ``kernel`` the machine boots at once;
    without, :meth:`restore` brings it to life. ``private`` maps the memory
    copy-on-write. ``on_output`` is given what the test process writes to its
    standard output and error, with the name of the stream. ``spawn`` starts QEMU.
    """

    def __init__(
        self,
        hardware: Hardware,
        ram: Path,
        server: Server,
        tree: Tree,
        *,
        private: bool = False,
        kernel: Kernel | None = None,
        on_output: OutputSink | None = None,
        spawn: Spawn = ChildProcess,
    ) -> None:
        self.console = Tail()
        self.output = {"stdout": Tail(), "stderr": Tail()}
        self.tree = tree
        #: Given what the test process writes, with the name of the stream.
        self.on_output = on_output
        #: Puts messages and output into their order.
        self.output_order = OutputOrder()
        self._decoders = {"control": Decoder(FROM_GUEST), "lifecycle": Decoder(FROM_GUEST)}
        #: Takes what comes over the port ``terminal``.
        self.on_terminal: Callable[[bytes], None] = lambda data: None
        #: What is around each call of ``on_output``.
        self.around_output: Callable[[], AbstractContextManager[None]] = nullcontext
        self._watched: dict[int, Callable[[], None]] = {}
        self._console_file: ConsoleFile | None = None
        self._died: Message | None = None
        #: How many bytes of messages came since none was waiting.
        self._untaken = 0
        #: Whether messages may have been left unread, as too many wait.
        self._behind = False
        self._ended = False
        with ExitStack() as stack:
            self._start(stack, server, hardware, ram, private, kernel, spawn)
            self._stack = stack.pop_all()

    def _start(
        self,
        stack: ExitStack,
        server: Server,
        hardware: Hardware,
        ram: Path,
        private: bool,
        kernel: Kernel | None,
        spawn: Spawn,
    ) -> None:
        ours, theirs = {}, []
        with ExitStack() as child_ends:
            for name in CHARDEVS:
                mine, other = socket.socketpair()
                ours[name] = stack.enter_context(mine)
                theirs.append(child_ends.enter_context(other).fileno())
            argv = command_line(hardware, ram, theirs, private=private, kernel=kernel)
            self.process = spawn(argv, theirs)
        stack.callback(self.process.kill)
        self.mount = server.attach(ours.pop("fs"), self.process.pid, self.tree)
        stack.callback(self.mount.close)
        self.qmp = QmpClient(ours.pop("qmp"))
        self._sockets: Mapping[str, socket.socket] = ours
        for sock in ours.values():
            sock.setblocking(False)
        self._poll = self._make_poll()

    def _make_poll(self) -> select.poll:
        poll = select.poll()
        sockets = [sock.fileno() for sock in self._sockets.values()]
        for fd in (self.qmp.fileno(), self.mount.failed_fd, *sockets):
            poll.register(fd, select.POLLIN)
        return poll

    def keep_console(self, file: ConsoleFile | None) -> None:
        """Write what the console shows from now on to ``file`` as well, which is closed with the machine."""
        self._console_file = self._stack.enter_context(file) if file is not None else None

    # --- life -----------------------------------------------------------------------------

    def restore(self, state: Path) -> None:
        """Load the device state in the file ``state`` and run. Raises :class:`MachineError`."""
        deadline = time.monotonic() + _QEMU_TIMEOUT
        try:
            self.qmp.negotiate(deadline)
            self.qmp.execute("migrate-set-capabilities", deadline, capabilities=_CAPABILITIES)
            self.qmp.execute("migrate-incoming", deadline, channels=_file_channel(state))
            self.qmp.wait_migrated(deadline)
            self.qmp.execute("cont", deadline)
        except SmolError as error:
            raise self._with_cause(error) from error

    def freeze(self, state: Path) -> TreeState:
        """Stop the machine, write its device state to the file ``state`` and end QEMU.

        The memory file holds the rest. Gives the file server's node table.
        Raises :class:`MachineError`.
        """
        deadline = time.monotonic() + _QEMU_TIMEOUT
        try:
            if not self.qmp.commands:
                self.qmp.negotiate(deadline)
            self.qmp.execute("stop", deadline)
            self.qmp.execute("migrate-set-capabilities", deadline, capabilities=_CAPABILITIES)
            self.qmp.events.clear()
            self.qmp.execute("migrate", deadline, channels=_file_channel(state))
            self.qmp.wait_migrated(deadline)
            self.qmp.execute("quit", deadline)
        except SmolError as error:
            raise self._with_cause(error) from error
        if self.process.wait(_QEMU_TIMEOUT) is None:
            raise MachineTimeout("QEMU did not quit after it was frozen")
        self.mount.close()
        return self.tree.freeze()

    def _with_cause(self, error: SmolError) -> SmolError:
        """``error``, with what QEMU said on standard error as evidence."""
        failure = self.mount.failure
        if failure is not None:
            return failure
        self.process.wait(_LAST_WORDS if isinstance(error, MachineDied) else 0)
        error.evidence = "\n".join(text for text in (error.evidence, self.process.stderr()) if text)
        return error

    # --- talk -----------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Send one message to the runner. Raises :class:`MachineDied`."""
        sock = self._sockets["control"]
        sock.settimeout(_QEMU_TIMEOUT)
        try:
            sock.sendall(encode(message))
        except TimeoutError:
            raise MachineTimeout("the guest does not read what it is sent") from None
        except OSError:
            raise self._death() from None
        finally:
            sock.setblocking(False)

    def receive(self, deadline: float) -> Message:
        """The next message of the runner; ``deadline`` is on time.monotonic()'s clock.

        Raises :class:`MachineTimeout` at the deadline, :class:`MachineDied` when
        the machine or the test process in it is no more, and
        :class:`ProtocolError` for a message that the protocol forbids.
        """
        while (message := self.output_order.next(self._show)) is None:
            if self.output_order.waits:
                self._await_markers()
                continue
            if (self._died or self._ended) and not self._behind:
                raise self._death()
            left = deadline - time.monotonic()
            if left <= 0:
                raise MachineTimeout("no answer came from the guest in time")
            self._take(min(left, _LONGEST_WAIT))
        return message

    def watch(self, fd: int, events: int, ready: Callable[[], None]) -> None:
        """Call ``ready`` while it is waited for the machine and ``fd`` has one of poll(2)'s ``events``."""
        self._watched[fd] = ready
        self._poll.register(fd, events)

    def unwatch(self, fd: int) -> None:
        """Watch ``fd`` no longer; idempotent."""
        if self._watched.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def attend(self) -> None:
        """Wait until anything happens, to the machine or to what is watched. Raises :class:`MachineDied`."""
        if self._died or self._ended:
            raise self._death()
        self._take(_LONGEST_WAIT)

    @property
    def terminal(self) -> socket.socket:
        """The port ``terminal``; it does not block."""
        return self._sockets["terminal"]

    def _await_markers(self) -> None:
        """Wait for the output that comes before a message. The message is here, so it is not far."""
        end = time.monotonic() + _MARKER_WAIT
        while self.output_order.waits:
            left = end - time.monotonic()
            if self._died or self._ended or left <= 0:
                self.output_order.give_up()
            else:
                self._take(left)

    def _show(self, name: str, data: bytes) -> None:
        if self.on_output is not None:
            with self.around_output():
                self.on_output(name, data)

    def last_words(self, lines: int = 40) -> str:
        """The last ``lines`` of the console and of the test process's streams."""
        tails = (self.console, *self.output.values())
        return "\n".join(text for tail in tails if (text := tail.text(lines)))

    def abort_test(self) -> None:
        """Ask PID 1 to abort the test process, and wait a moment for what it says of where it hangs."""
        if self.process.stopped:  # nobody is there to answer
            return
        deadline = time.monotonic() + _LAST_WORDS
        # What a guest sends from here on makes its death no worse.
        with suppress(OSError, SmolError):
            self._sockets["lifecycle"].send(b"!")
            while not self._died and not self._ended and (left := deadline - time.monotonic()) > 0:
                self._take(left)
                self.output_order.messages.clear()
                self.output_order.flush(self._show)

    def drain(self) -> None:
        """Take what the console and the output have brought, without waiting, of a machine to be given up."""
        with suppress(SmolError):
            self._take(0)
        self.output_order.flush(self._show)

    def _take(self, timeout: float) -> None:
        """Wait for anything to arrive and take it all."""
        ready = self._poll.poll(timeout * 1000)
        if not ready:
            return
        if self.mount.failure is not None:
            raise self.mount.failure
        # The last words of a dying machine count, so every source is read before the verdict. Messages come
        # first: most of the output before one is then there as well.
        alive = [self._take_from(name, self._sockets[name]) for name in sorted(self._sockets, key=_read_late)]
        if not all([self.qmp.receive(), *alive]):
            self._ended = True
        for fd, _ in ready:
            if fd in self._watched:
                self._watched[fd]()

    def _take_from(self, name: str, sock: socket.socket) -> bool:
        # Bounded, so that a guest that floods a stream cannot keep us from its deadline.
        for _ in range(_MOST_READS):
            if name == "control" and self._falls_behind():
                return True
            try:
                data = sock.recv(1 << 16)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            self._accept(name, data)
        return True

    def _falls_behind(self) -> bool:
        """Whether so many messages wait to be taken that the guest has to wait as well."""
        waiting = len(self.output_order.messages)
        if not waiting:
            self._untaken = 0
        self._behind = waiting > _MOST_WAITING or self._untaken > _MOST_UNTAKEN
        return self._behind

    def _accept(self, name: str, data: bytes) -> None:
        if name == "console":
            self.console.add(data)
            if self._console_file is not None:
                self._console_file.write(data)
        elif name in self.output:
            self.output[name].add(self.output_order.output(name, data))
        elif name == "terminal":
            self.on_terminal(data)
        else:
            self._untaken += len(data)
            self._decode(name, data)

    def _decode(self, name: str, data: bytes) -> None:
        try:
            for message in self._decoders[name].feed(data):
                if (message["type"] == "died") != (name == "lifecycle"):
                    raise WireError(f"a {message['type']!r} message came over the {name} port")
                if name == "lifecycle":
                    self._died = message
                else:
                    self.output_order.message(message)
        except WireError as error:
            raise ProtocolError(f"the guest broke the protocol: {error}") from error

    def _death(self) -> MachineDied:
        # The guest's reason (a QMP event, a last console line) can follow the end of a port.
        if self._died is None:
            self.process.wait(_LAST_WORDS)
        self._take(0)
        self.output_order.flush(self._show)
        remains = ExitEvidence(
            self.console.text(200),
            self.qmp.events,
            self._died,
            self.process.returncode,
            self.process.stderr(),
        )
        return MachineDied(cause(remains), evidence=remains.stderr, remedy=remedy(remains))

    # --- end ------------------------------------------------------------------------------

    def kill(self) -> None:
        """Send the machine its death; :meth:`close` clears away what is left. For any thread, idempotent."""
        self.process.send_kill()

    def close(self) -> None:
        """Kill the machine and close all that belongs to it; idempotent."""
        self._stack.close()

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
