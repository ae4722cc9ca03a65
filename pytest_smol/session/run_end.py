"""The end of the run in a guest, for plugins that only the guest has (conftest.py files and what they load).

One more fork of the session snapshot gets all reports, and then runs these
plugins' hooks of the end at the places where the host's pytest runs its own.
What they write is shown there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import pytest

from pytest_smol.errors import MachineError, ProtocolError, SmolError
from pytest_smol.machine.machine import Machine
from pytest_smol.pool.pool import Pool
from pytest_smol.protocol.wire import MAX_FRAME, Message, WireError, encode
from pytest_smol.reports.budget import MessageBudget
from pytest_smol.reports.screen import Screen
from pytest_smol.session.group_run import MAX_KEPT, Stop
from pytest_smol.session.relay import Relay
from pytest_smol.snapshots.snapshot import Snapshot

__all__ = ["Closing", "plugin_modules"]

#: About as many bytes of reports are sent at a time.
BATCH = 1 << 20

#: The largest exit status of a process.
_MOST_STATUS = 255


def plugin_modules(config: pytest.Config) -> tuple[str, ...]:
    """The modules of the host's plugins: a guest tells by them which plugins are its own."""
    return tuple(sorted({_module_of(plugin) for plugin in config.pluginmanager.get_plugins()}))


def _module_of(plugin: object) -> str:
    kind = plugin if isinstance(plugin, (ModuleType, type)) else type(plugin)
    return str(kind.__name__ if isinstance(kind, ModuleType) else kind.__module__)


class Closing:
    """The machine in which the run of ``config`` ends; made when it is first needed.

    ``limit`` is the time in seconds that each hook may take. A machine that
    goes wrong costs what its plugins would have shown, and one line says so.
    """

    def __init__(
        self,
        config: pytest.Config,
        pool: Pool,
        snapshot: Snapshot,
        relay: Relay,
        screen: Screen,
        limit: float,
    ) -> None:
        self._config = config
        self._pool = pool
        self._snapshot = snapshot
        self._relay = relay
        self._screen = screen
        self._limit = limit
        self._deadline = 0.0
        self._machine: Machine | None = None
        self._over = False
        self._replaying = False
        self._budget = MessageBudget("a plugin", MAX_KEPT)

    def run(self, phase: str, session: pytest.Session, reports: Sequence[Any]) -> int | None:
        """Run the guest's part of the hook ``phase``; gives the session's exit status afterwards.

        ``reports`` are all of the run. None if a machine has gone wrong, now or before.
        Raises what stops a run where the guest's hooks did.
        """
        if self._over:
            return None
        self._deadline = time.monotonic() + self._limit
        self._budget.begin()
        self._screen.limit.begin()
        try:
            if self._machine is None:
                self._machine = self._begin(session, reports)
            self._machine.send({"type": "phase", "name": phase, "exitstatus": int(session.exitstatus)})
            closed = self._await("closed")
            if closed["failure"]:
                raise MachineError(_in_short(closed["failure"]))
            status: int = closed["exitstatus"]
        except SmolError as error:
            self._give_up(phase, error)
            return None
        return status if 0 <= status <= _MOST_STATUS else None

    def _begin(self, session: pytest.Session, reports: Sequence[Any]) -> Machine:
        machine = self._machine = self._pool.fork(self._snapshot, self._output)
        self._deadline = time.monotonic() + self._limit
        self._pool.keep_console(machine, "session end")
        machine.send({"type": "close", "failed": session.testsfailed})
        self._replaying = True
        for batch in self._batches(reports):
            machine.send(batch)
            self._await("replayed")
        self._replaying = False
        return machine

    def _await(self, kind: str) -> Message:
        """The guest's next message of ``kind``, after all that it says beside."""
        assert self._machine is not None
        while (message := self._machine.receive(self._deadline))["type"] != kind:
            self._budget.take(message)
            if message["type"] == "stop":
                self._stopped(Stop.of(message, self._screen.clean))
            if message["type"] == "exit":
                raise MachineError("pytest in the guest ended")
            if not (self._replaying and message["type"] == "screen") and not self._relay.take(message):
                raise ProtocolError(f"the guest sent a {message['type']!r} message at the end of the run")
        return message

    def _stopped(self, stop: Stop) -> None:
        self.close()
        returncode = stop.returncode if stop.kind == "exit" else int(pytest.ExitCode.INTERRUPTED)
        pytest.exit(stop.reason or "interrupted", returncode=returncode)

    def _output(self, name: str, data: bytes) -> None:
        # What hooks print for a report was shown when the report came.
        if not self._replaying:
            self._screen.output(name, data)

    def _batches(self, reports: Sequence[Any]) -> Iterator[Message]:
        """``replay`` messages with ``reports``, and the warnings of the run in the first."""
        reporter: Any = self._config.pluginmanager.get_plugin("terminalreporter")
        caught = _plain_warnings(getattr(reporter, "stats", {}).get("warnings", ()))
        batch: list[Any] = []
        size = 0
        for report in reports:
            hook = self._config.hook.pytest_report_to_serializable
            data = hook(config=self._config, report=report)
            data.pop("node", None)  # pytest-xdist's own object for the worker that sent the report
            more = _size(data)
            if size + more > BATCH and batch:
                yield {"type": "replay", "reports": batch, "warnings": caught}
                batch, caught, size = [], [], 0
            if more < MAX_FRAME - BATCH:  # one that is larger has no message to go in
                batch.append(data)
                size += more
        yield {"type": "replay", "reports": batch, "warnings": caught}

    def _give_up(self, phase: str, error: SmolError) -> None:
        self.close()
        text = self._screen.clean(f"smol: {phase} of the project's own plugins failed: {error.message}")
        reporter: Any = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(text.splitlines()[0], yellow=True)

    def close(self) -> None:
        """Kill the machine; nothing is asked of it any more. Idempotent."""
        self._over = True
        if self._machine is not None:
            self._pool.retire(self._machine)
            self._machine = None


def _size(data: Any) -> int:
    try:
        return len(encode({"type": "report", "data": data}))
    except WireError:
        return MAX_FRAME


def _plain_warnings(reports: Sequence[Any]) -> list[list[Any]]:
    """The warnings of a terminal reporter as plain values, as many as one message holds."""
    plain: list[list[Any]] = []
    size = 0
    for report in reports:
        filename, lineno = report.fslocation or (None, None)
        plain.append([report.message, report.nodeid, filename, lineno])
        size += _size(plain[-1])
        if size > MAX_FRAME // 2:
            return plain[:-1]
    return plain


def _in_short(trace: str) -> str:
    """A traceback in one line: what went wrong, and where."""
    lines = trace.strip().splitlines()
    return f"{lines[-1].strip()} ({lines[0].strip()})"
