"""Tests that run in guests: what the processor holds and counts there. Collected in a guest's own session."""

import ctypes
import mmap
import os
import secrets
import socket
import time
from pathlib import Path


def native(code: bytes):
    """A function of machine code that takes no arguments and returns 64 bits."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    function = ctypes.CFUNCTYPE(ctypes.c_uint64)(address)
    function.page = page  # it lives as long as the function does
    return function


#: lfence; rdtsc; shl rdx, 32; or rax, rdx; ret
tsc = native(b"\x0f\xae\xe8\x0f\x31\x48\xc1\xe2\x20\x48\x09\xd0\xc3")


def clocks() -> dict[str, float]:
    """The time stamp counter, and the clocks that the kernel computes, in seconds."""
    return {
        "tsc": tsc(),
        "monotonic": time.clock_gettime(time.CLOCK_MONOTONIC),
        "raw": time.clock_gettime(time.CLOCK_MONOTONIC_RAW),
        "boot": time.clock_gettime(time.CLOCK_BOOTTIME),
    }


def tsc_frequency() -> float:
    """In Hz, measured for a tenth of a second against the clock that nothing adjusts."""
    begin, first = time.clock_gettime(time.CLOCK_MONOTONIC_RAW), tsc()
    while (passed := time.clock_gettime(time.CLOCK_MONOTONIC_RAW) - begin) < 0.1:
        continue
    return (tsc() - first) / passed


COLLECTED = clocks()
FREQUENCY = tsc_frequency()


def test_clocks(record_property):
    """Each clock goes on from where it was frozen, and all have advanced by the same time."""
    now = clocks()
    passed = {name: now[name] - COLLECTED[name] for name in now}
    passed["tsc"] /= FREQUENCY
    record_property("passed", passed)
    record_property("time", time.time())
    source = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource").read_text().strip()
    record_property("source", source)
    assert all(each > 0 for each in passed.values()), passed
    assert max(passed.values()) - min(passed.values()) < 1, passed
    assert abs(tsc_frequency() / FREQUENCY - 1) < 0.05


def interrupts(name: str) -> int:
    lines = Path("/proc/interrupts").read_text().splitlines()
    (line,) = (line for line in lines if line.split()[0] == f"{name}:")
    return int(line.split()[1])


def test_timer_of_the_lapic(record_property):
    """A sleep ends, and it is the LAPIC's timer that ends it."""
    before = interrupts("LOC")
    begin = time.monotonic()
    for _ in range(5):
        time.sleep(0.02)
    record_property("slept", time.monotonic() - begin)
    record_property("fired", interrupts("LOC") - before)
    assert time.monotonic() - begin >= 0.1
    assert interrupts("LOC") - before >= 5


def test_identity(record_property):
    record_property("random", secrets.token_hex())
    record_property("hostname", socket.gethostname())
    record_property("boot_id", Path("/proc/sys/kernel/random/boot_id").read_text())
    record_property("urandom", os.urandom(16).hex())


def test_memory_is_its_own(record_property):
    """What another fork has written is not here."""
    path = Path("/tmp/written")
    record_property("found", path.exists())
    path.write_text("x")


def test_processor(record_property):
    flags = Path("/proc/cpuinfo").read_text().split("flags", 1)[1].splitlines()[0].split()
    record_property("flags", [flag for flag in ("hypervisor", "avx", "avx2", "xsave") if flag in flags])
    total = Path("/proc/meminfo").read_text().split("MemTotal:")[1].split()[0]
    record_property("memory", int(total) // 1024)
