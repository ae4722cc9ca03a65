"""What a guest sends besides reports: files, lists of what tests wrote, and what plugins gathered."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Callable
from typing import Any

import pytest

from pytest_smol.guest.artifacts.plugin_bridges import records
from pytest_smol.guest.artifacts.written_files import Changes, Layer

#: The most of a file that one message carries, in bytes.
CHUNK = 1 << 20

#: The most written paths that are listed for one test; the rest is counted.
MAX_LISTED = 500

#: An empty directory is not sent.
_DIRECTORY = "it is a directory"

#: Directories that every run of pytest writes to: they are not listed.
_USUAL = ("__pycache__", ".pytest_cache")


_NOTHING: dict[str, Any] = {"rootdir": "/", "patterns": [], "limit": 0, "show": False, "plugins": []}


class ArtifactSender:
    """A plugin of the guest's pytest: sends the files that tests wrote to the host.

    ``wanted`` is the ``files`` of a ``session`` message, empty if nothing is.
    Without a layer, or if nothing is wanted, it does nothing.
    """

    def __init__(self, send: Callable[..., None], layer: Layer | None, wanted: dict[str, Any]) -> None:
        self._send = send
        wanted = wanted or _NOTHING
        self._layer = layer if wanted["patterns"] or wanted["show"] else None
        self._root = wanted["rootdir"]
        self._patterns = [re.compile(pattern) for pattern in wanted["patterns"]]
        self._limit = wanted["limit"]
        self._show = wanted["show"]
        self._plugins = wanted["plugins"]
        self._changes: Changes | None = None
        self._sent: dict[str, bytes] = {}
        self._early: set[str] = set()
        self._config: pytest.Config

    def pytest_configure(self, config: pytest.Config) -> None:
        """Learn which plugins are in use here, and what they gather."""
        self._config = config

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self) -> None:
        """Scan what was written before the first test, so that later scans find what tests wrote."""
        if self._changes is None and self._layer is not None:
            self._changes = Changes(self._layer, self._layer.prefix if self._show else self._root)
            # What was written while tests were collected goes with the first.
            self._early = set(filter(self._is_wanted, self._changes.known()))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Send the files that the test wrote before the report that ends it."""
        if report.when == "teardown":
            self._send_changes()

    def end(self) -> None:
        """Send what plugins gathered, and the files written since the last test's end."""
        for plugin, data in records(self._config, self._plugins):
            self._send("state", plugin=plugin, data=data)
        self._send_changes()

    def _send_changes(self) -> None:
        if self._changes is None:
            return
        changes, unsure = self._changes.next()
        wanted = set(filter(self._is_wanted, changes)) | unsure & self._sent.keys()
        wanted |= self._early
        self._early = set()
        wanted -= {path for path, kind in changes.items() if kind == "deleted"}
        unsent = {path: self._send_file(path, path in unsure) for path in sorted(wanted)}
        for path, reason in unsent.items():
            if reason not in ("", _DIRECTORY):
                self._send("unsent", path=self._name(path), reason=reason)
        if self._show:
            self._list({path: kind for path, kind in changes.items() if unsent.get(path, "other")})

    def _name(self, path: str) -> str:
        return os.path.relpath(path, self._root)

    def _is_wanted(self, path: str) -> bool:
        name = self._name(path)
        return not name.startswith("../") and any(each.fullmatch(name) for each in self._patterns)

    def _send_file(self, path: str, unsure: bool) -> str:
        """Send a file; an ``unsure`` one only if its content differs from what was sent.

        Gives the reason why it was not sent, or an empty text.
        """
        assert self._layer is not None
        try:
            with open(self._layer.open(path), "rb") as file:
                status = os.fstat(file.fileno())
                if status.st_size > self._limit:
                    return f"it is larger than {self._limit} bytes"
                if not unsure or _digest(file) != self._sent.get(path):
                    file.seek(0)
                    executable = bool(status.st_mode & 0o111)
                    self._sent[path] = self._send_chunks(self._name(path), file, executable)
        except IsADirectoryError:
            return _DIRECTORY
        except OSError as error:
            return str(error.strerror)
        return ""

    def _send_chunks(self, name: str, file: Any, executable: bool) -> bytes:
        digest = hashlib.sha256()
        left = self._limit  # it may grow meanwhile
        last = False
        while not last:
            data = file.read(min(CHUNK, left))
            left -= len(data)
            digest.update(data)
            last = len(data) < CHUNK
            text = base64.b64encode(data).decode("ascii")
            self._send("file", path=name, data=text, last=last, executable=executable)
        return digest.digest()

    def _list(self, changes: dict[str, str]) -> None:
        usual = self._usual()
        listed = [[kind, path] for path, kind in sorted(changes.items()) if not _is_usual(path, usual)]
        if listed:
            self._send("writes", paths=listed[:MAX_LISTED], more=len(listed[MAX_LISTED:]))

    def _usual(self) -> list[str]:
        """The directories that pytest itself writes to: its cache's, and that of tmp_path."""
        config: Any = self._config
        found = [str(config.rootpath / config.getini("cache_dir"))] if _has_ini(config, "cache_dir") else []
        # No public name tells where tmp_path is without making it.
        base = getattr(getattr(config, "_tmp_path_factory", None), "_basetemp", None)
        if base is not None:
            found += [str(base), str(base.with_name("pytest-current"))]
        return found


def _digest(file: Any) -> bytes:
    digest = hashlib.sha256()
    while data := file.read(CHUNK):
        digest.update(data)
    return digest.digest()


def _has_ini(config: pytest.Config, name: str) -> bool:
    try:
        config.getini(name)
    except (KeyError, ValueError):  # its plugin is switched off
        return False
    return True


def _is_usual(path: str, directories: list[str]) -> bool:
    below = any(path == directory or path.startswith(f"{directory}/") for directory in directories)
    return below or not set(_USUAL).isdisjoint(path.split("/"))
