"""What guests collected that had one file each, put together as if one guest had collected it all. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_smol.errors import ProtocolError
from pytest_smol.protocol.wire import Message

__all__ = ["CollectedFile", "ModuleTree"]

#: Rows in one message; a row takes some hundred bytes.
_BATCH = 500


@dataclass
class CollectedFile:
    """What one guest said that collected the file ``path``, whose node id is ``nodeid``."""

    nodeid: str
    path: str
    rows: list[Any] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    deselected: list[int] = field(default_factory=list)
    reports: list[Message] = field(default_factory=list)
    #: ``warning`` and ``suite_property`` messages.
    run_messages: list[Message] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    has_end_hooks: bool = False

    def holds(self, nodeid: object) -> bool:
        """Whether ``nodeid`` is this file's or of something in it."""
        return isinstance(nodeid, str) and (nodeid == self.nodeid or nodeid.startswith(f"{self.nodeid}::"))


class ModuleTree:
    """The tree of all files. A guest says nothing of files other than its own.

    What else it names are directories. These are the same for all guests, so the first that names one stands
    for all. ``files`` are the node ids of all files.
    """

    def __init__(self, files: Container[str] = ()) -> None:
        self._files = files
        self._rows: list[dict[str, Any]] = []
        #: The row of each directory, by what tells it from others.
        self._directories: dict[tuple[Any, ...], int] = {}
        self._tests = 0
        self._order: list[int] = []
        self._deselected: list[int] = []
        self._reports: list[Message] = []
        self._reported: set[str] = set()
        self._said: Counter[str] = Counter()
        self._run_messages: list[Message] = []
        self._lines: dict[str, None] = {}
        self._has_end_hooks = False

    def add(self, file: CollectedFile) -> None:
        """Add what was said of ``file``. Raises :class:`ProtocolError` for what concerns other files."""
        for report in file.reports:
            self._check_report(file, report)
        first = self._tests
        count = self._add_rows(file)
        for numbers, whole in ((file.order, self._order), (file.deselected, self._deselected)):
            if not all(type(number) is int and 0 <= number < count for number in numbers):
                raise ProtocolError(f"the guest of {file.nodeid} selected tests that it did not collect")
            whole += [first + number for number in numbers]
        self._add_reports(file)
        self._add_run_messages(file.run_messages)
        self._lines |= dict.fromkeys(file.lines)
        self._has_end_hooks = self._has_end_hooks or file.has_end_hooks

    def add_listing(self, reports: Sequence[Message], run_messages: Sequence[Message]) -> None:
        """Add what was said while the files were listed: of directories, and of no file's content."""
        for report in reports:
            if not isinstance(report["data"].get("nodeid"), str):
                raise ProtocolError("the guest sent a collect report of nothing")
            self._add_report(report)
        self._add_run_messages(run_messages)

    def _add_report(self, report: Message) -> None:
        self._reported.add(report["data"]["nodeid"])
        self._reports.append(report)

    def _check_report(self, file: CollectedFile, report: Message) -> None:
        nodeid = report["data"].get("nodeid")
        if not (file.holds(nodeid) or self._may_be_directory(nodeid)):
            raise ProtocolError(f"the guest of {file.nodeid} sent a collect report of another file")

    def _may_be_directory(self, nodeid: object) -> bool:
        """Whether ``nodeid`` is neither that of a file nor of something in one."""
        return isinstance(nodeid, str) and nodeid.partition("::")[0] not in self._files

    def _add_reports(self, file: CollectedFile) -> None:
        for report in file.reports:
            nodeid = report["data"]["nodeid"]
            # What is wrong with a directory is the same in all of its files' machines.
            if file.holds(nodeid) or nodeid not in self._reported:
                self._add_report(report)

    def _add_run_messages(self, messages: Sequence[Message]) -> None:
        """Add ``messages``, but for those that another guest has sent: files import the same modules."""
        here: Counter[str] = Counter()
        for message in messages:
            key = json.dumps(message, sort_keys=True)
            here[key] += 1
            if here[key] > self._said[key]:
                self._said[key] = here[key]
                self._run_messages.append(message)

    def _add_rows(self, file: CollectedFile) -> int:
        """Add the rows of ``file``; gives the number of its tests."""
        places: list[int] = []
        made: list[dict[str, Any]] = []
        new: dict[tuple[Any, ...], int] = {}
        count = 0
        for said in file.rows:
            row = {**said, "parent": None if said["parent"] is None else places[said["parent"]]}
            place = len(self._rows) + len(made)
            if not file.holds(row["nodeid"]):
                if "item" in row or not self._may_be_directory(row["nodeid"]):
                    raise ProtocolError(f"the guest of {file.nodeid} collected {row['nodeid']!r}")
                key = (row["parent"], row["kind"], row["nodeid"], row["path"])
                known = self._directories.get(key, new.get(key))
                if known is not None:
                    places.append(known)
                    continue
                new[key] = place
            else:
                row["path"] = file.path
                if "item" in row:
                    count += 1
                    row["item"] = {**row["item"], "number": self._tests + row["item"]["number"]}
            places.append(place)
            made.append(row)
        self._directories |= new
        self._rows += made
        self._tests += count
        return count

    def messages(self) -> Iterator[Message]:
        """What one guest would have said that had collected all files."""
        yield from self._run_messages
        yield from self._reports
        for begin in range(0, len(self._rows), _BATCH):
            yield {"type": "nodes", "rows": self._rows[begin : begin + _BATCH]}
        yield {
            "type": "collected",
            "items": self._order,
            "deselected": self._deselected,
            "lines": list(self._lines),
            "closing": self._has_end_hooks,
        }
