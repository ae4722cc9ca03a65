"""What converts the text of a setting or of a marker's argument into its value."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = [
    "choice",
    "cpus",
    "disks",
    "memory",
    "output_limit",
    "path",
    "seconds",
    "seed",
    "storage",
    "total_limit",
]

#: The least memory in MiB that a guest boots with, and the most that is taken for no typing error.
_MEMORY_RANGE = (128, 1 << 20)

#: The largest limit of a test's output in MiB: a report may have half of it, and a frame 16.
_MOST_OUTPUT = 32

#: The most MiB that a run can be let take of its guests: a tebibyte.
_MOST_TOTAL = 1 << 20

#: The most virtual processors of a guest: more are taken for a typing error.
_MOST_CPUS = 64

_MOST_DISKS = 8

#: The least and the largest scratch disk in bytes, and the most disks of a guest.
_DISK_RANGE = (1 << 20, 1 << 40)

_UNITS = {"K": 10, "M": 20, "G": 30, "T": 40}


def choice(choices: tuple[str, ...]) -> Callable[[str], str]:
    """A converter that takes one of ``choices`` and raises ValueError for anything else."""

    def convert(text: str) -> str:
        if text not in choices:
            raise ValueError(f"one of {', '.join(choices)} is expected")
        return text

    return convert


def memory(text: str | int) -> int:
    """``text`` as a guest's memory in MiB. Raises ValueError."""
    least, most = _MEMORY_RANGE
    value = _number(text, int)
    if not least <= value <= most:
        raise ValueError(f"a number of MiB from {least} to {most} is expected")
    return int(value)


def storage(text: str | int) -> int:
    """``text`` in MiB as the most that tests can write, in bytes. Raises ValueError."""
    return _mib_in_bytes(text, _MEMORY_RANGE[1])


def cpus(text: str | int) -> int:
    """``text`` as a guest's number of virtual processors. Raises ValueError."""
    value = _number(text, int)
    if not 1 <= value <= _MOST_CPUS:
        raise ValueError(f"a number from 1 to {_MOST_CPUS} is expected")
    return int(value)


def disks(sizes: str | Sequence[str]) -> tuple[int, ...]:
    """``sizes``, a sequence or one text with blanks or commas between them, in bytes. Raises ValueError."""
    words = sizes.replace(",", " ").split() if isinstance(sizes, str) else sizes
    if not isinstance(words, (list, tuple)):
        raise ValueError("a list of sizes is expected, such as 64M or 1G")
    if len(words) > _MOST_DISKS:
        raise ValueError(f"a VM has at most {_MOST_DISKS} disks")
    return tuple(map(_disk_size, words))


def _disk_size(text: object) -> int:
    found = re.fullmatch(r"([0-9]{1,12})([KMGT])(?:iB)?", text) if isinstance(text, str) else None
    least, most = _DISK_RANGE
    size = int(found[1]) << _UNITS[found[2]] if found else 0
    if not least <= size <= most:
        raise ValueError(
            f"{text!r} is no size of a disk: a number with K, M, G or T from 1M to 1T is expected"
        )
    return size


def seconds(text: str | float) -> float:
    """``text`` as a limit in seconds. Raises ValueError."""
    value = _number(text, float)
    if not 0 < value < 1e7:
        raise ValueError("a positive number of seconds is expected")
    return value


def seed(text: str | int) -> int:
    """``text`` as what generators of random numbers begin with; numpy's takes 32 bits. Raises ValueError."""
    value = _number(text, int)
    if not 0 <= value < 1 << 32:
        raise ValueError("a whole number from 0 to 4294967295 is expected")
    return int(value)


def output_limit(text: str | int) -> int:
    """``text`` in MiB as the most output of one test, in bytes. Raises ValueError."""
    return _mib_in_bytes(text, _MOST_OUTPUT)


def total_limit(text: str | int) -> int:
    """``text`` in MiB as the most that a run takes of its guests, in bytes. Raises ValueError."""
    return _mib_in_bytes(text, _MOST_TOTAL)


def path(text: str) -> Path:
    """``text`` as an absolute path. Raises ValueError."""
    if not text or "\0" in text:
        raise ValueError("a path is expected")
    return Path(text).absolute()


def _mib_in_bytes(text: str | int, most: int) -> int:
    """``text`` in MiB, from 1 to ``most``, as a number of bytes. Raises ValueError."""
    value = _number(text, int)
    if not 1 <= value <= most:
        raise ValueError(f"a number of MiB from 1 to {most} is expected")
    return int(value) << 20


def _number(value: object, kind: type[int | float]) -> float:
    """``value`` as a number, or one that is in no range where it is none."""
    if not isinstance(value, (str, int, kind)) or isinstance(value, bool):
        return math.nan
    try:
        return kind(value)
    except (ValueError, OverflowError):
        return math.nan
