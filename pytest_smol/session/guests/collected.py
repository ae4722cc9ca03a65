"""What a guest collected, message by message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_smol.machine.dispatcher import GuestStop
from pytest_smol.protocol.wire import Message
from pytest_smol.reports.nodes import NodeTable

__all__ = ["Collected", "SessionEnded"]


@dataclass
class Collected:
    """What a guest collected; ``nodes`` makes the host's nodes of it."""

    nodes: NodeTable
    #: The guest's numbers of the selected tests, in the order in which they run, and of the deselected ones.
    order: list[int] = field(default_factory=list)
    deselected: list[int] = field(default_factory=list)
    #: What plugins say when collection is over, and what the guest's own have for pytest's header.
    lines: list[str] = field(default_factory=list)
    header: list[str] = field(default_factory=list)
    #: The reports of collectors that did not pass.
    reports: list[dict[str, Any]] = field(default_factory=list)
    #: Warnings and properties of the test suite, to be passed on to the host's pytest.
    run_messages: list[Message] = field(default_factory=list)
    #: Whether plugins that only the guest has take part in the end of the run.
    has_end_hooks: bool = False
    #: The node id of the collector that was begun last.
    collecting: str = ""
    #: The lines of a usage error, and what else stopped collection.
    usage: list[str] = field(default_factory=list)
    stop: GuestStop | None = None

    @property
    def handlers(self) -> Mapping[str, Callable[[Message], None]]:
        """What takes each type of message; ``collected`` is the last."""
        return {
            "nodes": self._take_nodes,
            "collecting": self._take_collecting,
            "collect_report": lambda message: self.reports.append(message["data"]),
            "warning": self.run_messages.append,
            "suite_property": self.run_messages.append,
            "header": self._take_header,
            "usage_error": self._take_usage_error,
            "stop": self._take_stop,
            "collected": self._take_collected,
        }

    def _take_nodes(self, message: Message) -> None:
        self.nodes.add(message["rows"])

    def _take_collecting(self, message: Message) -> None:
        self.collecting = message["nodeid"]

    def _take_header(self, message: Message) -> None:
        self.header = message["lines"]

    def _take_usage_error(self, message: Message) -> None:
        self.usage = message["lines"]

    def _take_stop(self, message: Message) -> None:
        self.stop = GuestStop.of(message, self.nodes.clean)

    def _take_collected(self, message: Message) -> None:
        self.order, self.deselected = message["items"], message["deselected"]
        self.lines = message["lines"]
        self.has_end_hooks = message["closing"]


class SessionEnded(Exception):
    """The guest's pytest ended before it ran tests: a wrong option, a broken conftest.

    ``status`` is its exit status, ``lines`` the usage errors it raised while it
    collected, ``stop`` what else stopped it then, and ``output`` what it printed
    on standard error.
    """

    def __init__(self, status: int, collected: Collected, output: str) -> None:
        super().__init__(f"pytest in the guest ended with status {status}")
        self.status = status
        self.lines = collected.usage
        self.stop = collected.stop
        self.output = output
