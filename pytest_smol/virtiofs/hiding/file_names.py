"""What the rules say of a file's name or path alone. Shared by all machines of a run, as it never changes."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from pytest_smol.virtiofs.hiding.backups import original, source
from pytest_smol.virtiofs.hiding.data_of_tests import DataOfTests
from pytest_smol.virtiofs.hiding.globs import Globs
from pytest_smol.virtiofs.hiding.names import BINARY, SOURCES
from pytest_smol.virtiofs.hiding.rules import Hiding

__all__ = ["FileNames", "Kind", "Name", "Place", "file_names", "is_at_or_below"]

REMEMBERED = 1 << 16
"""How many names, and how many directories, are remembered."""

#: Where no file is looked into: installed packages, the standard library, git's objects.
_NOT_LOOKED_INTO = re.compile(rb"/(?:node_modules|\.git/(?:objects|lfs)|lib(?:64)?/python3\.\d+)/")


class Kind(Enum):
    """What is done with a file's content."""

    DATA = "looked into when its name is looked up"
    SOURCE = "looked into when it is opened, and redacted"
    COMPILED = "its constants are looked into when it is opened, and it is refused"
    BINARY = "looked into when it is opened, and refused"


class Name(NamedTuple):
    """``suspicious``: some path that ends so may be hidden. ``others``: what the file may be made from."""

    suspicious: bool
    others: tuple[bytes, ...]
    kind: Kind


class Place(NamedTuple):
    """Whether a directory's files are looked into, and whether it is, or is in, one of credentials."""

    looked_into: bool
    secret: bool


class FileNames:
    """The rules, compiled."""

    def __init__(self, hiding: Hiding) -> None:
        self.roots = _outermost(hiding.roots)
        always = hiding.own + hiding.hide
        self.always = Globs(always)
        self.credentials = Globs(hiding.credentials)
        self.files = Globs(hiding.environments + hiding.keys)
        self.suspects = Globs(hiding.suspects)
        self.redacted = Globs(hiding.redacted)
        self.shown = Globs(hiding.shown)
        self.keys = Globs(hiding.keys)
        self.test_data = DataOfTests(hiding.public, hiding.installed, hiding.test_modules)
        everything = (always, hiding.credentials, hiding.environments, hiding.keys, hiding.suspects)
        self._all = Globs(sum((*everything, hiding.redacted), ()))
        self._names: dict[bytes, Name] = {}
        self._places: dict[bytes, Place] = {}

    def name(self, name: bytes) -> Name:
        """What the rules say of a file's name."""
        found = self._names.get(name)
        if found is None:
            if len(self._names) >= REMEMBERED:
                self._names.clear()
            found = self._names[name] = self._judge(name)
        return found

    def _judge(self, name: bytes) -> Name:
        module = source(name)
        others = original(name) if module is None else (module, *original(module))
        others = tuple(other for other in others if self._all.may_match(other))
        suffix = os.fsdecode(name.rpartition(b".")[2].lower())
        if module is not None:
            kind = Kind.COMPILED
        else:
            kind = Kind.SOURCE if suffix in SOURCES else Kind.BINARY if suffix in BINARY else Kind.DATA
        return Name(bool(others) or self._all.may_match(name), others, kind)

    def place(self, directory: bytes) -> Place:
        """What the rules say of a host directory, by its path."""
        found = self._places.get(directory)
        if found is None:
            if len(self._places) >= REMEMBERED:
                self._places.clear()
            found = self._places[directory] = self._look(directory)
        return found

    def _look(self, directory: bytes) -> Place:
        path = directory + b"/"
        skipped = self.test_data.is_installed(path) or _NOT_LOOKED_INTO.search(path) is not None
        return Place(
            self.is_in_roots(directory) and not skipped,
            self.credentials.match_above(self.below_root(directory)),
        )

    def is_in_roots(self, path: bytes) -> bool:
        """Whether ``path`` is in one of the project's directories."""
        return any(is_at_or_below(path, root) for root in self.roots)

    def below_root(self, path: bytes) -> bytes:
        """``path`` from the root that it is in, so that a directory above a project decides nothing."""
        for root in self.roots:
            if is_at_or_below(path, root):
                return path[len(root) :]
        return path

    def paths(self, host: bytes) -> Iterator[bytes]:
        """``host``, and the paths of what it may be a backup or the compiled code of."""
        yield host
        directory, _, name = host.rpartition(b"/")
        others = self.name(name).others
        if others and self.name(name).kind is Kind.COMPILED and directory.endswith(b"/__pycache__"):
            directory = directory[: -len(b"/__pycache__")]
        for other in others:
            yield directory + b"/" + other

    def is_shown(self, host: bytes) -> bool:
        """Whether an exception names ``host``, what it was made from or a directory above it."""
        return any(self.shown.match_above(self.below_root(path)) for path in self.paths(host))

    def is_test_data(self, host: bytes) -> bool:
        """Whether ``host`` is data of tests."""
        return self.test_data(host, self.below_root(host))


@lru_cache(maxsize=16)
def file_names(hiding: Hiding) -> FileNames:
    """The rules, compiled once in a run, as is what they have to remember."""
    return FileNames(hiding)


def is_at_or_below(path: bytes, place: bytes) -> bool:
    """Whether ``path`` is ``place``, or in it."""
    return path.startswith(place) and (len(path) == len(place) or path[len(place)] == 0x2F)


def _outermost(roots: Collection[str]) -> tuple[bytes, ...]:
    kept: list[bytes] = []
    for root in sorted(os.fsencode(root.rstrip("/")) for root in roots):
        if not any(is_at_or_below(root, place) for place in kept):
            kept.append(root)
    return tuple(kept)
