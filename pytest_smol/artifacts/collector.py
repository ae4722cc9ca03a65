"""What guests send home beside reports: files, lists of what tests wrote, and what plugins gathered."""

from __future__ import annotations

import base64
import binascii
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_smol.artifacts import plugin_bridges
from pytest_smol.artifacts.files import MAX_TEST_BYTES, MAX_TEST_FILES, Home, Rejected, checked_name, regex_of
from pytest_smol.errors import DiskFull, ProtocolError, SmolError
from pytest_smol.guest_os.host_view import hiding
from pytest_smol.host.beneath import Beneath
from pytest_smol.protocol.wire import Message
from pytest_smol.settings import Settings
from pytest_smol.virtiofs.hiding.secrets import Secrets

__all__ = ["KINDS", "ArtifactCollector", "IncomingArtifacts", "WrittenPaths"]

#: The messages that :meth:`IncomingArtifacts.take` takes.
KINDS = ("file", "unsent", "writes", "state")

#: The most that is told of one test: files that did not come home, and paths that it wrote.
MAX_TOLD = 20

#: The name of what a report carries of the paths that its test wrote.
_ATTRIBUTE = "smol_writes"

_VERBS = {"changed": "changed", "deleted": "deleted"}


class ArtifactCollector:
    """All of one run. ``clean`` makes guest text safe to show. Close it.

    Raises :class:`SettingError` for a pattern that is none.
    """

    def __init__(
        self, config: pytest.Config, settings: Settings, root: Path, clean: Callable[[str], str]
    ) -> None:
        self.clean = clean
        self._config = config
        self._root = root
        self._bridges = plugin_bridges.in_use(config)
        self._show = settings.show_writes
        self._patterns = [regex_of(pattern) for pattern in settings.artifacts]
        self._patterns += [pattern for each in self._bridges.values() for pattern in each.patterns]
        self.allowed = [re.compile(pattern) for pattern in self._patterns]
        self._home = Home(root)
        self._beneath = Beneath()
        rules = replace(hiding(settings.hide, settings.show), roots=(str(root),))
        self._secrets = Secrets(rules, (), self._beneath)
        self._full = False

    @property
    def expects(self) -> bool:
        """Whether a machine may have something to send when its tests are over."""
        return bool(self._patterns or self._show or self._telling)

    @property
    def _telling(self) -> list[str]:
        return [name for name, bridge in self._bridges.items() if bridge.tells]

    @property
    def boundary(self) -> str:
        """The least scope that may share a machine, for the sake of files that tests have in common."""
        return next((each.boundary for each in self._bridges.values() if each.boundary), "test")

    def request(self) -> dict[str, Any]:
        """The ``files`` of a ``session`` message: what a guest is to send."""
        return {
            "rootdir": str(self._root),
            "patterns": self._patterns,
            "limit": MAX_TEST_BYTES,
            "show": self._show,
            "plugins": self._telling,
        }

    def write(self, name: str, data: bytes, executable: bool) -> None:
        """Write a file. Raises :class:`Rejected`, and :class:`DiskFull` once in a run."""
        parts = checked_name(name, self.allowed)
        if self._is_hidden(parts):
            raise Rejected("on the host it is a file that no guest may see")
        if self._full:
            raise Rejected("there is no space left on the host")
        try:
            self._home.write(parts, data, executable)
        except DiskFull:
            self._full = True
            raise

    def _is_hidden(self, parts: Sequence[str]) -> bool:
        """Whether what stands at a name below the root, or on the way to it, is hidden from guests."""
        for number in range(1, len(parts) + 1):
            path = os.fsencode(self._root.joinpath(*parts[:number]))
            try:
                if self._secrets.hides(path, os.lstat(path)) or self._secrets.redacts(path):
                    return True
            except FileNotFoundError:
                return False
        return False

    def state(self, plugin: str, data: dict[str, Any]) -> None:
        """Give a plugin on the host what one in a guest gathered; what it cannot take is a warning."""
        try:
            if plugin not in self._telling:
                raise ValueError("no such plugin is in use")
            if "error" in data:
                raise ValueError(str(data["error"]))
            self._bridges[plugin].take(data)
        except Exception as error:
            self.warn(f"what {self.clean(plugin)} gathered in a VM is lost: {self.clean(str(error))}")

    def warn(self, text: str, nodeid: str = "") -> None:
        """Let pytest record a warning about the test ``nodeid``; guest text in it is clean by then."""
        kind = pytest.PytestWarning
        caught = warnings.WarningMessage(kind(text), kind, "pytest-smol", 0, line="")
        about = {"warning_message": caught, "when": "runtest", "nodeid": nodeid, "location": None}
        self._config.hook.pytest_warning_recorded.call_historic(kwargs=about)

    def lost(self, nodeid: str) -> None:
        """A machine is gone before its end, in or after the test ``nodeid``."""
        for bridge in self._bridges.values():
            if text := bridge.lost():
                self.warn(text, nodeid)

    def finish(self) -> None:
        """Before plugins end the run: they have all that came of guests then."""
        for bridge in self._bridges.values():
            bridge.finish()

    def finished(self) -> None:
        """After plugins have ended the run."""
        for bridge in self._bridges.values():
            bridge.closing()

    def close(self) -> None:
        """Let go of the project's root; idempotent."""
        self._home.close()
        self._beneath.close()


class IncomingArtifacts:
    """What comes home from one machine, test by test."""

    def __init__(self, artifacts: ArtifactCollector) -> None:
        self._collector = artifacts
        self._take: Mapping[str, Callable[[Message], None]] = {
            "file": self._file,
            "unsent": self._unsent,
            "writes": self._writes,
            "state": self._state,
        }
        self._name = ""
        self._content = bytearray()
        self.begin()

    def begin(self) -> None:
        """Another test begins, with limits of its own."""
        self._bytes = 0
        self._files = 0
        self._problems: list[str] = []
        self._written: list[str] = []

    def take(self, message: Message) -> None:
        """Take one of :data:`KINDS`. Raises :class:`DiskFull` once in a run."""
        self._take[message["type"]](message)

    def _file(self, message: Message) -> None:
        if message["path"] != self._name:
            self._name = message["path"]
            self._content.clear()
        try:
            data = base64.b64decode(message["data"], validate=True)
        except (binascii.Error, ValueError) as error:
            raise ProtocolError("the guest sent a file that is not base64") from error
        self._bytes += len(data)
        if self._bytes <= MAX_TEST_BYTES:
            self._content += data
        if message["last"]:
            content, self._name = bytes(self._content), ""
            self._content.clear()
            self._write(message["path"], content, message["executable"])

    def _write(self, name: str, content: bytes, executable: bool) -> None:
        self._files += 1
        try:
            if self._bytes > MAX_TEST_BYTES:
                raise Rejected(f"a test may send {MAX_TEST_BYTES >> 20} MiB")
            if self._files > MAX_TEST_FILES:
                raise Rejected(f"a test may send {MAX_TEST_FILES} files")
            self._collector.write(name, content, executable)
        except Rejected as reason:
            self._problem(name, str(reason))

    def _unsent(self, message: Message) -> None:
        self._problem(message["path"], message["reason"])

    def _problem(self, name: str, reason: str) -> None:
        if len(self._problems) < MAX_TOLD:
            self._problems.append(f"{_shown(name)}: {reason}")

    def _writes(self, message: Message) -> None:
        for pair in message["paths"]:
            if (
                not isinstance(pair, list)
                or len(pair) != 2
                or not all(isinstance(each, str) for each in pair)
            ):
                raise ProtocolError("the guest sent a list of writes that is none")
        listed = message["paths"][:MAX_TOLD]
        more = len(message["paths"]) - len(listed) + max(message["more"], 0)
        self._written += [f"{_verb(kind, path)} {_shown(path)}" for kind, path in listed]
        if more:
            self._written.append(f"... and {more} more")

    def _state(self, message: Message) -> None:
        self._collector.state(message["plugin"], message["data"])

    def dress(self, report: pytest.TestReport) -> pytest.TestReport:
        """``report`` with what has come since the last one, and a warning of what should have and did not."""
        if self._written:
            setattr(report, _ATTRIBUTE, [self._collector.clean(line) for line in self._written])
            self._written = []
        self.tell(report.nodeid, report.sections)
        return report

    def lost(self, nodeid: str, error: SmolError | None = None) -> None:
        """A machine went wrong before all it had was home; tell an ``error`` that no test reports."""
        self._collector.lost(nodeid)
        if error is None:
            return
        text = self._collector.clean(str(error))
        self._collector.warn(f"the VM went wrong after its last test: {text}", nodeid)

    def tell(self, nodeid: str, sections: list[tuple[str, str]]) -> None:
        """Tell, in ``sections`` and as a warning, which files stayed in the VM."""
        if self._problems:
            text = self._collector.clean("\n".join(self._problems))
            self._problems = []
            # pytest shows a section of the last report only where it is of the teardown.
            sections.append(("Files that stayed in the VM after teardown", text))
            self._collector.warn(f"files stayed in the VM:\n{text}", nodeid)


def _verb(kind: str, path: str) -> str:
    """How a path was written. What is new to a guest's layer can have been there on the host."""
    return _VERBS.get(kind) or (
        "changed" if "\0" not in path and os.path.lexists(_shown(path)) else "created"
    )


def _shown(name: str) -> str:
    return name[:400].encode("utf-8", "backslashreplace").decode()


class WrittenPaths:
    """Shows at the end of a run which paths its tests wrote, as their reports tell."""

    def __init__(self) -> None:
        self._written: dict[str, list[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if lines := getattr(report, _ATTRIBUTE, None):
            self._written.setdefault(report.nodeid, []).extend(lines)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self._written:
            terminalreporter.write_sep("=", "paths written in VMs")
        for nodeid, lines in self._written.items():
            terminalreporter.write_line(nodeid)
            for line in lines:
                terminalreporter.write_line(f"  {line}")
