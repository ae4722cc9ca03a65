"""What is asked of Landlock for each version of its ABI, and the filter of calls by instruction."""

from __future__ import annotations

import errno
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_smol.engines.confinement import landlock, seccomp
from pytest_smol.engines.confinement.landlock import Access, Rule

#: handled_access_fs, handled_access_net and scoped, as the kernel's documentation has them.
HANDLED = {
    0: (0, 0, 0),
    1: (0x1FFF, 0, 0),
    2: (0x3FFF, 0, 0),
    3: (0x7FFF, 0, 0),
    4: (0x7FFF, 3, 0),
    5: (0xFFFF, 3, 0),
    6: (0xFFFF, 3, 3),
    7: (0xFFFF, 3, 3),
    99: (0xFFFF, 3, 3),
}

needs_landlock = pytest.mark.skipif(not landlock.abi(), reason="the kernel has no Landlock")


@pytest.mark.parametrize("version", HANDLED)
def test_all_that_a_version_can_refuse_is_refused(version: int) -> None:
    assert struct.unpack("=QQQ", landlock.ruleset_attr(version)) == HANDLED[version]


def in_thread(do: Callable[[], None]) -> list[object]:
    """What ``do`` raised in a thread of its own, which is gone when this returns."""
    raised: list[object] = []

    def run() -> None:
        try:
            do()
        except OSError as error:
            raised.append(error.errno)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised


@needs_landlock
def test_a_thread_is_confined_and_no_other(tmp_path: Path) -> None:
    shown, other = tmp_path / "shown", tmp_path / "other"
    for path in (shown, other):
        path.write_text("text")
    rules = [Rule(str(shown), Access.READ_FILE | Access.READ_DIR), Rule(str(tmp_path / "none"), ~Access(0))]

    def attempt(path: Path, flags: int) -> list[object]:
        def do() -> None:
            landlock.no_new_privileges()
            landlock.restrict_thread(rules, landlock.abi())
            os.close(os.open(path, flags))

        return in_thread(do)

    assert attempt(shown, os.O_RDONLY) == []
    assert attempt(shown, os.O_WRONLY) == [errno.EACCES]
    assert attempt(other, os.O_RDONLY) == [errno.EACCES]
    assert attempt(tmp_path / "new", os.O_WRONLY | os.O_CREAT) == [errno.EACCES]
    assert other.read_text() == "text"
    assert not (tmp_path / "new").exists()


@needs_landlock
def test_where_landlock_fails_it_says_so(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(OSError, match=r"loop"):
        landlock.restrict_thread([Rule(str(loop), Access.READ_FILE)], landlock.abi())
    assert set(os.listdir("/proc/self/fd")) <= before


def test_a_kernel_without_landlock_has_version_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "SYS_CREATE_RULESET", 100_000)
    assert landlock.abi() == 0


# --- the filter of calls


def verdict(arch: int, number: int) -> int:
    """What the filter says of the system call ``number``: a machine for its four instructions."""
    rows = list(struct.iter_unpack("=HBBI", seccomp.program()))
    place, loaded = 0, 0
    while True:
        code, if_true, if_false, value = rows[place]
        if code == seccomp.RET:
            return int(value)
        place += 1
        if code == seccomp.LD_W_ABS:
            loaded = {seccomp.ARCH: arch, seccomp.NUMBER: number}[value]
        else:
            holds = loaded == value if code == seccomp.JEQ else loaded >= value
            place += if_true if holds else if_false


X86_64, I386 = 0xC000003E, 0x40000003
REFUSED = 0x00050000 | errno.EACCES


@pytest.mark.parametrize(
    ("arch", "number", "expected"),
    [
        (X86_64, 0, 0x7FFF0000),
        (X86_64, 40, 0x7FFF0000),
        (X86_64, 41, REFUSED),
        (X86_64, 42, 0x7FFF0000),
        (X86_64, 53, 0x7FFF0000),  # socketpair leads nowhere
        *((X86_64, number, REFUSED) for number in (101, 310, 311, 438)),
        (X86_64, 424, 0x7FFF0000),
        (X86_64, 425, REFUSED),
        (X86_64, 426, 0x7FFF0000),
        (X86_64, 0x40000000 | 41, REFUSED),
        (X86_64, 0x40000000, REFUSED),
        (X86_64, 0xFFFFFFFF, REFUSED),
        (I386, 41, 0x80000000),
        (I386, 0, 0x80000000),
    ],
)
def test_the_filter_of_calls(arch: int, number: int, expected: int) -> None:
    assert verdict(arch, number) == expected
