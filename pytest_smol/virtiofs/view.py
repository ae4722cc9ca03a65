"""What a guest may see: a table from guest path to what stands there. Data only.

A view is composed of few entries. A :class:`HostPath` shows a host file or a
whole host directory; the others exist only in the view. Directories above an
entry need no entry of their own: they are implied, empty but for what the view
puts into them.
"""

from __future__ import annotations

import base64
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pytest_smol.virtiofs.hiding.rules import Hiding

__all__ = ["Content", "Directory", "Entry", "HostPath", "Link", "View"]


@dataclass(frozen=True)
class HostPath:
    """A host file, symbolic link or directory (with all below it) at ``path``, absolute and normalised.

    No directory on the way to it may be a symbolic link: none is followed.
    """

    path: str


@dataclass(frozen=True)
class Content:
    """A regular file whose bytes the view holds itself."""

    data: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True)
class Directory:
    """A directory that holds nothing but what the view puts into it."""

    mode: int = 0o755
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True)
class Link:
    """A symbolic link to ``target``, as readlink(2) gives it."""

    target: str


Entry = HostPath | Content | Directory | Link

_KINDS: dict[str, type] = {kind.__name__: kind for kind in (HostPath, Content, Directory, Link)}


def _parents(path: str) -> list[str]:
    """The directories above ``path``, from ``/`` down, without ``path`` itself."""
    parts = path.split("/")[1:-1]
    return ["/"] + ["/" + "/".join(parts[: n + 1]) for n in range(len(parts))]


def _check_path(path: str) -> None:
    if not path.startswith("/") or (path != "/" and posixpath.normpath(path) != path):
        raise ValueError(f"a view's path must be absolute and normalised: {path!r}")


@dataclass(frozen=True)
class View:
    """Entries by guest path (absolute, normalised), and what is hidden below the host paths among them.

    Raises :class:`ValueError` for a path that is relative or not normalised,
    and for an entry that lies below one that cannot hold it.
    """

    entries: Mapping[str, Entry]
    hiding: Hiding = field(default_factory=Hiding)
    children: Mapping[str, Mapping[str, str]] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        children: dict[str, dict[str, str]] = {"/": {}}
        for path, entry in self.entries.items():
            self._check(path)
            if isinstance(entry, HostPath):
                _check_path(entry.path)
            for parent, child in zip(_parents(path), [*_parents(path)[1:], path], strict=True):
                if child != "/":
                    children.setdefault(parent, {})[posixpath.basename(child)] = child
        object.__setattr__(self, "children", children)

    def _check(self, path: str) -> None:
        _check_path(path)
        for parent in _parents(path):
            if parent != path and not isinstance(self.entries.get(parent, Directory()), Directory):
                raise ValueError(f"{path!r} lies below {parent!r}, which is no directory of the view")

    def get(self, path: str) -> Entry | None:
        """The entry at ``path``; an implied directory gives a plain :class:`Directory`."""
        entry = self.entries.get(path)
        return Directory() if entry is None and path in self.children else entry

    def union(self, entries: Mapping[str, Entry], roots: Iterable[str] = ()) -> View:
        """This view with more entries; what lies below a shown host path needs none and is left out.

        ``roots`` are more directories in which hidden files are searched.
        """
        merged = {**self.entries, **entries}
        shown = {path for path, entry in merged.items() if not isinstance(entry, Directory)}
        kept = {
            path: entry for path, entry in merged.items() if shown.isdisjoint(set(_parents(path)) - {path})
        }
        return View(kept, replace(self.hiding, roots=tuple(dict.fromkeys((*self.hiding.roots, *roots)))))

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form, the same for equal views."""

        def row(entry: Entry) -> dict[str, Any]:
            fields = asdict(entry)
            if "data" in fields:
                fields["data"] = base64.b64encode(fields["data"]).decode("ascii")
            return {"kind": type(entry).__name__, **fields}

        entries = {path: row(entry) for path, entry in sorted(self.entries.items())}
        return {"entries": entries, "hiding": self.hiding.to_json()}

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> View:
        """The inverse of :meth:`to_json`. Raises :class:`ValueError` for anything else."""

        def entry(row: dict[str, Any]) -> Entry:
            fields = dict(row)
            kind = _KINDS[fields.pop("kind")]
            if "data" in fields:
                fields["data"] = base64.b64decode(fields["data"])
            made: Entry = kind(**fields)
            return made

        try:
            entries = {path: entry(row) for path, row in table["entries"].items()}
            return cls(entries, Hiding.from_json(table["hiding"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a view: {error!r}") from error
