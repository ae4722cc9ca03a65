"""Lists of paths that a guest says its test wrote, and of files that it could not send.

The invariant: an error that the protocol declares, or few lines that a terminal, XML and UTF-8 can hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from fuzz.fuzz_artifacts import take
from fuzz.support.changes import changed
from fuzz.support.plugins import collector_of
from fuzz.support.supply import Supply
from pytest_smol.protocol.wire import Message

__all__ = ["run"]

_SAMPLES: tuple[dict[str, Any], ...] = (
    {"type": "writes", "paths": [["created", "/tmp/x"], ["deleted", "a.py"], ["changed", "b"]], "more": 3},
    {"type": "writes", "paths": [["", "/\udcff"], ["created", "/a\0b"]], "more": -1},
    {"type": "unsent", "path": "out/b.txt", "reason": "too large"},
)


def _messages(supply: Supply) -> Iterator[Message]:
    while supply:
        sample = json.loads(json.dumps(supply.choice(_SAMPLES)))
        repeated = supply.number() % 32
        if "paths" in sample:
            sample["paths"] *= repeated
        yield changed(sample, Supply(supply.take(supply.number() % 16)))


def run(data: bytes) -> None:
    """The messages that ``data`` makes, to one run."""
    collector = collector_of("hypothesis", "out/**")
    try:
        take(collector, _messages(Supply(data)))
    finally:
        collector.close()
