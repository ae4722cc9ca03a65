"""Files that a guest sends for hypothesis' database, as messages that a fuzzer changes.

The invariant: nothing is written but examples and ``.gitignore`` in hypothesis' directory, and no error but
those that the protocol declares.
"""

from __future__ import annotations

import os

from fuzz.fuzz_artifacts import messages, take
from fuzz.support.plugins import collector_of, project
from fuzz.support.supply import Supply

__all__ = ["run"]

_NAMES = (
    ".hypothesis/examples/0123456789abcdef/0123456789abcdef",
    ".hypothesis/examples/0123456789abcdef/fedcba9876543210",
    ".hypothesis/.gitignore",
    ".hypothesis/constants/0123456789abcdef",
    ".hypothesis/unicode_data/15.0.0/charmap.json.gz",
    "0123456789abcdef/0123456789abcdef",
    "a.py",
)


def run(data: bytes) -> None:
    """The messages that ``data`` makes, to one run."""
    collector = collector_of("hypothesis")
    try:
        take(collector, messages(Supply(data), _NAMES))
    finally:
        collector.close()
    for folder, _, files in os.walk(project()):
        for name in files:
            where = os.path.relpath(os.path.join(folder, name), project())
            parts = where.split("/")
            if parts[0] == ".hypothesis":
                example = parts[1] == "examples" and [len(part) for part in parts[2:]] == [16, 16]
                assert example or parts[1:] == [".gitignore"], where
            else:
                assert not all(len(part) == 16 for part in parts), where
