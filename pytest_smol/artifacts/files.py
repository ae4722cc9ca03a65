"""Files that a guest sends: which names are allowed, and how they are written.

A guest's name is never used as a path. It is split into components and
checked, has to match a pattern of the host's, and is then followed one
directory at a time from a descriptor of the project's root, through no
symbolic link (``O_NOFOLLOW``, open(2)). A file takes the place of another only
whole: it is written next to it and renamed.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from pytest_smol.errors import DiskFull, SettingError

__all__ = [
    "MAX_NAME",
    "MAX_TEST_BYTES",
    "MAX_TEST_FILES",
    "ProjectFiles",
    "Rejected",
    "checked_name",
    "regex_of",
]

#: The most that one test, and so one file, may send, in bytes.
MAX_TEST_BYTES = 64 << 20

#: The most files that one test may send.
MAX_TEST_FILES = 10_000

#: The longest name below the project's root, in bytes of UTF-8: PATH_MAX of linux/limits.h without its NUL.
MAX_NAME = 4095

#: The longest component of a name, in bytes: NAME_MAX of linux/limits.h.
_MAX_COMPONENT = 255

#: A program is run where it is written: what git runs or reads as its settings is no test's to change.
_NEVER = frozenset({".git"})

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

#: The pieces of a glob within one component: stars, a set of characters, or any other character.
_PIECES = re.compile(r"\*+|\[!?\]?[^]]*\]|.", re.DOTALL)

_FULL = (errno.ENOSPC, errno.EDQUOT)


class Rejected(ValueError):
    """A file that a guest sent is not written; the text says why."""


def regex_of(pattern: str) -> str:
    """The regular expression for names below the root that a glob matches as a whole.

    ``*`` and ``?`` stay within a component, ``**`` is any number of
    directories, and a pattern that ends in ``/`` means all that is below.
    Raises :class:`SettingError`.
    """
    parts = (f"{pattern}**" if pattern.endswith("/") else pattern).split("/")
    whole = "".join(map(_directories, parts[:-1])) + (".+" if parts[-1] == "**" else _within(parts[-1]))
    try:
        re.compile(whole)
    except re.error:
        parts = [""]
    if any(part in ("", ".", "..") for part in parts):
        raise SettingError(
            f"smol_artifacts: {pattern!r} is not valid",
            remedy="give globs below the project's root, such as reports/**/*.xml",
        )
    return whole


def _directories(part: str) -> str:
    return "(?:.+/)?" if part == "**" else f"{_within(part)}/"


def _within(part: str) -> str:
    return "".join(_piece(found.group()) for found in _PIECES.finditer(part))


def _piece(piece: str) -> str:
    if piece.startswith("*"):
        return "[^/]*"
    if piece == "?":
        return "[^/]"
    if len(piece) > 1:  # a set of characters, in which only "!" differs from a regular expression's
        characters = piece[1:-1].replace("\\", r"\\")
        return f"(?!/)[^{characters[1:]}]" if characters.startswith("!") else f"(?!/)[{characters}]"
    return re.escape(piece)


def checked_name(name: str, allowed: Iterable[re.Pattern[str]]) -> tuple[str, ...]:
    """The components of ``name``, which is relative to the project's root. Raises :class:`Rejected`."""
    parts = tuple(name.split("/"))
    if any(part in ("", ".", "..") for part in parts):
        raise Rejected("it is not a plain relative name")
    # Surrogates, controls, and the format characters that make a name look like another.
    if not name.isprintable():
        raise Rejected("its name has characters that cannot be shown")
    if len(name.encode()) > MAX_NAME or any(len(part.encode()) > _MAX_COMPONENT for part in parts):
        raise Rejected("its name is too long")
    if any(part.casefold() in _NEVER for part in parts):
        raise Rejected("nothing is written below .git")
    if not any(pattern.fullmatch(name) for pattern in allowed):
        raise Rejected("no pattern asks for it")
    return parts


class ProjectFiles:
    """The project's root, held open. A context manager, or :meth:`close` it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def write(self, parts: Sequence[str], data: bytes, executable: bool) -> None:
        """Let the file at the checked components ``parts`` hold ``data``.

        A file that does is not touched. Raises :class:`Rejected` where there is
        something else than a regular file, or on the way something else than a
        directory, or where it cannot be written, and :class:`DiskFull`.
        """
        try:
            directory = self._parent(parts[:-1])
            try:
                _place(directory, parts[-1], data, executable)
            finally:
                os.close(directory)
        except OSError as error:
            if error.errno in _FULL:
                raise DiskFull(
                    f"{'/'.join(parts)} could not be written below {self._root}: {error.strerror}",
                    remedy="free some space, or name fewer files in smol_artifacts",
                ) from error
            raise Rejected(f"it could not be written: {error.strerror}") from error

    def _parent(self, parts: Sequence[str]) -> int:
        """A descriptor of the directory ``parts``, made where it is missing."""
        directory = os.dup(self._fd)
        for part in parts:
            try:
                inner = _entered(directory, part)
            finally:
                os.close(directory)
            directory = inner
        return directory

    def close(self) -> None:
        """Let go of the root; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> ProjectFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _entered(directory: int, name: str) -> int:
    with suppress(FileExistsError):
        try:
            return _opened(directory, name)
        except FileNotFoundError:
            os.mkdir(name, dir_fd=directory)
    return _opened(directory, name)


def _opened(directory: int, name: str) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise Rejected(f"{name} on its way is not a directory") from error
        raise


def _place(directory: int, name: str, data: bytes, executable: bool) -> None:
    mode = _mode_there(directory, name)
    if mode is not None and _holds(directory, name, data):
        return
    unfinished = f".smol-{secrets.token_hex(8)}"
    fd = os.open(unfinished, _WRITE, 0o777 if executable else 0o666, dir_fd=directory)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            if mode is not None:
                os.fchmod(file.fileno(), mode)
        os.rename(unfinished, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(OSError):
            os.unlink(unfinished, dir_fd=directory)
        raise


def _mode_there(directory: int, name: str) -> int | None:
    """The permissions of the file that is there, which its successor keeps, or None."""
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise Rejected("something that is no regular file has its name")
    return stat.S_IMODE(status.st_mode) & 0o777


def _holds(directory: int, name: str, data: bytes) -> bool:
    """Whether the file is known to hold ``data``: it can be one that its owner may not read."""
    with suppress(OSError):
        fd = os.open(name, _READ, dir_fd=directory)
        with open(fd, "rb") as file:
            return os.fstat(fd).st_size == len(data) and file.read(len(data) + 1) == data
    return False
