"""The channel to a guest: its ports, framing, the order of messages and output, and deadlines.

Nothing here knows which engine runs the guest: a :class:`~pytest_smol.engines.protocol.VirtualMachine`
has the ports, and says when the guest runs no more.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

from pytest_smol.engines.protocol import VirtualMachine
from pytest_smol.errors import MachineDied, MachineTimeout, ProtocolError, SmolError
from pytest_smol.machine.consoles import ConsoleFile
from pytest_smol.machine.exit_evidence import Tail, cause, remedy
from pytest_smol.protocol.output_order import OutputOrder
from pytest_smol.protocol.wire import FROM_GUEST, MAX_FRAME, Decoder, Message, WireError, encode
from pytest_smol.virtiofs.backend import FsBackend

__all__ = ["Channel", "OutputSink"]

#: How long a guest may take to read a message, in seconds; generous, for a busy host.
_SEND_TIMEOUT = 60.0

#: How long to wait for the engine's process to end after a port did, and for an aborted test's traceback, in
#: seconds.
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


#: Takes the name of a stream (``stdout`` or ``stderr``) and what the guest wrote to it.
OutputSink = Callable[[str, bytes], None]


class Channel:
    """The host's side of all ports of the guest in ``vm``, whose files ``backend`` serves.

    ``on_output`` is given what the test process writes to its standard output and
    error, with the name of the stream. Times are in seconds, deadlines on
    :func:`time.monotonic`'s clock. For one thread at a time.
    """

    def __init__(self, vm: VirtualMachine, backend: FsBackend, on_output: OutputSink | None = None) -> None:
        self.console = Tail()
        self.output = {"stdout": Tail(), "stderr": Tail()}
        #: Puts messages and output into their order.
        self.output_order = OutputOrder()
        self._vm = vm
        self._ports = vm.ports
        self._backend = backend
        self._on_output = on_output
        self._around_output: Callable[[], AbstractContextManager[None]] = nullcontext
        self._on_terminal: Callable[[bytes], None] = _discard
        self._decoders = {"control": Decoder(FROM_GUEST), "lifecycle": Decoder(FROM_GUEST)}
        self._watched: dict[int, Callable[[], None]] = {}
        self._console_file: ConsoleFile | None = None
        self._died: Message | None = None
        #: How many bytes of messages came since none was waiting.
        self._untaken = 0
        #: Whether messages may have been left unread, as too many wait.
        self._behind = False
        self._ended = False
        #: Whether all ports were read after the end had been seen.
        self._read_to_end = False
        self._poll = select.poll()
        for port in self._ports.values():
            port.setblocking(False)
        sockets = (port.fileno() for port in self._ports.values())
        for fd in (*vm.event_fds, backend.failed_fd, *sockets):
            self._poll.register(fd, select.POLLIN)

    def show_output(self, sink: OutputSink | None) -> None:
        """Give ``sink`` what the test process writes from now on, as ``on_output``."""
        self._on_output = sink

    def keep_console(self, file: ConsoleFile) -> None:
        """Write what the console shows from now on to ``file`` as well."""
        self._console_file = file

    @contextmanager
    def lend_terminal(
        self, take: Callable[[bytes], None], around_output: Callable[[], AbstractContextManager[None]]
    ) -> Iterator[None]:
        """Give ``take`` what comes over port ``terminal``; show other output within ``around_output()``."""
        self._on_terminal, self._around_output = take, around_output
        try:
            yield
        finally:
            self._on_terminal, self._around_output = _discard, nullcontext

    def send(self, message: Message) -> None:
        """Send one message to the runner. Raises :class:`MachineDied`."""
        sock = self._ports["control"]
        sock.settimeout(_SEND_TIMEOUT)
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

    def attend(self, deadline: float) -> None:
        """Wait until anything happens, to the machine or to what is watched.

        Raises :class:`MachineDied`, and :class:`MachineTimeout` at ``deadline`` on time.monotonic()'s clock.
        """
        if self._died or self._ended:
            raise self._death()
        left = deadline - time.monotonic()
        if left <= 0:
            raise MachineTimeout("no line of standard input came in time")
        self._take(min(left, _LONGEST_WAIT))

    @property
    def terminal(self) -> socket.socket:
        """The port ``terminal``; it does not block."""
        return self._ports["terminal"]

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
        if self._on_output is not None:
            with self._around_output():
                self._on_output(name, data)

    def last_words(self, lines: int = 40) -> str:
        """The last ``lines`` of the console and of the test process's streams."""
        tails = (self.console, *self.output.values())
        return "\n".join(text for tail in tails if (text := tail.text(lines)))

    def abort_test(self) -> None:
        """Ask PID 1 to abort the test process, and wait a moment for what it says of where it hangs."""
        if self._vm.stopped:  # no guest runs that could answer
            return
        deadline = time.monotonic() + _LAST_WORDS
        # What a guest sends from here on makes its death no worse.
        with suppress(OSError, SmolError):
            self._ports["lifecycle"].send(b"!")
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
        if self._backend.failure is not None:
            raise self._backend.failure
        # What a dying machine wrote last names the cause, so every source is read first. Messages come
        # first: most of the output before one is then there as well.
        self._read_all()
        if (self._died or self._ended) and not self._read_to_end:
            # It may have written more, before its end, to ports that had been read when that end was seen.
            self._read_to_end = True
            self._read_all()
        for fd, _ in ready:
            if fd in self._watched:
                self._watched[fd]()

    def _read_all(self) -> None:
        alive = [self._take_from(name, self._ports[name]) for name in sorted(self._ports, key=_read_late)]
        if not all([self._vm.running(), *alive]):
            self._ended = True

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
            self._on_terminal(data)
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
        # The guest's reason (an engine's event, a last console line) can follow the end of a port.
        if self._died is None:
            self._vm.wait_ended(_LAST_WORDS)
        self._take(0)
        self.output_order.flush(self._show)
        console, evidence = self.console.text(200), self._vm.exit_evidence()
        return MachineDied(
            cause(console, self._died, evidence.reason),
            evidence=evidence.stderr,
            remedy=remedy(console) or evidence.remedy,
        )


def _discard(data: bytes) -> None:
    """What comes over the port ``terminal`` while no terminal is lent."""
