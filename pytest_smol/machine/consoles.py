"""Files with what machines' kernels write to their consoles (``--smol-keep-console``)."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from pytest_smol.errors import SettingError

__all__ = ["MOST_KEPT", "ConsoleFile", "Consoles"]

#: The most of one console that is kept, in bytes.
MOST_KEPT = 16 << 20

#: The longest file name that is made from a title, in characters; leaves room for a number and a suffix.
_LONGEST_NAME = 200

_END_MARK = f"\n[pytest-smol keeps no more than {MOST_KEPT} bytes of a console]\n".encode()

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


class Consoles:
    """The console files of one run, in ``directory``; none are kept where that is None.

    ``worker`` is the name of this pytest-xdist worker, empty in any other process;
    it begins the names of the worker's files. Raises :class:`SettingError` where the
    directory cannot be made.
    """

    def __init__(self, directory: Path | None, worker: str = "") -> None:
        self._directory = directory
        self._worker = worker
        self._names: set[str] = set()
        if directory is not None:
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _unwritable(directory, error) from error

    def open(self, title: str) -> ConsoleFile | None:
        """A new file for the console of one machine, named after ``title``, such as a test's node id.

        None where consoles are not kept. Raises :class:`SettingError` where it cannot be written.
        """
        if self._directory is None:
            return None
        path = self._directory / f"{self._unused(safe_name(f'{self._worker} {title}'))}.log"
        try:
            return ConsoleFile(os.open(path, _CREATE, 0o666))
        except OSError as error:
            raise _unwritable(path, error) from error

    def _unused(self, name: str) -> str:
        """``name``, with a number at its end if this run has used it before."""
        number, unused = 1, name
        while unused in self._names:
            number += 1
            unused = f"{name}-{number}"
        self._names.add(unused)
        return unused


def safe_name(title: str) -> str:
    """A file name for ``title``: ASCII letters, digits, ``_``, ``.`` and ``-``, the first no punctuation."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", title).strip("-_.")[:_LONGEST_NAME] or "machine"


def _unwritable(path: Path, error: OSError) -> SettingError:
    return SettingError(
        f"{path} cannot be written: {error.strerror or error}",
        remedy="name a directory of yours with --smol-keep-console or smol_keep_console",
    )


class ConsoleFile:
    """Writes what a console shows to the file descriptor ``fd``, without a buffer.

    A context manager, which closes ``fd``. What cannot be written, for instance to a full disk, is dropped.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._left = MOST_KEPT

    def write(self, data: bytes) -> None:
        """Write ``data``; at the limit of MOST_KEPT bytes write a line that says so, and nothing more."""
        if self._left <= 0:
            return
        kept = data[: self._left]
        self._left -= len(data)
        with suppress(OSError):
            os.write(self._fd, kept)
            if self._left <= 0:
                os.write(self._fd, _END_MARK)

    def __enter__(self) -> ConsoleFile:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
