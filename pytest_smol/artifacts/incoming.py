"""What one machine sends besides reports, test by test."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable, Mapping

import pytest

from pytest_smol.artifacts.collector import ArtifactCollector
from pytest_smol.artifacts.files import MAX_NAME, MAX_TEST_BYTES, MAX_TEST_FILES, Rejected
from pytest_smol.artifacts.written_paths import ATTRIBUTE
from pytest_smol.errors import ProtocolError, SmolError
from pytest_smol.protocol.wire import Message
from pytest_smol.reports.text import encodable

__all__ = ["IncomingArtifacts"]

#: The most that is told of one test: files that stayed in the VM, and paths that it wrote.
MAX_TOLD = 20

#: The most characters of a name or reason that are shown.
MAX_SHOWN = 400

#: The greatest count that is shown.
_MAX_COUNT = 10**9

_VERBS = {"changed": "changed", "deleted": "deleted"}


class IncomingArtifacts:
    """What comes from one machine. Of each test only what is told is kept, the rest is counted."""

    def __init__(self, artifacts: ArtifactCollector) -> None:
        self._collector = artifacts
        self._take: Mapping[str, Callable[[Message], None]] = {
            "file": self._take_file,
            "unsent": self._take_unsent,
            "writes": self._take_writes,
            "state": self._take_state,
        }
        self.begin()

    def begin(self) -> None:
        """Another test begins, with limits of its own."""
        self._name = ""
        self._content = bytearray()
        self._bytes = 0
        self._files = 0
        self._problems: list[str] = []
        self._more_problems = 0
        self._written: list[str] = []
        self._more_written = 0

    def take(self, message: Message) -> None:
        """Take a ``file``, ``unsent``, ``writes`` or ``state``.

        Raises :class:`DiskFull` once in a run, and :class:`ProtocolError`.
        """
        self._take[message["type"]](message)

    def _take_file(self, message: Message) -> None:
        # A longer name is refused in the end, and only its beginning is shown.
        name = message["path"][: MAX_NAME + 1]
        if name != self._name:
            self._name = name
            self._content.clear()
        if self._bytes <= MAX_TEST_BYTES:  # what comes after too much is not looked at
            self._add(message["data"])
        if message["last"]:
            content, self._name = bytes(self._content), ""
            self._content.clear()
            self._write(name, content, message["executable"])

    def _add(self, text: str) -> None:
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ProtocolError("the guest sent a file that is not base64") from error
        self._bytes += len(data)
        if self._bytes <= MAX_TEST_BYTES:
            self._content += data
        else:
            self._content.clear()

    def _write(self, name: str, content: bytes, executable: bool) -> None:
        self._files += 1
        try:
            if self._bytes > MAX_TEST_BYTES:
                raise Rejected(f"a test may send {MAX_TEST_BYTES >> 20} MiB")
            if self._files > MAX_TEST_FILES:
                raise Rejected(f"a test may send {MAX_TEST_FILES} files")
            self._collector.write(name, content, executable)
        except Rejected as reason:
            self._add_problem(name, str(reason))

    def _take_unsent(self, message: Message) -> None:
        self._add_problem(message["path"], message["reason"])

    def _add_problem(self, name: str, reason: str) -> None:
        if len(self._problems) < MAX_TOLD:
            self._problems.append(f"{_shown(name)}: {_shown(reason)}")
        else:
            self._more_problems += 1

    def _take_writes(self, message: Message) -> None:
        for pair in message["paths"]:
            if (
                not isinstance(pair, list)
                or len(pair) != 2
                or not all(isinstance(each, str) for each in pair)
            ):
                raise ProtocolError("the guest sent a list of writes that is none")
        listed = message["paths"][: MAX_TOLD - len(self._written)]
        self._written += [f"{_verb(kind, path)} {_shown(path)}" for kind, path in listed]
        more = len(message["paths"]) - len(listed) + max(message["more"], 0)
        self._more_written = min(self._more_written + more, _MAX_COUNT)

    def _take_state(self, message: Message) -> None:
        self._collector.take_state(message["plugin"], message["data"])

    def add_to_report(self, report: pytest.TestReport) -> pytest.TestReport:
        """``report`` with the written paths that came since the last one, and with what was not sent."""
        lines = [self._collector.clean(line) for line in self._written]
        lines += [f"... and {self._more_written} more"] if self._more_written else []
        if kept := self._collector.told.some(lines):
            setattr(report, ATTRIBUTE, kept)
        self._written, self._more_written = [], 0
        self.tell(report.nodeid, report.sections)
        return report

    def lost(self, nodeid: str, error: SmolError | None = None) -> None:
        """A machine went wrong before it sent all; tell an ``error`` that no test reports."""
        self._collector.lost(nodeid)
        if error is None:
            return
        text = self._collector.clean(str(error))
        self._collector.warn(f"the VM went wrong after its last test: {text}", nodeid)

    def tell(self, nodeid: str, sections: list[tuple[str, str]]) -> None:
        """Tell, in ``sections`` and as a warning, which files stayed in the VM."""
        lines = [self._collector.clean(line) for line in self._problems]
        lines += [f"... and {self._more_problems} more"] if self._more_problems else []
        self._problems, self._more_problems = [], 0
        if kept := self._collector.told.some(lines):
            text = "\n".join(kept)
            # pytest shows a section of the last report only where it is of the teardown.
            sections.append(("Files that stayed in the VM after teardown", text))
            self._collector.warn(f"files stayed in the VM:\n{text}", nodeid)


def _verb(kind: str, path: str) -> str:
    """How a path was written. What is new to a guest's layer can have been there on the host."""
    return _VERBS.get(kind) or (
        "changed" if "\0" not in path and os.path.lexists(_shown(path)) else "created"
    )


def _shown(name: str) -> str:
    return encodable(name[:MAX_SHOWN])
