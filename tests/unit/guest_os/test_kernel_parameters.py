"""The command line of the guest's kernel, and the frequency of the time stamp counter on it."""

from __future__ import annotations

import pytest

from pytest_smol.errors import HostError
from pytest_smol.guest_os import boot_files, kernel_parameters
from pytest_smol.plugin import _GUEST_PARAMETER


def test_the_clock_is_given_only_where_it_is_known() -> None:
    assert "tsc_early_khz=2596120" in kernel_parameters.command_line(2596120).split()
    assert "tsc_early_khz" not in kernel_parameters.command_line(0)


def test_the_guest_zeroes_its_pages() -> None:
    assert "init_on_alloc=1" in kernel_parameters.command_line(1).split()


def test_the_kernel_takes_the_whole_line() -> None:
    assert len(kernel_parameters.command_line(10**9)) < kernel_parameters.COMMAND_LINE_SIZE


def test_the_line_has_the_marker_of_a_guest() -> None:
    assert _GUEST_PARAMETER in kernel_parameters.command_line(1).split()


def test_what_tests_start_in_a_nested_guest_runs_on_a_host() -> None:
    plain, nested = (kernel_parameters.command_line(1, nested=value).split() for value in (False, True))
    assert _GUEST_PARAMETER not in nested
    assert set(nested) - set(plain) == {kernel_parameters.NESTED}
    assert kernel_parameters.NESTED in boot_files.INIT.read_text().split()


@pytest.mark.parametrize(
    ("cpuinfo", "khz"),
    [
        ("processor\t: 0\nbogomips\t: 5192.24\nflags: a\n\nprocessor: 1\nbogomips\t: 1\n", 2596120),
        ("bogomips : 4000\n", 2000000),
    ],
)
def test_the_frequency_is_read_from_cpuinfo(cpuinfo: str, khz: int) -> None:
    assert kernel_parameters.parse_tsc_khz(cpuinfo) == khz


@pytest.mark.parametrize("cpuinfo", ["", "bogomips : fast\n", "xbogomips : 1\n"])
def test_a_cpuinfo_without_frequency_is_reported(cpuinfo: str) -> None:
    with pytest.raises(HostError, match="frequency"):
        kernel_parameters.parse_tsc_khz(cpuinfo)
