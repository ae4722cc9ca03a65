"""Files that a guest sends, as messages that a fuzzer changes, and what is told of those that stay in the VM.

The invariant: no error but those that the protocol declares, nothing written outside of the project
or where a hidden file or a link is, and nothing told that a terminal, XML or UTF-8 cannot hold.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from fuzz.support.changes import changed
from fuzz.support.plugins import SECRET, collector_of, project
from fuzz.support.supply import Supply
from pytest_smol.artifacts.collector import ArtifactCollector
from pytest_smol.artifacts.incoming import IncomingArtifacts
from pytest_smol.artifacts.written_paths import ATTRIBUTE
from pytest_smol.errors import ProtocolError
from pytest_smol.protocol.wire import FROM_GUEST, Decoder, Message, WireError, encode

__all__ = ["messages", "run", "take"]

_NAMES = (
    *("out/a.txt", "out/a.txt/b", "out/b/../../x", "/etc/passwd", ".netrc", "link/etc/x", "tests/.env", ""),
    *(
        ".git/hooks/pre-commit",
        "out/\x1b[2J",
        "out/" + "d/" * 100 + "x",
        "out/" + "n" * 255,
        "out//x",
        "a\0b",
    ),
)


def messages(supply: Supply, names: Sequence[str]) -> Iterator[Message]:
    """``file`` and ``unsent`` messages with one of ``names`` or another."""
    while supply:
        kind = supply.number() % 8
        path = supply.choice(names)
        content = base64.b64encode(supply.take(supply.number() % 32)).decode()
        message: dict[str, Any] = {
            "type": "file",
            "path": path,
            "data": content,
            "last": bool(supply.number() % 4),
            "executable": kind == 1,
        }
        if kind == 2:
            message = {"type": "unsent", "path": path, "reason": "too large"}
        if kind == 3:
            message["path"] = supply.take(supply.number() % 64).decode("utf-8", "replace")
        if kind == 4:
            message["data"] = supply.take(8).decode("latin-1")
        yield changed(message, Supply(supply.take(supply.number() % 8))) if kind == 5 else message


def take(collector: ArtifactCollector, said: Iterable[Message]) -> None:
    """Give what a guest said to a run, and check what it tells."""
    incoming = IncomingArtifacts(collector)
    for message in said:
        try:
            (received,) = Decoder(FROM_GUEST).feed(encode(message))
            if received["type"] in ("file", "unsent", "writes"):
                incoming.take(received)
        except (WireError, ProtocolError):
            incoming.begin()
        check_told(incoming)


def check_told(incoming: IncomingArtifacts) -> None:
    """What a report shows can be shown anywhere, and is not much."""
    report: Any = SimpleNamespace(nodeid="a.py::test", sections=[])
    incoming.add_to_report(report)
    told = [text for _, text in report.sections] + getattr(report, ATTRIBUTE, [])
    for text in told:
        text.encode("utf-8")
        assert len(text) < 30_000
        assert all(
            character.isprintable() or character in "\n\t" or ord(character) > 159 for character in text
        )


def run(data: bytes) -> None:
    """The messages that ``data`` makes, to a run whose ``smol_artifacts`` are all files."""
    root = project()
    collector = collector_of("hypothesis", "**", "out/**")
    try:
        take(collector, messages(Supply(data), _NAMES))
    finally:
        collector.close()
    assert (root / ".netrc").read_text() == SECRET
    assert os.readlink(root / "link") == "/"
    assert not (root / ".git").exists()
    assert not os.path.lexists("/etc/x")
