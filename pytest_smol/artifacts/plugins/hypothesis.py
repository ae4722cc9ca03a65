"""hypothesis: its example database, so that the next run tries failing examples first."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_smol.artifacts.plugins.bridge import BasicBridge, RunLimit
from pytest_smol.artifacts.visible import VisibleFiles

__all__ = ["HypothesisBridge"]

#: The most examples that a run brings, and their bytes. hypothesis keeps a few hundred of a failing test.
MAX_FILES = 20_000
MAX_BYTES = 64 << 20

#: The names that hypothesis.database gives to a key and a value: the start of a digest, without a suffix.
_EXAMPLE = "[0-9a-f]{16}/[0-9a-f]{16}"


class HypothesisBridge(BasicBridge):
    """Takes files of the example database on the host, and the ``.gitignore`` of hypothesis' directory.

    What else hypothesis keeps there are caches that it would read without question.
    """

    tells = False

    def __init__(self, config: pytest.Config, visible: VisibleFiles) -> None:
        super().__init__(config, visible)
        self._files = RunLimit(MAX_FILES, f"{MAX_FILES} examples of hypothesis")
        self._bytes = RunLimit(MAX_BYTES, f"{MAX_BYTES >> 20} MiB of examples of hypothesis")
        self._is_used = False
        storage = _below(config.invocation_params.dir / ".hypothesis", config.rootpath)
        self._ignore = "" if storage is None else f"{storage}/.gitignore"
        places = {_below(path, config.rootpath) for path in _databases(config)} - {None}
        self.patterns = tuple(f"{re.escape(str(place))}/{_EXAMPLE}" for place in sorted(map(str, places)))
        if storage is not None:
            self.patterns += (re.escape(self._ignore),)

    def refusal(self, name: str, data: bytes) -> str:
        """Why a file of the example database is not written; empty if it is."""
        if not self._tests_use_it():
            return "no test uses hypothesis"
        lines = data.split(b"\n")
        if name == self._ignore and any(
            line and line != b"*" and not line.startswith(b"#") for line in lines
        ):
            return "hypothesis writes no such file"
        try:
            self._files.take(1)
            self._bytes.take(len(data))
        except ValueError as error:
            return str(error)
        return ""

    def _tests_use_it(self) -> bool:
        """Whether a test of the run has the mark that hypothesis' plugin gives to its own."""
        session = self._config.pluginmanager.get_plugin("session")
        items = getattr(session, "items", ())
        self._is_used = self._is_used or any("hypothesis" in item.keywords for item in items)
        return self._is_used


def _databases(config: pytest.Config) -> list[Path]:
    """The directory of hypothesis' usual database, and that of the host's settings where they are loaded."""
    found = [config.invocation_params.dir / ".hypothesis" / "examples"]
    settings: Any = getattr(sys.modules.get("hypothesis"), "settings", None)
    path = getattr(getattr(getattr(settings, "default", None), "database", None), "path", None)
    if isinstance(path, (str, Path)):
        found.append(config.invocation_params.dir / path)
    return found


def _below(path: Path, root: Path) -> str | None:
    """``path`` from ``root``, None where it is not below it."""
    name = os.path.relpath(os.path.abspath(path), root)
    return None if name == "." or name.split("/")[0] == ".." else name
