"""What it costs to look into a file for credentials before a guest is shown it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from pytest_smol.virtiofs.hiding.contents import LOOKED_INTO, holds_credentials, source_holds_tokens
from tests.bench.figures import Figure

__all__ = ["measure"]

ROOT = Path(__file__).resolve().parents[2]


def _files() -> list[bytes]:
    """The sources and documents of this checkout, as far as files are looked into."""
    found = [
        path for folder in ("pytest_smol", "guest", "tests", "docs") for path in (ROOT / folder).rglob("*")
    ]
    return [path.read_bytes()[:LOOKED_INTO] for path in sorted(found) if path.suffix in (".py", ".md")]


def measure(repeats: int) -> Iterator[Figure]:
    """The processor time for each file: by the rules for data, and by those for source code."""
    files = _files()
    tests = {"data": holds_credentials, "source code": source_holds_tokens}
    samples: dict[str, list[float]] = {kind: [] for kind in tests}
    for _ in range(repeats):
        for kind, test in tests.items():
            begin = time.thread_time()
            for data in files:
                test(data)
            samples[kind].append((time.thread_time() - begin) * 1e3 / len(files))
    yield Figure("size of a file that is looked into", "kB", (sum(map(len, files)) / len(files) / 1e3,))
    for kind, times in samples.items():
        yield Figure(f"looking into a file: {kind}", "ms", tuple(times))
