"""Tests that run in guests: what the processor holds and counts there. Collected in a guest's own session."""

import ctypes
import hashlib
import mmap
import os
import secrets
import signal
import socket
import threading
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

#: How often the thread below has woken up.
WOKEN = [0]


def keep_a_timer():
    """Sleep again and again, so that a timer is armed whenever the machine is frozen.

    Without one Linux has the timer of the LAPIC stopped, and sets it up from scratch when it is needed: then
    nothing of its state would have to be restored.
    """
    while True:
        time.sleep(0.05)
        WOKEN[0] += 1


threading.Thread(target=keep_a_timer, daemon=True).start()


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


def interrupts(name: str, cpu: int = 0) -> int:
    lines = Path("/proc/interrupts").read_text().splitlines()
    (line,) = (line for line in lines if line.split()[0] == f"{name}:")
    return int(line.split()[1 + cpu])


def clock_event_device() -> str:
    text = Path("/sys/devices/system/clockevents/clockevent0/current_device").read_text()
    return text.strip()


def test_timer_of_the_lapic(record_property):
    """Sleeps end, also one that began before the freeze, and it is the LAPIC's timer that ends them."""
    before = interrupts("LOC")
    woken = WOKEN[0]
    begin = time.monotonic()
    for _ in range(5):
        time.sleep(0.02)
    record_property("device", clock_event_device())
    record_property("slept", time.monotonic() - begin)
    record_property("fired", interrupts("LOC") - before)
    assert time.monotonic() - begin >= 0.1
    assert interrupts("LOC") - before >= 5
    limit = time.monotonic() + 60
    while WOKEN[0] == woken and time.monotonic() < limit:
        time.sleep(0.01)
    assert WOKEN[0] > woken


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


#: 8 MiB that are held while the machine is frozen: written in collection, compared in forks.
HELD = bytearray(secrets.token_bytes(4096) * (8 << 8))
DIGEST = hashlib.sha256(HELD).hexdigest()


def test_memory_is_as_it_was():
    assert hashlib.sha256(HELD).hexdigest() == DIGEST


def test_where_memory_is(record_property):
    """The first address, in bytes, of each zone of memory that has pages."""
    zones, name = {}, ""
    for line in Path("/proc/zoneinfo").read_text().splitlines():
        words = line.split()
        if words[:1] == ["Node"]:
            name = words[-1]
        elif words[:1] == ["present"]:
            present = int(words[1])
        elif words[:1] == ["start_pfn:"] and present:
            zones[name] = int(words[1]) * mmap.PAGESIZE
    record_property("zones", zones)


def on(cpu: int):
    """What each clock shows, and that the timer of this processor ends a sleep."""
    os.sched_setaffinity(0, {cpu})
    before = interrupts("LOC", cpu)
    time.sleep(0.02)
    return {**clocks(), "fired": interrupts("LOC", cpu) - before}


def test_processors(record_property):
    """Processors show one time, and each has a timer that fires."""
    number = os.cpu_count()
    shown = [on(cpu) for _ in range(3) for cpu in range(number)]
    record_property("processors", number)
    assert all(each["fired"] > 0 for each in shown)
    for name in COLLECTED:
        values = [each[name] for each in shown]
        assert values == sorted(values), name


# --- what ends a machine


def test_panic():
    Path("/proc/sysrq-trigger").write_text("c")


def test_triple_fault():
    Path("/sys/kernel/reboot/type").write_text("triple")
    Path("/proc/sysrq-trigger").write_text("b")
    time.sleep(600)


def test_power_off():
    Path("/proc/sysrq-trigger").write_text("o")
    time.sleep(600)


def test_crash():
    os.kill(os.getpid(), signal.SIGSEGV)


def test_hang():
    while True:
        pass
