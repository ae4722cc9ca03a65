"""What the guests of one run send besides reports."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_smol.artifacts.files import (
    MAX_NAME,
    MAX_TEST_BYTES,
    ProjectFiles,
    Rejected,
    checked_name,
    regex_of,
)
from pytest_smol.artifacts.plugins.bridge import RunLimit
from pytest_smol.artifacts.plugins.registry import bridges_in_use
from pytest_smol.artifacts.visible import VisibleFiles
from pytest_smol.errors import DiskFull
from pytest_smol.settings import Settings

__all__ = ["ArtifactCollector", "ToldLines"]

#: The most lines about files and written paths that a run keeps. A line has at most about 3,000 bytes.
MAX_LINES = 20_000

#: What a file, and each directory on the way to it, counts beyond its content, in bytes: a block of a disk.
_BLOCK = 4096

#: The most warnings of a run about the data of plugins.
MAX_PLUGIN_WARNINGS = 100

#: The most characters of such a warning.
_MAX_SHOWN = 400


class ToldLines:
    """Counts the lines that a run keeps about its tests' files."""

    def __init__(self) -> None:
        self._left = MAX_LINES

    def some(self, lines: list[str]) -> list[str]:
        """As many of ``lines`` as the run still keeps."""
        kept = lines[: self._left]
        self._left -= len(kept)
        return kept


class ArtifactCollector:
    """All of one run. ``clean`` makes guest text safe to show. Close it.

    Raises :class:`SettingError` for a pattern that is not valid.
    """

    def __init__(
        self, config: pytest.Config, settings: Settings, root: Path, clean: Callable[[str], str]
    ) -> None:
        self.clean = clean
        self.told = ToldLines()
        self._config = config
        self._root = root
        self._show = settings.show_writes
        own = [regex_of(pattern) for pattern in settings.artifacts]
        self._visible = VisibleFiles.of_run(settings, root, config.invocation_params.dir)
        self._bridges = bridges_in_use(config, self._visible)
        self._patterns = own + [pattern for each in self._bridges.values() for pattern in each.patterns]
        self._user_patterns = [re.compile(pattern) for pattern in own]
        self._allowed = [re.compile(pattern) for pattern in self._patterns]
        self._files = ProjectFiles(root)
        self._left = RunLimit(
            settings.artifacts_limit,
            f"{settings.artifacts_limit >> 20} MiB of files (see smol_artifacts_limit)",
        )
        self._full = False
        self._warned: set[str] = set()

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
        parts = checked_name(name, self._allowed)
        # PATH_MAX counts from the host's root and includes a NUL.
        if len(os.fsencode(self._root.joinpath(*parts))) > MAX_NAME:
            raise Rejected("its path on the host is too long")
        try:
            hidden = self._visible.is_hidden(self._visible.root, parts)
        except OSError as error:
            raise Rejected(f"it could not be written: {error.strerror}") from error
        if hidden:
            raise Rejected("on the host it is a file that no guest may see")
        if self._full:
            raise Rejected("there is no space left on the host")
        if not any(pattern.fullmatch(name) for pattern in self._user_patterns) and (
            reason := self._refusal(name, data)
        ):
            raise Rejected(reason)
        try:
            self._left.take(len(data) + _BLOCK * len(parts))
        except ValueError as error:
            raise Rejected(str(error)) from error
        try:
            self._files.write(parts, data, executable)
        except DiskFull:
            self._full = True
            raise

    def _refusal(self, name: str, data: bytes) -> str:
        """Why a file that only plugins ask for is not written, or nothing."""
        reasons = [
            bridge.refusal(name, data)
            for bridge in self._bridges.values()
            if any(re.fullmatch(pattern, name) for pattern in bridge.patterns)
        ]
        return reasons[0] if reasons and all(reasons) else ""

    def take_state(self, plugin: str, data: dict[str, Any]) -> None:
        """Give a plugin on the host what one in a guest gathered; what it cannot take is a warning."""
        shown = self._shown(plugin)
        try:
            if plugin not in self._telling:
                raise ValueError("no such plugin is in use")
            if "error" in data:
                raise ValueError(str(data["error"])[:_MAX_SHOWN])
            problems = self._bridges[plugin].take(data)
        except Exception as error:
            self._warn_once(f"what {shown} gathered in a VM is lost: {self._shown(str(error))}")
            return
        for text in problems:
            self._warn_once(f"what {shown} gathered in a VM is left out: {self._shown(text)}")

    def _shown(self, text: str) -> str:
        return self.clean(text[:_MAX_SHOWN])

    def _warn_once(self, text: str) -> None:
        """Warn of a plugin's data, of each problem once, and of so many in a run."""
        if text in self._warned or len(self._warned) > MAX_PLUGIN_WARNINGS:
            return
        self._warned.add(text)
        if len(self._warned) > MAX_PLUGIN_WARNINGS:
            text = "more of what plugins gathered in VMs is lost"
        self.warn(text)

    def warn(self, text: str, nodeid: str = "") -> None:
        """Let pytest record a warning about the test ``nodeid``; guest text in it is clean by then."""
        kind = pytest.PytestWarning
        caught = warnings.WarningMessage(kind(text), kind, "pytest-smol", 0, line="")
        about = {"warning_message": caught, "when": "runtest", "nodeid": nodeid, "location": None}
        self._config.hook.pytest_warning_recorded.call_historic(kwargs=about)

    def lost(self, nodeid: str) -> None:
        """A machine is gone before its end, in or after the test ``nodeid``."""
        for name, bridge in self._bridges.items():
            try:
                if text := bridge.lost():
                    self.warn(text, nodeid)
            except Exception as error:
                self._warn_of_plugin(name, error)

    def finish(self) -> None:
        """Before plugins end the run: they have all that came of guests then."""
        for name, bridge in self._bridges.items():
            try:
                bridge.finish()
            except Exception as error:
                self._warn_of_plugin(name, error)

    def finished(self) -> None:
        """After plugins have ended the run."""
        for name, bridge in self._bridges.items():
            try:
                bridge.closing()
            except Exception as error:
                self._warn_of_plugin(name, error)

    def _warn_of_plugin(self, name: str, error: Exception) -> None:
        text = self._shown(f"{type(error).__name__}: {error}")
        self.warn(f"{name} could not use what it gathered in VMs: {text}")

    def close(self) -> None:
        """Let go of the project's root; idempotent."""
        self._files.close()
        self._visible.close()
