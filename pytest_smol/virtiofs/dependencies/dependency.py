"""One host path that a guest has seen, as a value."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from typing import Any, NamedTuple

__all__ = ["CACHE_DIRECTORY", "NOT_HASHED", "FileDependency", "content_digest", "hashed", "names_digest"]

#: Left out of listings: Python checks its own caches, and every run may add some.
CACHE_DIRECTORY = b"__pycache__"

#: In the place of a digest: the content matters, but no digest of it is known. No digest is equal to it.
NOT_HASHED = "?"

_CHUNK = 1 << 20
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


class FileDependency(NamedTuple):
    """One host path as it was: ``mode`` is st_mode, 0 for a path that was not there.

    ``names`` is a digest of a directory's names where it was listed, else ``""``.
    Of a directory's entries only these names count, not its size or time.
    ``device`` is the place of its st_dev in the server's table of devices, -1
    for none. ``content`` is a digest of what a file holds, or of where a
    symbolic link leads: ``""`` where the guest does not know it,
    :data:`NOT_HASHED` where it does and no digest was taken.
    """

    path: str
    mode: int
    ino: int
    size: int
    mtime_ns: int
    names: str = ""
    device: int = -1
    content: str = ""

    @classmethod
    def from_json(cls, row: Any) -> FileDependency:
        """The inverse of ``list(dependency)``. Raises ValueError for anything else."""
        try:
            path, mode, ino, size, mtime_ns, names, device, content = row
            numbers = (int(mode), int(ino), int(size), int(mtime_ns))
            return cls(str(path), *numbers, str(names), int(device), str(content))
        except TypeError as error:
            raise ValueError(f"not a file dependency: {row!r}") from error


def names_digest(names: Iterable[bytes]) -> str:
    """A digest of a directory's names in any order, leaving ``__pycache__`` out."""
    kept = sorted(name for name in names if name != CACHE_DIRECTORY)
    return hashlib.blake2b(b"\0".join(kept), digest_size=16).hexdigest()


def content_digest(path: str, mode: int) -> str:
    """A digest of the content of the regular file ``path``, or of the target of a link, as ``mode`` says.

    Raises OSError, also where something else is there now.
    """
    digest = hashlib.blake2b(digest_size=16)
    if stat.S_ISLNK(mode):
        digest.update(os.fsencode(os.readlink(path)))
        return digest.hexdigest()
    with open(os.open(path, _READ_FLAGS), "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"{path} is no regular file")
        while data := file.read(_CHUNK):
            digest.update(data)
    return digest.hexdigest()


def hashed(dependencies: Iterable[FileDependency]) -> tuple[FileDependency, ...]:
    """``dependencies`` with digests of the contents that matter.

    A file that is not any more as the guest saw it keeps :data:`NOT_HASHED`.
    """
    return tuple(_hashed(row) if row.content == NOT_HASHED else row for row in dependencies)


def _hashed(row: FileDependency) -> FileDependency:
    try:
        digest = content_digest(row.path, row.mode)
        now = os.lstat(row.path)  # after it was read: a change meanwhile is seen
    except OSError:
        return row
    same = (now.st_mode, now.st_ino, now.st_size, now.st_mtime_ns) == row[1:5]
    return row._replace(content=digest) if same else row
