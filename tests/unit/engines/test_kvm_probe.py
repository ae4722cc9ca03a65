"""The KVM probe against recorded answers of /dev/kvm: a verdict for each, and no fd left open."""

from __future__ import annotations

import errno
import os
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import pytest

from pytest_smol.engines.kvm import probe
from pytest_smol.engines.qemu import accelerator
from pytest_smol.engines.qemu.accelerator import Accelerator, decide, verdict
from pytest_smol.errors import AcceleratorUnusable

#: What one run of the loop takes in seconds on hardware, and where KVM interprets.
FAST, SLOW = accelerator.SLOW / 100, accelerator.SLOW * 20

#: ioctl names by number: KVM's all have the type 0xAE.
NAMES = {
    number: name
    for name, number in vars(probe).items()
    if name.startswith("KVM_") and isinstance(number, int) and number >> 8 & 0xFF == 0xAE
}

#: Answers by ioctl name, in order, the last one for ever; None stands for that of a KVM that works.
Script = Mapping[str, Sequence[int | OSError | None]]


class RecordedKvm:
    """A /dev/kvm that answers as ``script`` says.

    ``times`` are what the runs take, on a clock that only they advance. ``calls`` are the ioctls made.
    """

    def __init__(self, script: Script, times: Sequence[float]) -> None:
        self._answers = {name: list(answers) for name, answers in script.items()}
        self._times = list(times)
        self._missing: set[int] = set()
        self.now = 0.0
        self.exit_reason = probe.KVM_EXIT_HLT
        self.calls: list[str] = []

    def lack(self, number: int) -> None:
        self._missing.add(number)

    def open(self) -> int:
        fd = os.memfd_create("fake")
        os.ftruncate(fd, 4096)
        return fd

    def ioctl(self, fd: int, number: int, argument: object = 0) -> int:
        name = NAMES[number]
        self.calls.append(name)
        answers = self._answers.get(name, [])
        if answers:
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if isinstance(answer, OSError):
                raise answer
            if answer is not None:
                return answer
        return self._usual(name, fd, argument)

    def _usual(self, name: str, fd: int, argument: object) -> int:
        """The answer of a KVM that works."""
        if name in ("KVM_CREATE_VM", "KVM_CREATE_VCPU"):
            return self.open()
        if name == "KVM_RUN":
            self.now += self._times.pop(0) if len(self._times) > 1 else self._times[0]
            os.pwrite(fd, probe.EXIT_REASON.pack(self.exit_reason), probe.EXIT_REASON_OFFSET)
        if name == "KVM_CHECK_EXTENSION":
            return int(argument not in self._missing)
        return {"KVM_GET_API_VERSION": probe.KVM_API_VERSION, "KVM_GET_VCPU_MMAP_SIZE": 4096}.get(name, 0)


class Play(Protocol):
    """Puts a RecordedKvm in the place of /dev/kvm."""

    def __call__(self, script: Script | None = None, times: Sequence[float] = (FAST,)) -> RecordedKvm: ...


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Iterator[Play]:
    """A /dev/kvm that answers as a script says; all that was opened of it must be closed in the end."""

    def start(script: Script | None = None, times: Sequence[float] = (FAST,)) -> RecordedKvm:
        kvm = RecordedKvm(script or {}, times)
        monkeypatch.setattr(probe, "_open", kvm.open)
        monkeypatch.setattr(probe, "perf_counter", lambda: kvm.now)
        monkeypatch.setattr("fcntl.ioctl", kvm.ioctl)
        return kvm

    yield start
    for thread in threading.enumerate():
        if thread.name == "kvm-probe":  # given up on a busy host, and perhaps still running
            thread.join(60)
    assert open_kvm_files() == []


def open_kvm_files() -> list[str]:
    """What this process has open of KVM, real or fake."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the fd of the listing itself is closed by now
            links.append(os.readlink(f"/proc/self/fd/{name}"))
    return [link for link in links if "memfd:fake" in link or link == "/dev/kvm" or "inode:kvm" in link]


# --- verdicts


def test_kvm_that_works_is_used(play: Play) -> None:
    play()
    assert decide("auto", accelerator.probe) == Accelerator("kvm", "host", "")


def test_a_slow_first_run_is_not_counted(play: Play) -> None:
    """As on a nested host, where the first run maps the guest's memory."""
    kvm = play(times=[SLOW, FAST])
    assert decide("auto", accelerator.probe) == Accelerator("kvm", "host", "")
    assert kvm.calls.count("KVM_RUN") == 2


def test_the_first_fast_time_ends_the_probe(play: Play) -> None:
    kvm = play(times=[SLOW, SLOW, 2 * SLOW, FAST, SLOW])
    assert probe.best_time(1, 5, accelerator.SLOW) == pytest.approx(FAST)
    assert kvm.calls.count("KVM_RUN") == 4


def test_the_least_of_all_times_counts(play: Play) -> None:
    kvm = play(times=[FAST, 4 * SLOW, 2 * SLOW, 3 * SLOW])
    assert probe.best_time(1, 3, accelerator.SLOW) == pytest.approx(2 * SLOW)
    assert kvm.calls.count("KVM_RUN") == 4
    assert kvm.calls.count("KVM_CREATE_VM") == 1


def test_kvm_that_is_always_slow_is_used_only_where_it_is_insisted_on(play: Play) -> None:
    play(times=[SLOW])
    found = decide("auto", accelerator.probe)
    assert (found.name, found.cpu) == ("tcg", "max")
    assert "2000 ns" in found.reason
    insisted = decide("kvm", accelerator.probe)
    assert (insisted.name, insisted.cpu) == ("kvm", "host")
    assert "2000 ns" in insisted.reason


def refused(cause: str) -> AcceleratorUnusable:
    """The error of --smol-accel=kvm; ``auto`` falls back to TCG, and says why."""
    found = decide("auto", accelerator.probe)
    assert found.name == "tcg"
    assert cause in found.reason
    with pytest.raises(AcceleratorUnusable, match=cause) as caught:
        decide("kvm", accelerator.probe)
    assert "--smol-accel=auto" in caught.value.remedy
    return caught.value


def test_another_version_of_the_interface_is_refused(play: Play) -> None:
    play({"KVM_GET_API_VERSION": [11]})
    assert "kernel" in refused("version 11").remedy


def test_a_missing_capability_is_named(play: Play) -> None:
    play().lack(probe.CAPABILITIES["KVM_CAP_IRQFD"])
    assert "kernel" in refused("lacks KVM_CAP_IRQFD").remedy


def test_another_end_than_a_halt_is_refused(play: Play) -> None:
    play().exit_reason = 17
    refused("exit reason 17")


def failing_open(monkeypatch: pytest.MonkeyPatch, number: int, mode: int, gid: int) -> None:
    """Let open(2) of /dev/kvm fail, a device with ``mode`` that belongs to the group ``gid``."""

    def fail(path: str, flags: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(probe.os, "open", fail)
    status = os.stat_result((mode, 0, 0, 1, 0, gid, 0, 0, 0, 0))
    monkeypatch.setattr(probe.os, "stat", lambda path: status)


def test_a_missing_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    failing_open(monkeypatch, errno.ENOENT, 0, 0)
    finding = accelerator.probe()
    monkeypatch.undo()
    assert isinstance(finding, probe.KvmRefused)
    assert str(finding) == "there is no /dev/kvm"
    assert "kvm_intel" in finding.remedy


@pytest.mark.parametrize(
    ("mode", "gid", "name", "remedy"),
    [
        (0o020660, 987, "kvm", "usermod -aG kvm"),
        (0o020660, 987, "", "--group-add 987"),
        (0o020600, 0, "root", "udev rule"),
        (0o020600, 987, "kvm", "udev rule"),
    ],
    ids=["group", "nameless-group", "root-only", "owner-only"],
)
def test_no_permission_names_the_group_or_a_rule(
    monkeypatch: pytest.MonkeyPatch, mode: int, gid: int, name: str, remedy: str
) -> None:
    def group(number: int) -> object:
        if not name:
            raise KeyError(number)
        return type("Group", (), {"gr_name": name})

    failing_open(monkeypatch, errno.EACCES, mode, gid)
    monkeypatch.setattr("grp.getgrgid", group)
    finding = accelerator.probe()
    monkeypatch.undo()
    assert isinstance(finding, probe.KvmRefused)
    assert "/dev/kvm cannot be opened: Permission denied" in verdict(finding)
    assert remedy in finding.remedy
    assert ("usermod" in finding.remedy) == ("usermod" in remedy)


# --- errors that pass

EINTR, ENOMEM = (OSError(number, os.strerror(number)) for number in (errno.EINTR, errno.ENOMEM))


@pytest.mark.parametrize(("name", "error", "calls"), [("KVM_CREATE_VM", EINTR, 1), ("KVM_RUN", ENOMEM, 2)])
def test_a_call_that_may_yet_succeed_is_made_again(play: Play, name: str, error: OSError, calls: int) -> None:
    kvm = play({name: [error, error, error, None]})
    assert decide("auto", accelerator.probe) == Accelerator("kvm", "host", "")
    assert kvm.calls.count(name) == 3 + calls


@pytest.mark.parametrize(("name", "error"), [("KVM_CREATE_VM", EINTR), ("KVM_RUN", ENOMEM)])
def test_an_error_that_does_not_pass_is_named(play: Play, name: str, error: OSError) -> None:
    kvm = play({name: [error]})
    with pytest.raises(probe.KvmRefused, match=f"{name} failed 10 times: {error.strerror}"):
        probe.best_time(1, 1, 0)
    assert kvm.calls.count(name) == probe.CALLS


@pytest.mark.parametrize(
    "name",
    [
        "KVM_GET_API_VERSION",
        "KVM_CHECK_EXTENSION",
        "KVM_CREATE_VM",
        "KVM_SET_TSS_ADDR",
        "KVM_SET_USER_MEMORY_REGION",
        "KVM_CREATE_VCPU",
        "KVM_GET_VCPU_MMAP_SIZE",
        "KVM_GET_SREGS",
        "KVM_SET_SREGS",
        "KVM_SET_REGS",
        "KVM_RUN",
    ],
)
def test_every_refusal_names_its_ioctl_and_closes_all(play: Play, name: str) -> None:
    kvm = play({name: [OSError(errno.EIO, "odd")]})
    with pytest.raises(probe.KvmRefused, match=f"{name} failed: odd"):
        probe.best_time(1, 1, 0)
    assert kvm.calls.count(name) == 1


# --- structures and code


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
