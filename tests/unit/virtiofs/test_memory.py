from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_smol.errors import ProtocolError
from pytest_smol.virtiofs.virtio import memory
from pytest_smol.virtiofs.virtio.memory import ProcessMemory, Region

LOW = Region(0, 0x1000, 0x10000)
HIGH = Region(0x4000, 0x2000, 0x90000)


def table(*regions: Region) -> ProcessMemory:
    made = ProcessMemory(os.getpid())
    made.set_table(regions)
    return made


@pytest.mark.parametrize(
    ("guest", "length", "address"),
    [
        (0, 1, 0x10000),
        (0xFFF, 1, 0x10FFF),
        (0, 0x1000, 0x10000),
        (0x4000, 0x2000, 0x90000),
        (0x5FFF, 1, 0x91FFF),
    ],
)
def test_addresses_are_translated(guest: int, length: int, address: int) -> None:
    assert table(LOW, HIGH).translate(guest, length) == address


@pytest.mark.parametrize(
    ("guest", "length"),
    [
        (0xFFF, 2),
        (0x1000, 1),
        (0x3FFF, 1),
        (0x3FFF, 2),
        (0x6000, 1),
        (0, 0x1001),
        ((1 << 64) - 1, 1),
        (1 << 63, 1 << 32),
    ],
)
def test_what_is_not_wholly_in_one_region_is_refused(guest: int, length: int) -> None:
    with pytest.raises(ProtocolError, match="memory it does not have"):
        table(LOW, HIGH).translate(guest, length)


@given(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 32) - 1))
def test_a_translation_never_leaves_its_region(guest: int, length: int) -> None:
    try:
        address = table(LOW, HIGH).translate(guest, length)
    except ProtocolError:
        return
    inside = [r for r in (LOW, HIGH) if r[2] <= address and address + length <= r[2] + r[1]]
    assert inside
    assert address - inside[0].userspace_addr == guest - inside[0].guest_phys_addr


def test_ring_addresses_are_checked_against_the_same_table() -> None:
    made = table(LOW, HIGH)
    assert made.check(0x90000, 0x2000) == 0x90000
    for address, length in ((0x90000, 0x2001), (0x8FFFF, 2), (0, 1), (0x10FFF, 2), ((1 << 64) - 1, 1)):
        with pytest.raises(ProtocolError, match="outside of guest memory"):
            made.check(address, length)


@pytest.mark.parametrize(
    "region", [Region(0, 0, 0x1000), Region((1 << 64) - 1, 2, 0), Region(0, 2, (1 << 64) - 1)]
)
def test_impossible_regions_are_refused(region: Region) -> None:
    with pytest.raises(ProtocolError, match="impossible"):
        table(region)


def test_bytes_move_in_order_through_many_segments() -> None:
    made = ProcessMemory(os.getpid())
    target = ctypes.create_string_buffer(1 << 20)
    base = ctypes.addressof(target)
    # More than one system call takes, of different lengths, in reverse order of address.
    segments = [(base + 300 * n, 1 + n % 300) for n in reversed(range(3000))]
    data = os.urandom(sum(length for _, length in segments))
    made.write(segments, data)
    assert made.read(segments) == data
    assert target.raw[300 * 2999 : 300 * 2999 + 300] == data[:300]


def test_an_empty_transfer_is_nothing() -> None:
    assert ProcessMemory(os.getpid()).read([]) == b""
    ProcessMemory(os.getpid()).write([], b"")


def test_nul_bytes_are_written_too() -> None:
    target = ctypes.create_string_buffer(b"x" * 8, 8)
    ProcessMemory(os.getpid()).write([(ctypes.addressof(target) + 2, 4)], b"\0a\0\0")
    assert target.raw == b"xx\0a\0\0xx"


def test_a_partial_transfer_is_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    source = ctypes.create_string_buffer(bytes(range(100)), 100)
    base = ctypes.addressof(source)
    real = memory._readv
    calls = []

    def short(pid: int, local: int, n: int, remote: int, count: int, flags: int) -> int:
        calls.append(count)
        return real(pid, local, n, remote, min(count, 1), flags)

    monkeypatch.setattr(memory, "_readv", short)
    made = ProcessMemory(os.getpid())
    assert made.read([(base + 50, 10), (base, 10), (base + 20, 5)]) == bytes(
        [*range(50, 60), *range(10), *range(20, 25)]
    )
    assert calls == [3, 2, 1]


def test_after_skips_what_is_done() -> None:
    segments = [(100, 10), (200, 0), (300, 5)]
    assert memory._after(segments, 0) == [(100, 10), (300, 5)]
    assert memory._after(segments, 4) == [(104, 6), (300, 5)]
    assert memory._after(segments, 10) == [(300, 5)]
    assert memory._after(segments, 15) == []


def test_memory_that_is_announced_but_not_there_is_a_violation() -> None:
    with pytest.raises(ProtocolError, match="cannot be reached"):
        ProcessMemory(os.getpid()).read([(0x10, 8)])


def test_a_process_that_is_gone_is_told_apart() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # not reaped, so the number is still its own
    with pytest.raises(ProcessLookupError):
        ProcessMemory(child.pid).read([(0x10000, 8)])
    child.wait()


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
def test_a_refused_call_names_what_may_refuse_it(number: int) -> None:
    with pytest.raises(ProtocolError, match="cannot be reached") as caught:
        ProcessMemory(os.getpid())._refuse(number)
    assert "kernel.yama.ptrace_scope" in caught.value.remedy
    assert "seccomp" in caught.value.remedy
    assert "--cap-add=SYS_PTRACE" in caught.value.remedy
