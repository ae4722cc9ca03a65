"""Which files are data of tests, and so no secrets although they look like some.

What git tracks below a directory of tests is test data: everybody who may read the project has it. An
untracked file there may be a developer's own, so it is no test data. Where there is no repository, as in an
unpacked release, the two cannot be told apart, and all in a directory of tests is test data. That directory
has to be below the top of the repository, or of the project where there is no repository: a name above means
nothing.
"""

from __future__ import annotations

import os
import posixpath
from bisect import bisect_left
from collections.abc import Collection
from typing import NamedTuple

from pytest_smol.host.beneath import Beneath
from pytest_smol.virtiofs.hiding.git_index import parse_index
from pytest_smol.virtiofs.hiding.globs import Globs

__all__ = ["DataOfTests"]

MAX_INDEX = 64 << 20
"""Bytes of the largest index that is read; that of the Linux kernel has 8 MiB."""
MAX_LINK = 4096
"""Bytes of a ``.git`` file, which says where the repository is."""


class Repository(NamedTuple):
    """A work tree: ``top`` is its directory, ``names`` are the tracked paths relative to it, sorted."""

    top: bytes
    names: list[bytes]

    def tracks(self, path: bytes) -> bool:
        """Whether ``path``, absolute and below ``top``, is tracked, or something in that directory."""
        name = path[len(self.top) + 1 :]
        at = bisect_left(self.names, name)
        if at < len(self.names) and self.names[at] == name:
            return True
        at = bisect_left(self.names, name + b"/")
        return at < len(self.names) and self.names[at].startswith(name + b"/")


class DataOfTests:
    """Knows test data by directories' names, ``public``, and modules' names, ``modules``.

    An index is read once in a run. For one thread at a time.
    """

    def __init__(self, public: Collection[str], installed: Collection[str], modules: Collection[str]) -> None:
        self._public = frozenset(map(os.fsencode, public))
        self._installed = frozenset(map(os.fsencode, installed))
        self._modules = Globs(modules)
        self._repositories: dict[bytes, Repository | None] = {}

    def is_installed(self, path: bytes) -> bool:
        """Whether ``path`` is in a directory of installed packages."""
        return not self._installed.isdisjoint(path.split(b"/")[:-1])

    def __call__(self, path: bytes, below_root: bytes) -> bool:
        """Whether ``path`` is test data; ``below_root`` is its part below the project's directory."""
        if not self._is_in_tests(path, below_root):
            return False
        if self.is_installed(path):
            return True  # it came with a package, which everyone has
        repository = self._repository(posixpath.dirname(path))
        return repository is None or repository.tracks(path)

    def _is_in_tests(self, path: bytes, below_root: bytes) -> bool:
        if self._modules.match(path):
            return True
        *above, _ = path.lower().split(b"/")
        for at, name in enumerate(above):
            if name in self._installed:
                return not self._public.isdisjoint(above[at + 1 :])
        repository = self._repository(posixpath.dirname(path))
        below = below_root if repository is None else path[len(repository.top) :]
        return not self._public.isdisjoint(below.lower().split(b"/")[:-1])

    def _repository(self, directory: bytes) -> Repository | None:
        """The repository whose work tree ``directory`` is in, or None."""
        passed = []
        found = None
        while directory not in self._repositories:
            passed.append(directory)
            found = _read_repository(directory)
            if found is not None or directory in (b"", b"/"):
                break
            directory = posixpath.dirname(directory)
        else:
            found = self._repositories[directory]
        self._repositories.update(dict.fromkeys(passed, found))
        return found


def _read_repository(top: bytes) -> Repository | None:
    """The repository whose ``.git`` is in ``top``; None if there is none, or it has no index.

    Of an index that cannot be read nothing is tracked.
    """
    git = top.rstrip(b"/") + b"/.git"
    beneath = Beneath()
    try:
        try:
            index = _read(beneath, git + b"/index", MAX_INDEX)
        except NotADirectoryError:
            link = _read(beneath, git, MAX_LINK).partition(b"gitdir:")[2].strip()
            place = posixpath.normpath(posixpath.join(top, link))
            index = _read(beneath, place + b"/index", MAX_INDEX)
    except OSError:
        return None
    finally:
        beneath.close()
    try:
        return Repository(top.rstrip(b"/"), parse_index(index))
    except ValueError:
        return Repository(top.rstrip(b"/"), [])


def _read(beneath: Beneath, path: bytes, limit: int) -> bytes:
    """The file's content. Raises OSError; what is larger than ``limit`` is cut there."""
    with open(beneath.open_regular(path), "rb") as file:
        return file.read(limit)
