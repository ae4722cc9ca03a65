"""The rules by which files of a view are hidden from guests, as data: a part of each view.

Names are globs as :class:`~pytest_smol.virtiofs.hiding.globs.Globs` takes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from pytest_smol.virtiofs.hiding.names import (
    CREDENTIALS,
    ENVIRONMENTS,
    INSTALLED,
    KEYS,
    PUBLIC,
    REDACTED,
    SHOWN,
    SUSPECTS,
    TEST_MODULES,
)

__all__ = ["CREDENTIALS", "PUBLIC", "REDACTED", "Hiding"]


@dataclass(frozen=True)
class Hiding:
    """The rules. A base snapshot's key holds all of them, for its guest remembers what it saw.

    ``own`` is what the runs of this user keep: other machines' memory, for one.
    ``hide`` is what the user's settings hide. ``public`` are names of directories
    and ``test_modules`` names of modules whose files are test data.
    ``roots`` are the directories in which hidden files are searched to know
    their hard links, and files are looked into; ``home`` is a directory in which
    only the hidden files of the rules are searched.
    """

    own: tuple[str, ...] = ()
    hide: tuple[str, ...] = ()
    credentials: tuple[str, ...] = CREDENTIALS
    environments: tuple[str, ...] = ENVIRONMENTS
    keys: tuple[str, ...] = KEYS
    suspects: tuple[str, ...] = SUSPECTS
    public: tuple[str, ...] = PUBLIC
    test_modules: tuple[str, ...] = TEST_MODULES
    installed: tuple[str, ...] = INSTALLED
    redacted: tuple[str, ...] = REDACTED
    shown: tuple[str, ...] = SHOWN
    roots: tuple[str, ...] = ()
    home: str = ""

    @classmethod
    def of(cls, hide: tuple[str, ...], show: tuple[str, ...]) -> Hiding:
        """The defaults with the user's own: ``hide`` more, but ``show`` of it all."""
        return cls(hide=hide, shown=(*SHOWN, *show))

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return asdict(self)

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Hiding:
        """The inverse of :meth:`to_json`. Raises KeyError or TypeError for anything else."""
        if set(table) != {field.name for field in fields(cls)}:
            raise TypeError("no rules of what is hidden")
        rows: dict[str, Any] = {name: row if name == "home" else tuple(row) for name, row in table.items()}
        return cls(**rows)
