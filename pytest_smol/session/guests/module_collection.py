"""Collection of each module in a fork of its own, so that no module's import reaches the tests of another.

A guest session that collects so is frozen before it has collected anything. One fork of it lists the
files that tests come from, without importing them; then each file is collected in another. A fork that
runs tests collects their files once more: it is made of the same snapshot.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pytest_smol.errors import MachineError, ProtocolError
from pytest_smol.machine.dispatcher import Phase, Rule, finish, last_words_as_evidence
from pytest_smol.machine.machine import Machine
from pytest_smol.machine.user_terminal import Terminal
from pytest_smol.pool.pool import Pool
from pytest_smol.protocol.wire import Message
from pytest_smol.reports.budget import MessageBudget
from pytest_smol.reports.nodes import MAX_NODES, NodeTable
from pytest_smol.reports.screen import Screen
from pytest_smol.session.guests.collected import Collected, SessionEnded
from pytest_smol.session.guests.collection_deadline import CollectionDeadline
from pytest_smol.session.guests.module_tree import CollectedFile, ModuleTree
from pytest_smol.snapshots.snapshot import Snapshot

__all__ = ["MAX_OF_A_FILE", "FileCollector", "GroupCollection", "ModuleCollection"]

#: The most that is kept of what a guest says while it collects one file, or lists them all, in bytes.
MAX_OF_A_FILE = 256 << 20


class FileCollector:
    """Has a fork collect some files, or list all. ``timeout`` is for each, in seconds.

    What is said of all files together counts towards ``total``, where that is kept.
    """

    def __init__(
        self,
        clean: Callable[[str], str],
        timeout: float,
        terminal: Terminal | None = None,
        screen: Screen | None = None,
        total: MessageBudget | None = None,
    ) -> None:
        self._clean = clean
        self._timeout = timeout
        self._terminal = terminal
        self._screen = screen
        self._total = total

    @property
    def screen(self) -> Screen | None:
        """Where what is written meanwhile is shown; None for nowhere."""
        return self._screen

    def collect(self, machine: Machine, paths: Sequence[str] | None, failed: int = 0) -> Said:
        """What ``machine`` says that collects ``paths``, or, where that is None, lists all files.

        ``failed`` collectors have failed before. Raises :class:`MachineError`, and
        :class:`SessionEnded` where the guest's pytest ends.
        """
        said = Said(self._clean)
        deadline = CollectionDeadline(self._timeout)
        rules = self._rules(machine, said, deadline)
        with last_words_as_evidence(machine):
            told = None if paths is None else list(paths)
            machine.send({"type": "collect", "paths": told, "failed": failed})
            finish(machine, Phase("while it collected", rules, deadline, self._terminal, "collection"))
        return said

    def _rules(self, machine: Machine, said: Said, deadline: CollectionDeadline) -> Mapping[str, Rule]:
        budget = MessageBudget("collection", MAX_OF_A_FILE)

        def end(message: Message) -> None:
            machine.drain()
            raise FileCollectionEnded(message["status"], said, machine.output["stderr"].text(1000))

        def progress(take: Callable[[Message], None]) -> Callable[[Message], None]:
            def taken(message: Message) -> None:
                deadline.progress()
                if self._total is not None:
                    self._total.take(message)
                take(message)

            return taken

        rules = {
            kind: Rule(progress(take), budget, ends=kind == "collected")
            for kind, take in said.handlers.items()
        }
        rules["screen"] = Rule(self._screen.report) if self._screen is not None else Rule()
        rules["exit"] = Rule(end)
        return rules


class Said:
    """What a fork said that collected some files or listed all."""

    def __init__(self, clean: Callable[[str], str]) -> None:
        self.collected = Collected(NodeTable(clean))
        self.rows: list[Any] = []
        #: The path of each file that was listed, by its node id.
        self.files: dict[str, str] = {}

    @property
    def handlers(self) -> Mapping[str, Callable[[Message], None]]:
        """What takes each type of message; ``collected`` is the last."""
        of_collection = dict(self.collected.handlers)
        del of_collection["header"]
        return {**of_collection, "nodes": self._take_nodes, "files": self._take_files}

    def _take_nodes(self, message: Message) -> None:
        self.collected.nodes.add(message["rows"])  # which checks them
        self.rows += message["rows"]

    def _take_files(self, message: Message) -> None:
        for row in message["rows"]:
            if not (type(row) is list and [type(part) for part in row] == [str, str]):
                raise ProtocolError("the guest listed a file that is none")
            self.files.setdefault(*row)
        if len(self.files) > MAX_NODES:
            raise ProtocolError(f"the guest listed more than {MAX_NODES} files")

    def file(self, nodeid: str, path: str) -> CollectedFile:
        """What was said, as that of the file ``path``."""
        collected = self.collected
        collected.nodes.item_ids()  # raises where its tests are numbered wrongly
        reports: list[Message] = [{"type": "collect_report", "data": data} for data in collected.reports]
        return CollectedFile(
            nodeid,
            path,
            self.rows,
            collected.order,
            collected.deselected,
            reports,
            collected.run_messages,
            collected.lines,
            collected.has_end_hooks,
        )


class FileCollectionEnded(SessionEnded):
    """pytest in a fork ended while it collected; ``said`` is what it had said."""

    def __init__(self, status: int, said: Said, output: str) -> None:
        super().__init__(status, said.collected, output)
        self.said = said


def _take_end(ended: Sequence[FileCollectionEnded], take: Callable[[Message], None]) -> tuple[int, str]:
    """Give ``take`` what ended pytest in forks; gives the exit status and the output of the last."""
    usage = dict.fromkeys(line for end in ended for line in end.lines)
    if usage:
        take({"type": "usage_error", "lines": list(usage)})
    stop = ended[-1].stop
    if stop is not None:
        place = list(stop.place) if stop.place is not None else None
        fields = {"kind": stop.kind, "reason": stop.reason, "returncode": stop.returncode}
        take({"type": "stop", **fields, "place": place})
    return ended[-1].status, ended[-1].output


class ModuleCollection:
    """Collects the modules of a run in forks that ``pool`` makes."""

    def __init__(self, pool: Pool, collector: FileCollector) -> None:
        self._pool = pool
        self._collector = collector

    def collect(self, snapshot: Snapshot, take: Callable[[Message], None]) -> tuple[int, str] | None:
        """Collect all that there is in forks of ``snapshot``.

        ``take`` is given what one guest would have said that had collected it all. Gives the exit
        status and the output of a guest whose pytest ended. Raises :class:`MachineError` where the
        files cannot be listed: a file that cannot be collected is one collection error.
        """
        tree = ModuleTree()
        ended: list[FileCollectionEnded] = []
        try:
            listed = self._fork(snapshot, None, "files", 0)
            tree = ModuleTree(listed.files)
            directories = listed.file("", "")
            tree.add_listing(directories.reports, directories.run_messages)
            failed = len(listed.collected.reports)
            for done, nodeid in enumerate(listed.files, 1):
                self._pool.plan(snapshot, len(listed.files) - done)
                take({"type": "collecting", "nodeid": nodeid})
                try:
                    file, failures = self._collected(snapshot, listed.files, nodeid, failed)
                except FileCollectionEnded as end:
                    if not end.lines:
                        raise
                    ended.append(end)
                    file, failures = CollectedFile(nodeid, listed.files[nodeid], end.said.rows), 0
                failed += failures
                tree.add(file)
        except FileCollectionEnded as end:
            ended.append(end)
        # pytest that finds a test of the command line nowhere has collected nothing.
        if all(end.said.rows or not end.lines for end in ended):
            for message in tree.messages():
                take(message)
        return _take_end(ended, take) if ended else None

    def _collected(
        self, snapshot: Snapshot, files: Mapping[str, str], nodeid: str, failed: int
    ) -> tuple[CollectedFile, int]:
        """What a fork said of one of ``files``, and how many failures these are."""
        path = files[nodeid]
        try:
            said = self._fork(snapshot, [path], nodeid, failed)
            file = said.file(nodeid, path)
            ModuleTree(files).add(file)  # raises what it says of other files
        except MachineError as error:
            data = {"nodeid": nodeid, "outcome": "failed", "longrepr": str(error), "sections": []}
            report: Message = {"type": "collect_report", "data": data}
            return CollectedFile(nodeid, path, reports=[report]), 1
        failures = [report for report in file.reports if report["data"].get("outcome") == "failed"]
        return file, len(failures)

    def _fork(self, snapshot: Snapshot, paths: Sequence[str] | None, title: str, failed: int) -> Said:
        screen = self._collector.screen
        machine = self._pool.fork(snapshot, screen.output if screen is not None else None)
        try:
            self._pool.keep_console(machine, f"collection of {title}")
            return self._collector.collect(machine, paths, failed)
        finally:
            self._pool.retire(machine)


def numbers_of(nodeids: Iterable[str], collected: Sequence[str]) -> list[int | None]:
    """For each of ``nodeids`` its place in ``collected``, by turns where one repeats, or None."""
    places: dict[str, deque[int]] = defaultdict(deque)
    for number, nodeid in enumerate(collected):
        places[nodeid].append(number)
    return [places[nodeid].popleft() if places[nodeid] else None for nodeid in nodeids]


class GroupCollection:
    """The files of a group of tests, which each of its machines collects again.

    ``nodeids`` are those of the tests in these files, in the order of the run.
    """

    def __init__(self, collector: FileCollector, paths: Sequence[str], nodeids: Sequence[str]) -> None:
        self._collector = collector
        self._paths = paths
        self._nodeids = nodeids

    def run(self, machine: Machine) -> list[int | None]:
        """The number that ``machine`` has of each test, None where it has none. Raises :class:`SmolError`."""
        try:
            said = self._collector.collect(machine, self._paths)
        except SessionEnded as ended:
            raise ProtocolError(f"{ended} while it collected the tests again") from ended
        return numbers_of(self._nodeids, said.collected.nodes.item_ids())
