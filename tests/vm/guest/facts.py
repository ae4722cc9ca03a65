"""What a test on the host and one in a guest must find alike; used by both."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_ATTRIBUTES = ("st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_nlink")


def digest(path: Path) -> str:
    """The SHA-256 of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def attributes(path: Path) -> dict[str, int]:
    """What lstat(2) tells of ``path``, but for what numbers the file system gives."""
    st = os.lstat(path)
    return {name: getattr(st, name) for name in _ATTRIBUTES}


def walk(top: Path) -> dict[str, list[list[str]]]:
    """The names of directories and of files by directory, in an order of their own."""
    found = {}
    for where, directories, files in os.walk(os.fsencode(top)):
        names = [sorted(os.fsdecode(name) for name in kind) for kind in (directories, files)]
        found[os.path.relpath(os.fsdecode(where), top)] = names
    return found
