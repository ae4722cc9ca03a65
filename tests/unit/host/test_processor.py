"""What of /proc/cpuinfo is part of a snapshot's key."""

from __future__ import annotations

import os

import pytest

from pytest_smol.host import processor

CPU = """processor	: {number}
vendor_id	: GenuineIntel
cpu family	: 6
model		: 143
model name	: Intel(R) Xeon(R) Processor @ 2.60GHz
stepping	: 8
microcode	: 0x1
cpu MHz		: 2596.{mhz}
cache size	: 107520 KB
core id		: {number}
flags		: fpu vme de
bugs		: spectre_v1
bogomips	: 5192.{mhz}
address sizes	: 46 bits physical, 57 bits virtual
power management:

"""


def info(mhz: str = "120") -> str:
    return "".join(CPU.format(number=number, mhz=mhz) for number in range(4))


def test_equal_processors_are_one() -> None:
    (only,) = processor.processors(info())
    assert only == {
        "vendor_id": "GenuineIntel",
        "cpu family": "6",
        "model": "143",
        "model name": "Intel(R) Xeon(R) Processor @ 2.60GHz",
        "stepping": "8",
        "microcode": "0x1",
        "address sizes": "46 bits physical, 57 bits virtual",
        "flags": "de fpu vme",
    }


def test_measured_frequencies_do_not_count() -> None:
    assert processor.processors(info("120")) == processor.processors(info("004"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("stepping	: 8", "stepping	: 9"),
        ("microcode	: 0x1", "microcode	: 0x2"),
        ("model		: 143", "model		: 85"),
        ("fpu vme de", "fpu vme de avx512f"),
        ("46 bits", "39 bits"),
    ],
)
def test_what_a_guest_can_see_counts(old: str, new: str) -> None:
    assert processor.processors(info().replace(old, new)) != processor.processors(info())


def test_the_order_of_flags_does_not_count() -> None:
    assert processor.processors(info().replace("fpu vme de", "vme de fpu")) == processor.processors(info())


def test_cores_of_two_kinds_are_two() -> None:
    assert len(processor.processors(info().replace("microcode	: 0x1", "microcode	: 0x2", 1))) == 2


@pytest.mark.parametrize("text", ["", "\n", "nonsense\n\n:\n"])
def test_other_text_has_none(text: str) -> None:
    assert processor.processors(text) == []


def test_this_host_has_an_identity() -> None:
    found = processor.identity()
    assert found["processors"]
    assert found["kernel"] == [os.uname().release, os.uname().version]
    assert processor.cpuinfo() is processor.cpuinfo()
