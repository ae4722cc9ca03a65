"""The decision between KVM and TCG, and the structures that the probe hands to the kernel."""

from __future__ import annotations

import errno
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from pytest_smol.engines.kvm import probe
from pytest_smol.engines.qemu import accelerator
from pytest_smol.engines.qemu.accelerator import Accelerator, best_of, decide, verdict
from pytest_smol.errors import AcceleratorUnusable, HostError, SettingError

FAST, SLOW = accelerator.SLOW / 100, accelerator.SLOW * 20


def never() -> accelerator.Finding:
    raise AssertionError("probed although the answer does not matter")


def test_tcg_is_used_without_a_probe() -> None:
    assert decide("tcg", never) == Accelerator("tcg", "max", "")


def test_fast_kvm_is_used() -> None:
    assert decide("auto", lambda: FAST) == Accelerator("kvm", "host", "")
    assert decide("kvm", lambda: FAST) == Accelerator("kvm", "host", "")


@pytest.mark.parametrize("finding", [SLOW, accelerator.SLOW, "there is no /dev/kvm"])
def test_kvm_that_is_no_use_means_tcg_with_the_reason(finding: accelerator.Finding) -> None:
    found = decide("auto", lambda: finding)
    assert (found.name, found.cpu) == ("tcg", "max")
    assert found.reason == verdict(finding) != ""


def test_insisting_on_kvm_that_is_no_use_fails_with_the_reason() -> None:
    with pytest.raises(AcceleratorUnusable, match="no /dev/kvm") as caught:
        decide("kvm", lambda: "there is no /dev/kvm")
    assert "--smol-accel=auto" in caught.value.remedy


def test_another_word_is_a_setting_error() -> None:
    with pytest.raises(SettingError, match="hvf"):
        decide("hvf", never)


def test_the_reason_names_the_time_of_one_turn() -> None:
    assert "1500 ns" in verdict(accelerator.ITERATIONS * 1.5e-6)


@pytest.mark.parametrize(
    ("times", "best", "used"),
    [([FAST, SLOW, SLOW], FAST, 1), ([SLOW, FAST, SLOW], FAST, 2), ([3 * SLOW, SLOW, 2 * SLOW], SLOW, 3)],
)
def test_the_first_fast_time_ends_the_probe(times: list[float], best: float, used: int) -> None:
    left = iter(times)
    assert best_of(3, lambda: next(left)) == best
    assert len(list(left)) == 3 - used


@pytest.mark.parametrize(("system", "machine"), [("Darwin", "x86_64"), ("Linux", "aarch64")])
def test_another_platform_is_refused(monkeypatch: pytest.MonkeyPatch, system: str, machine: str) -> None:
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    with pytest.raises(HostError, match=machine):
        accelerator.choose("auto")


def test_a_probe_that_does_not_come_back_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = threading.Event()
    monkeypatch.setattr(accelerator, "PATIENCE", 0.01)
    monkeypatch.setattr(accelerator, "time_loop", lambda turns: stuck.wait() or 0.0)
    found = accelerator.probe()
    stuck.set()
    assert isinstance(found, str)
    assert "did not end" in found


def refuse(error: Exception) -> float:
    raise error


@pytest.mark.parametrize("error", [probe.KvmRefused("KVM_RUN failed: odd"), RuntimeError("odd")])
def test_whatever_goes_wrong_in_the_probe_is_a_reason(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(accelerator, "time_loop", lambda turns: refuse(error))
    assert "odd" in str(accelerator.probe())


def test_structures_have_the_sizes_that_their_ioctl_numbers_carry() -> None:
    def size(number: int) -> int:
        return number >> 16 & 0x3FFF

    assert size(probe.KVM_SET_REGS) == len(probe.registers())
    assert size(probe.KVM_GET_SREGS) == size(probe.KVM_SET_SREGS) == probe.KVM_SREGS_SIZE
    assert size(probe.KVM_SET_USER_MEMORY_REGION) == probe.MEMORY_REGION.size


def test_registers_lie_where_the_kernel_has_them() -> None:
    packed = probe.registers(rip=0x1000, rflags=2, rax=7)
    assert struct.unpack_from("<Q", packed, 0) == (7,)
    assert struct.unpack_from("<QQ", packed, 16 * 8) == (0x1000, 2)
    assert sum(packed) == 7 + 0x10 + 2


def test_the_loop_jumps_back_to_its_decrement() -> None:
    program = probe.code(0x01020304)
    assert program[2:6] == bytes([4, 3, 2, 1])
    jump = program.index(b"\x75")
    target = jump + 2 + struct.unpack_from("<b", program, jump + 1)[0]
    assert program[target : target + 2] == b"\x66\x49"
    assert program.endswith(b"\xf4")


class FakeKvm:
    """Answers every ioctl; ``failing`` names one that fails."""

    def __init__(self, failing: int = 0, answer: int = probe.KVM_API_VERSION) -> None:
        self.failing, self.answer = failing, answer

    def ioctl(self, fd: int, number: int, argument: object = 0) -> int:
        if number == self.failing:
            raise OSError(errno.EINTR, "interrupted")
        if number in (probe.KVM_CREATE_VM, probe.KVM_CREATE_VCPU):
            return os.memfd_create("fake")
        if number == probe.KVM_GET_VCPU_MMAP_SIZE:
            return 4096
        return self.answer


def kvm_descriptors() -> list[str]:
    """What this process has open of KVM, real or fake. Others' descriptors come and go as they like."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # that of the listing itself
            links.append(os.readlink(f"/proc/self/fd/{name}"))
    return [link for link in links if "memfd:fake" in link or link == "/dev/kvm" or "inode:kvm" in link]


@pytest.fixture
def nothing_stays_open() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name == "kvm-probe":  # given up on a busy host, and perhaps not over yet
            thread.join(60)
    assert kvm_descriptors() == []


@pytest.mark.usefixtures("nothing_stays_open")
@pytest.mark.parametrize(
    "name", ["KVM_GET_API_VERSION", "KVM_CREATE_VM", "KVM_SET_USER_MEMORY_REGION", "KVM_CREATE_VCPU"]
)
def test_every_refusal_names_its_ioctl_and_closes_all(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(probe, "_open", lambda: os.memfd_create("fake"))
    monkeypatch.setattr("fcntl.ioctl", FakeKvm(getattr(probe, name)).ioctl)
    with pytest.raises(probe.KvmRefused, match=name):
        probe.time_loop(1)


@pytest.mark.usefixtures("nothing_stays_open")
def test_another_version_of_the_interface_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_open", lambda: os.memfd_create("fake"))
    monkeypatch.setattr("fcntl.ioctl", FakeKvm(answer=11).ioctl)
    with pytest.raises(probe.KvmRefused, match="version 11"):
        probe.time_loop(1)


@pytest.mark.usefixtures("nothing_stays_open")
def test_this_host_gets_an_accelerator() -> None:
    found = accelerator.choose("auto")
    assert (found.name, found.cpu) in (("kvm", "host"), ("tcg", "max"))
    assert (found.reason == "") == (found.name == "kvm")
