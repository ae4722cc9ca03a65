"""What a process is in a distributed run: pytest-xdist's controller, one of its workers, or alone.

The controller owns a directory in which the workers find the session snapshot
that it made, and share what they make themselves. It names that directory in
``workerinput``, and workers end the run through ``workeroutput``; both hold
simple types only, which is what execnet can send. Nothing of pytest-xdist is
imported: its hooks (xdist/newhooks.py) are optional.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_smol.errors import NotEnoughMemory, SmolError
from pytest_smol.pytest_private import Exit
from pytest_smol.reports.text import clean, encodable

if TYPE_CHECKING:
    from pytest_smol.host.run_directory import RunDirectory
    from pytest_smol.session.guests.collected import SessionEnded
    from pytest_smol.session.guests.request import SessionRequest
    from pytest_smol.session.xdist.shared_sessions import ProcessContext
    from pytest_smol.settings import Settings

__all__ = ["Controller", "SingleProcess", "Worker", "role_of"]

#: Our key in ``workerinput`` and ``workeroutput``.
_KEY = "smol"

#: The key in ``workeroutput`` of the hidden paths that a worker's machines looked up.
_HIDDEN = "smol_hidden"

#: Variables with the size of the terminal: readline, which pytest imports, sets them for child processes.
_SIZE = ("COLUMNS", "LINES")


def role_of(
    config: pytest.Config, sys_path: tuple[str, ...], snapshot_dir: Path | None = None
) -> SingleProcess:
    """The role of this process. ``sys_path`` is ``sys.path`` at its start.

    A controller keeps snapshots in ``snapshot_dir``. To be called in pytest_configure, when pytest-xdist
    has read its options.
    """
    if hasattr(config, "workerinput"):
        return Worker(config)
    option = config.option
    distributes = getattr(option, "dist", "no") != "no" and getattr(option, "tx", None)
    if distributes and not option.collectonly:
        return Controller(config, sys_path, snapshot_dir)
    return SingleProcess()


class SingleProcess:
    """A run in one process. Also a plugin, whose summary names the hidden files that tests looked up."""

    #: Whether tests are collected and run here.
    runs_tests = True
    #: Whether the run is to end before any test of this process.
    over = False

    def __init__(self) -> None:
        #: Hidden host paths that machines looked up.
        self.hidden: set[str] = set()

    def process_context(self) -> ProcessContext:
        """What this process shares with others. Raises :class:`SmolError`."""
        from pytest_smol.session.xdist.shared_sessions import ProcessContext

        return ProcessContext(hidden=self.hidden)

    def prepare(self, settings: Settings) -> str:
        """Prepare for machines for every test; returns a line for the user, or nothing. Raises SmolError."""
        return ""

    def ends_in_collection(self, ended: SessionEnded) -> bool:
        """Whether pytest reports what ``ended`` a guest's pytest as the end of collection."""
        return bool(ended.lines or ended.stop)

    def end_run(self, error: pytest.UsageError | Exit) -> None:
        """End the run with ``error``, which is raised."""
        raise error

    def note_exit(self, stop: Exit) -> None:
        """Note that a test stops the run with ``stop``, which is raised next."""

    def pytest_terminal_summary(self, terminalreporter: Any, config: pytest.Config) -> None:
        """Name the hidden files that tests looked up."""
        if not self.hidden:
            return
        from pytest_smol.pool.usage import describe_hidden

        line = describe_hidden(self.hidden.copy(), str(config.rootpath))
        terminalreporter.write_line(clean(line).replace("\n", "^J"))


class Controller(SingleProcess):
    """pytest-xdist's controller: it runs no test, and owns the directory that workers share. A plugin."""

    runs_tests = False

    def __init__(
        self, config: pytest.Config, sys_path: Sequence[str], snapshot_dir: Path | None = None
    ) -> None:
        from pytest_smol.session.guests.request import invocation, simple

        super().__init__()
        self._config = config
        self._snapshot_dir = snapshot_dir
        #: Fields of the request that only the controller knows: how the user started the run.
        self._request_fields = simple(invocation(config, sys_path))
        self._directory: RunDirectory | None = None
        self._memory: int | None = None

    def _root(self) -> Path:
        """The directory that is named to workers. Raises :class:`DiskFull`."""
        from pytest_smol.host.run_directory import RunDirectory

        if self._directory is None:
            self._directory = RunDirectory(self._snapshot_dir)
        return self._directory.path

    def process_context(self) -> ProcessContext:
        """As :meth:`SingleProcess.process_context`."""
        from pytest_smol.session.xdist.shared_sessions import ProcessContext, SharedSessions

        sessions = SharedSessions(self._root())
        return ProcessContext(self._adapt_request, self._root(), sessions, hidden=self.hidden)

    def _adapt_request(self, request: SessionRequest) -> SessionRequest:
        """Keep the fields that workers' requests must have as well, so that all use one snapshot."""
        request = replace(request, dist=_dist_told(self._config.option.dist == "loadgroup"))
        self._request_fields = request.common()
        return request

    def ends_in_collection(self, ended: SessionEnded) -> bool:
        """As :meth:`SingleProcess.ends_in_collection`."""
        return _stopped_by_failures(ended)  # workers report any other end themselves

    def prepare(self, settings: Settings) -> str:
        """Start no more workers than memory allows. Raises :class:`NotEnoughMemory`."""
        from pytest_smol.host.resources import needed_memory

        specs = self._config.option.tx
        wanted = sum(map(_count, specs))
        room = self._available() // needed_memory(settings.memory)
        if room >= wanted:
            return ""
        if room == 0 or self._config.option.dist == "each" or wanted != len(specs):
            raise _too_many(wanted, settings.memory, self._available())
        del specs[room:]
        return f"{room} of {wanted} workers are started: memory is available for no more guests"

    def _available(self) -> int:
        """Bytes that were available at the first call, which comes before any worker is started."""
        from pytest_smol.host.resources import available_memory

        if self._memory is None:
            self._memory = available_memory()
        return self._memory

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Put into the ``workerinput`` of a worker that is about to start what it has to know."""
        from pytest_smol.reports.builder import has_colour

        local = bool(node.gateway.spec.popen and not node.gateway.spec.chdir)
        told: dict[str, Any] = {"colour": has_colour(self._config)}
        with suppress(SmolError):  # a run without a marked test needs none of it
            told["share"] = str(self._root())
            told["memory"] = self._available() // max(1, node.workerinput["workercount"])
        if local:
            told["request"] = self._request_fields
        node.workerinput[_KEY] = told

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take a worker's ``workeroutput``, and end the run if the worker has asked for it."""
        output = getattr(node, "workeroutput", {})
        self.hidden.update(output.get(_HIDDEN, ()))
        said = output.get(_KEY)
        if said is None:
            return
        if said["returncode"] is None:
            raise pytest.UsageError(*said["lines"])
        pytest.exit("\n".join(said["lines"]), returncode=said["returncode"])

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        """Remove the directory that workers share."""
        if self._directory is not None:
            self._directory.close()


class Worker(SingleProcess):
    """A worker of pytest-xdist: it runs the tests that the controller sends, one after another."""

    def __init__(self, config: pytest.Config) -> None:
        super().__init__()
        plain: Any = config
        self._input: dict[str, Any] = plain.workerinput
        self._output: dict[str, Any] = plain.workeroutput
        self._told: dict[str, Any] = self._input.get(_KEY, {})
        self._dist = _dist_told(bool(getattr(config.option, "loadgroup", False)))

    def process_context(self) -> ProcessContext:
        """As :meth:`SingleProcess.process_context`."""
        from pytest_smol.session.xdist.shared_sessions import ProcessContext, SharedSessions

        given = {key: value for key, value in self._input.items() if key != _KEY}
        env = {name: os.environ[name] for name in _SIZE if name in os.environ}
        context = ProcessContext(self._adapt_request, workerinput=given, env=env, hidden=self.hidden)
        context = replace(context, colour=bool(self._told.get("colour")))
        root = Path(self._told.get("share", "/nonexistent"))
        if not root.is_dir():  # this is another machine than the controller's
            return context
        sessions = SharedSessions(root)
        return replace(context, directory=root, sessions=sessions, memory=self._told.get("memory"))

    def _adapt_request(self, request: SessionRequest) -> SessionRequest:
        """``request`` with the controller's fields, where this worker runs on the controller's host."""
        # Variables of this worker alone are set in its forks, as all workers share one snapshot.
        env = {key: value for key, value in request.env.items() if not key.startswith("PYTEST_XDIST_")}
        request = replace(request, env=env, dist=self._dist)
        return request.with_common(self._told.get("request", {}))

    def ends_in_collection(self, ended: SessionEnded) -> bool:
        """As :meth:`SingleProcess.ends_in_collection`."""
        return _stopped_by_failures(ended)

    def end_run(self, error: pytest.UsageError | Exit) -> None:
        """Let the controller end the run with ``error``: raised here, it would only replace this worker."""
        if isinstance(error, pytest.UsageError):
            self._say([str(line) for line in error.args], None)
        else:
            self._say([str(error.msg)], error.returncode)
        self.over = True

    def note_exit(self, stop: Exit) -> None:
        """Tell the controller the return code, which it does not learn otherwise."""
        # To the controller an exit without a return code is a Ctrl-C; a return code is not sent otherwise.
        if stop.returncode is not None:
            self._say([str(stop.msg)], stop.returncode)

    def pytest_sessionfinish(self) -> None:
        """Send the controller the hidden paths that tests looked up."""
        self._output[_HIDDEN] = _sendable(sorted(self.hidden.copy()))

    def _say(self, lines: list[str], returncode: int | None) -> None:
        code = None if returncode is None else int(returncode)
        self._output.setdefault(_KEY, {"lines": _sendable(lines), "returncode": code})


def _sendable(lines: Sequence[str]) -> list[str]:
    """``lines`` for execnet, which has no form for lone surrogates."""
    return [encodable(line) for line in lines]


def _dist_told(by_groups: bool) -> str:
    """The ``dist`` that guests are told: workers know no more of the controller's ``--dist``."""
    return "loadgroup" if by_groups else "load"


def _stopped_by_failures(ended: SessionEnded) -> bool:
    """Whether a guest's collection ended by --maxfail or its like."""
    return ended.stop is not None and ended.stop.kind in ("fail", "stop")


def _count(spec: str) -> int:
    """How many workers on this host one ``--tx`` asks for: 1 for ``popen``, 3 for ``3*popen``, else 0."""
    number, _, kind = spec.rpartition("*")
    local = re.match(r"popen\b", kind) is not None
    return (int(number) if number.isdecimal() else 1) if local else 0


def _too_many(workers: int, memory: int, available: int) -> NotEnoughMemory:
    return NotEnoughMemory(
        f"{workers} workers with a guest of {memory} MiB each need more memory than the"
        f" {available >> 20} MiB that are available",
        remedy="start fewer workers (-n), free some memory, or lower --smol-memory",
    )
