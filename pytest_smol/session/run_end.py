"""The end of the run in a guest, for plugins that only the guest has (conftest.py files and what they load).

One more fork of the session snapshot gets all reports, and then runs these
plugins' hooks of the end at the places where the host's pytest runs its own.
What they write is shown there. The guest's end is guest/session/run_end.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from pytest_smol.errors import MachineError, SmolError
from pytest_smol.machine.dispatcher import Deadline, GuestStop, Phase, Rule, finish, stop_rule
from pytest_smol.machine.machine import Machine
from pytest_smol.protocol.wire import MAX_FRAME, Message, WireError, encode
from pytest_smol.reports.budget import MessageBudget
from pytest_smol.reports.screen import Screen
from pytest_smol.session.group_run import MAX_KEPT, GroupContext
from pytest_smol.session.guests.collected import SessionEnded
from pytest_smol.session.guests.module_collection import FileCollector
from pytest_smol.session.run_messages import status_of_exit
from pytest_smol.snapshots.snapshot import Snapshot

__all__ = ["GuestRunEnd"]

#: About as many bytes of reports are sent at a time.
BATCH = 1 << 20

#: The largest exit status of a process.
_MOST_STATUS = 255


class GuestRunEnd:
    """The machine in which the run of ``config`` ends, a fork of ``snapshot``; made when it is first needed.

    ``limit`` is the time in seconds that each hook may take. A machine that
    goes wrong costs what its plugins would have shown, and one line says so. With ``collector``
    the snapshot has collected nothing: the machine lists the files, which loads all conftest files.
    """

    def __init__(
        self,
        config: pytest.Config,
        context: GroupContext,
        snapshot: Snapshot,
        screen: Screen,
        limit: float,
        collector: FileCollector | None = None,
    ) -> None:
        self._config = config
        self._context = context
        self._snapshot = snapshot
        self._screen = screen
        self._collector = collector
        self._limit = limit
        self._deadline = Deadline(limit)
        self._machine: Machine | None = None
        self._over = False
        self._replaying = False
        self._status: int | None = None
        self._budget = MessageBudget("a plugin", MAX_KEPT, context.budget)

    # --- what the guest may say -----------------------------------------------------------

    def _common_rules(self) -> dict[str, Rule]:
        """The messages that may come at any time."""
        return {
            **self._context.messages.rules(self._budget),
            "stop": stop_rule(self._stopped, self._screen.clean, self._budget),
            "exit": Rule(_refuse_exit),
        }

    def _phase(self, rules: Mapping[str, Rule]) -> Phase:
        return Phase(
            "at the end of the run", rules, self._deadline, self._context.terminal, "the end of the run"
        )

    def _replay_phase(self) -> Phase:
        """While reports are replayed, texts for the terminal are dropped: they were shown with the report."""
        return self._phase({**self._common_rules(), "screen": Rule(), "replayed": Rule(ends=True)})

    def _hook_phase(self) -> Phase:
        return self._phase(
            {**self._common_rules(), "closed": Rule(self._take_closed, self._budget, ends=True)}
        )

    def _take_closed(self, message: Message) -> None:
        if message["failure"]:
            raise MachineError(_in_short(message["failure"]))
        status = message["exitstatus"]
        self._status = status if 0 <= status <= _MOST_STATUS else None

    def _stopped(self, stop: GuestStop) -> None:
        self.close()
        interrupted = int(pytest.ExitCode.INTERRUPTED)
        returncode = status_of_exit(stop.returncode) if stop.kind == "exit" else interrupted
        pytest.exit(stop.reason or "interrupted", returncode=returncode)

    # --- run ------------------------------------------------------------------------------

    def run(self, hook: str, session: pytest.Session, reports: Sequence[Any]) -> int | None:
        """Run the guest's part of ``hook``; gives the session's exit status afterwards.

        ``reports`` are all of the run. None if a machine has gone wrong, now or before.
        Raises what stops a run where the guest's hooks did.
        """
        if self._over:
            return None
        self._deadline.restart()
        self._budget.begin()
        self._screen.limit.begin()
        try:
            if self._machine is None:
                self._machine = self._begin(session, reports)
            self._machine.send({"type": "phase", "name": hook, "exitstatus": int(session.exitstatus)})
            finish(self._machine, self._hook_phase())
        except SmolError as error:
            self._fail(hook, error)
            return None
        return self._status

    def _begin(self, session: pytest.Session, reports: Sequence[Any]) -> Machine:
        machine = self._machine = self._context.pool.fork(self._snapshot, self._output)
        self._deadline.restart()
        self._context.pool.keep_console(machine, "session end")
        if self._collector is not None:
            self._list_files(self._collector, machine)
        machine.send({"type": "close", "failed": session.testsfailed})
        self._replaying = True
        for batch in self._batches(reports):
            machine.send(batch)
            finish(machine, self._replay_phase())
        self._replaying = False
        return machine

    def _list_files(self, collector: FileCollector, machine: Machine) -> None:
        try:
            collector.collect(machine, None)
        except SessionEnded as ended:
            raise MachineError(f"{ended} while it listed the files") from ended
        self._deadline.restart()

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

    def _fail(self, hook: str, error: SmolError) -> None:
        """End the machine, and say in one line why ``hook`` shows nothing of the guest's."""
        self.close()
        text = self._screen.clean(f"smol: {hook} of the project's own plugins failed: {error.message}")
        reporter: Any = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(text.splitlines()[0], yellow=True)

    def close(self) -> None:
        """Kill the machine; no more hooks run in it. Idempotent."""
        self._over = True
        if self._machine is not None:
            self._context.pool.retire(self._machine)
            self._machine = None


def _refuse_exit(message: Message) -> None:
    raise MachineError("pytest in the guest ended")


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
