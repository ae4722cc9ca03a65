"""Checks that ``examples/test_crashes.py`` came out as it must, from pytest's JUnit file of its run."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path

__all__ = ["REASONS", "judge", "reasons"]

#: What each failure has to say about its cause, as a regular expression; None for a test that passes.
REASONS: Mapping[str, str | None] = {
    "test_kernel_panic": r"kernel panicked",
    "test_power_off": r"powered itself off",
    "test_kill_every_process": r"killed by SIGKILL",
    "test_exit_at_once": r"exited with status 0",
    "test_segmentation_fault": r"killed by SIGSEGV",
    # Which comes first is the kernel's and the clock's affair: no memory, or no time left.
    "test_fork_bomb": r"out of memory|killed by SIG|10 s",
    "test_memory_exhaustion": r"out of memory|MemoryError",
    "test_hang": r"\b5 s",
    "test_all_is_well": None,
}


def reasons(junit: str) -> dict[str, list[str]]:
    """What went wrong, by test: each failure and error of a JUnit document, its message first.

    Raises :class:`xml.etree.ElementTree.ParseError` for a text that is none.
    """
    found: dict[str, list[str]] = {}
    for case in ElementTree.fromstring(junit).iter("testcase"):
        wrong = [*case.iter("failure"), *case.iter("error"), *case.iter("skipped")]
        texts = [f"{element.get('message', '')}\n{element.text or ''}".strip() for element in wrong]
        found.setdefault(case.get("name", ""), []).extend(texts)
    return found


def _verdict(name: str, found: Mapping[str, list[str]]) -> str | None:
    """What is not as expected of one test; None where all is."""
    pattern, texts = REASONS.get(name), found.get(name)
    if name not in REASONS:
        return "is not expected at all"
    if texts is None:
        return "was not run"
    if pattern is None:
        return f"should pass, but: {texts[0]}" if texts else None
    if len(texts) != 1:
        return f"should be one failure, but there are {len(texts)}"
    return None if re.search(pattern, texts[0]) else f"does not name its cause ({pattern}): {texts[0]}"


def judge(found: Mapping[str, list[str]]) -> list[str]:
    """Every way in which the run was not as it must be, one line or more each."""
    names = [*REASONS, *(name for name in found if name not in REASONS)]
    verdicts = [(name, _verdict(name, found)) for name in names]
    return [f"{name} {verdict}" for name, verdict in verdicts if verdict]


def main(path: Path) -> int:
    """Print the table of reasons. Exit status: 0 if all was as expected."""
    found = reasons(path.read_text(encoding="utf-8"))
    for name, texts in found.items():
        print(f"  {name:26} {texts[0].splitlines()[0] if texts else 'passed'}")
    wrong = judge(found)
    for line in wrong:
        print(f"UNEXPECTED: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
