"""Each check of the doctor's fails where something is missing, with a remedy and exit status 1."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_smol import doctor
from pytest_smol.cli import main, report
from pytest_smol.doctor import Finding, examine
from pytest_smol.engines.confinement.domains import Level
from pytest_smol.engines.qemu import checks
from pytest_smol.errors import (
    ConfinementMissing,
    DiskFull,
    HostError,
    NotEnoughMemory,
    ProtocolError,
    SettingError,
    SmolError,
    ToolMissing,
)
from pytest_smol.settings import Settings
from pytest_smol.virtiofs.virtio.memory import ProcessMemory, Segment

SETTINGS = Settings()
FULL = Level(6)


def failure(check: Callable[[], object], kind: type[SmolError]) -> str:
    """The message of the error that ``check`` raises, and its remedy."""
    with pytest.raises(kind) as caught:
        check()
    assert caught.value.remedy
    return f"{caught.value.message}\n{caught.value.remedy}"


def script(directory: Path, name: str, text: str) -> str:
    """A directory with a program ``name`` that runs the shell's ``text``."""
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(directory)


# --- what is found, and the exit status


def fails(settings: Settings) -> str:
    raise ToolMissing("no tool", remedy="install it")


def is_refused(settings: Settings) -> str:
    raise PermissionError(errno.EACCES, "Permission denied", "/proc/meminfo")


def test_a_failing_check_is_a_finding_with_its_remedy() -> None:
    found = list(examine(SETTINGS, [("a", fails), ("b", lambda settings: "fine"), ("c", is_refused)]))
    assert found[:2] == [Finding("a", False, "no tool", "install it"), Finding("b", True, "fine")]
    assert not found[2].good
    assert "/proc/meminfo" in found[2].text
    assert found[2].remedy


@pytest.mark.parametrize(("good", "status"), [((True, True), 0), ((False, True), 1), ((True, False), 1)])
def test_the_exit_status(good: Sequence[bool], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(Finding("subject", each, "text", "" if each else "remedy") for each in good) == status
    printed = capsys.readouterr().out
    assert printed.count("FAIL subject") == printed.count("hint: remedy") == good.count(False)


def test_the_command_fails_where_a_check_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("SMOL_QEMU", str(tmp_path / "from-variable"))
    assert main(["doctor", f"--smol-kernel={tmp_path / 'none'}"]) == 1
    printed = capsys.readouterr().out
    assert f"FAIL qemu         {tmp_path / 'from-variable'} is not installed" in printed
    assert f"FAIL guest kernel the kernel {tmp_path / 'none'} cannot be read" in printed
    assert main(["doctor", f"--smol-qemu={tmp_path / 'typed'}", f"--smol-kernel={tmp_path / 'none'}"]) == 1
    assert f"FAIL qemu         {tmp_path / 'typed'} is not installed" in capsys.readouterr().out


def test_a_wrong_setting_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--smol-memory=much"]) == 1
    assert "--smol-memory='much' is not valid" in capsys.readouterr().err


def test_what_killed_runs_left_in_a_snapshot_directory_is_removed(
    places: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    left = [places[name] / "pytest-smol-run-dead" for name in ("temporary", "snapshots")]
    for directory in left:
        directory.mkdir()
    assert main(["gc"]) == 0
    assert [directory.exists() for directory in left] == [False, True]
    assert main(["gc", f"--smol-snapshot-dir={places['snapshots']}"]) == 0
    assert not left[1].exists()
    assert f"removed {left[1]}" in capsys.readouterr().out


def test_the_ini_file_says_where_killed_runs_left_files(
    places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = places["snapshots"] / "pytest-smol-run-dead"
    left.mkdir()
    (tmp_path / "pytest.ini").write_text(f"[pytest]\nsmol_snapshot_dir = {places['snapshots']}\n")
    monkeypatch.chdir(tmp_path)
    assert main(["gc"]) == 0
    assert not left.exists()


def test_every_check_can_fail() -> None:
    """Each has a test below; that of Python is its package's metadata."""
    here = Path(__file__).read_text()
    for subject, check in doctor.CHECKS:
        assert check is doctor.check_python or f".{check.__name__}(" in here, subject


# --- the host


@pytest.mark.parametrize("release", ["5.2.21-generic", "4.19.0", "3.10.0-1160.el7.x86_64", "unknown", ""])
def test_an_old_kernel_of_the_host(release: str) -> None:
    text = failure(lambda: doctor.check_host_kernel(SETTINGS, release), HostError)
    assert f"Linux {release}, which" in text
    assert "5.3 or newer" in text


@pytest.mark.parametrize("release", ["5.3.0", "5.10.0-30-amd64", "6.1", "10.0.1"])
def test_a_kernel_of_the_host_that_will_do(release: str) -> None:
    assert doctor.check_host_kernel(SETTINGS, release) == f"Linux {release}"


def test_a_refused_pidfd_open() -> None:
    def pidfd_open(pid: int) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    text = failure(lambda: doctor.check_pidfd(SETTINGS, pidfd_open), HostError)
    assert "not permitted" in text
    assert "seccomp" in text


def test_a_python_without_pidfd_open() -> None:
    assert "headers" in failure(lambda: doctor.check_pidfd(SETTINGS, None), HostError)


def test_pidfd_open_leaves_no_descriptor() -> None:
    before = os.listdir("/proc/self/fd")
    doctor.check_pidfd(SETTINGS)
    assert os.listdir("/proc/self/fd") == before


def test_no_setpriv(tmp_path: Path) -> None:
    text = failure(lambda: doctor.check_launcher(SETTINGS, str(tmp_path)), ToolMissing)
    assert "util-linux" in text


def test_a_setpriv_without_pdeathsig(tmp_path: Path) -> None:
    path = script(tmp_path, "setpriv", 'echo "setpriv: unrecognized option $1" >&2; exit 1')
    text = failure(lambda: doctor.check_launcher(SETTINGS, path), HostError)
    assert "--pdeathsig KILL -- true' fails: setpriv: unrecognized option --pdeathsig" in text
    assert "util-linux" in text


def test_a_setpriv_that_works(tmp_path: Path) -> None:
    path = script(tmp_path, "setpriv", '[ "$*" = "--pdeathsig KILL -- true" ]')
    assert str(tmp_path / "setpriv") in doctor.check_launcher(SETTINGS, path)


def test_too_little_memory(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    meminfo = tmp_path / "proc/meminfo"
    meminfo.write_text("MemAvailable: 102400 kB\n")
    text = failure(lambda: doctor.check_memory(SETTINGS, tmp_path), NotEnoughMemory)
    assert "512 MiB needs more memory than the 100 MiB" in text
    meminfo.write_text("MemAvailable: 1024000 kB\n")
    assert "1000 MiB available" in doctor.check_memory(SETTINGS, tmp_path)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A cache, a directory of temporary files, and one for snapshots."""
    found = {name: tmp_path / name for name in ("cache", "temporary", "snapshots")}
    for path in found.values():
        path.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_CACHE_HOME", str(found["cache"]))
    monkeypatch.setattr("tempfile.tempdir", str(found["temporary"]))
    return {**found, "cache": found["cache"] / "pytest-smol"}


@pytest.mark.parametrize(
    ("full", "own"), [("cache", False), ("temporary", False), ("cache", True), ("snapshots", True)]
)
def test_a_directory_without_space(places: dict[str, Path], full: str, own: bool) -> None:
    def require(directory: Path, needed: int) -> None:
        assert needed == 512 << 20
        if directory == places[full]:
            raise DiskFull(f"{directory} is full", remedy="free some space")

    settings = replace(SETTINGS, snapshot_dir=places["snapshots"] if own else None)
    text = failure(lambda: doctor.check_space(settings, require), DiskFull)
    assert str(places[full]) in text
    assert not list(places["temporary"].iterdir()) + list(places["snapshots"].iterdir())


def test_space_is_what_the_file_system_has(places: dict[str, Path]) -> None:
    assert "temporary files" in doctor.check_space(replace(SETTINGS, memory=1))
    failure(lambda: doctor.check_space(replace(SETTINGS, memory=1 << 40)), DiskFull)


def test_a_snapshot_directory_that_is_not_there(places: dict[str, Path]) -> None:
    settings = replace(SETTINGS, snapshot_dir=places["snapshots"] / "none")
    assert "--smol-snapshot-dir" in failure(lambda: doctor.check_space(settings), DiskFull)


def test_a_snapshot_directory_that_others_may_change(places: dict[str, Path]) -> None:
    places["snapshots"].chmod(0o777)
    settings = replace(SETTINGS, snapshot_dir=places["snapshots"])
    assert "others may write" in failure(lambda: doctor.check_space(settings), SettingError)


def test_a_cache_that_others_may_change(places: dict[str, Path]) -> None:
    assert doctor.check_cache(SETTINGS) == str(places["cache"])
    places["cache"].chmod(0o777)
    failure(lambda: doctor.check_cache(SETTINGS), SettingError)


# --- QEMU, the guest's kernel, and what they are made of


def test_no_qemu() -> None:
    settings = replace(SETTINGS, qemu="/none/qemu")
    failure(lambda: checks.check_qemu(settings), ToolMissing)
    failure(lambda: checks.check_confinement(settings), ToolMissing)


def test_an_unknown_accelerator() -> None:
    failure(lambda: checks.check_accelerator(replace(SETTINGS, accel="hvf")), SettingError)


def test_no_busybox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", script(tmp_path, "busybox", "exit 0"))  # no program of an initramfs
    failure(lambda: doctor.check_busybox(SETTINGS), ToolMissing)


def test_no_guest_kernel(places: dict[str, Path]) -> None:
    failure(lambda: doctor.check_guest_kernel(replace(SETTINGS, kernel="/none/vmlinuz")), HostError)


# --- confinement


@pytest.mark.parametrize(
    ("level", "lacks"),
    [
        (replace(FULL, landlock=0), "no Landlock"),
        (replace(FULL, filter=False), "no seccomp filter"),
        (replace(FULL, limits=False), "no limits"),
        (replace(FULL, filter=False, reason="seccomp(2) is refused"), "seccomp(2) is refused"),
        (replace(FULL, reason="QEMU does not run so"), "QEMU does not run so"),
    ],
)
def test_what_confines_too_little(level: Level, lacks: str) -> None:
    assert lacks in failure(lambda: checks.describe_confinement(level), ConfinementMissing)


@pytest.mark.parametrize("abi", [1, 3, 5])
def test_an_older_landlock_is_described_by_what_it_does_not_refuse(abi: int) -> None:
    text = checks.describe_confinement(replace(FULL, landlock=abi))
    assert f"Landlock ABI {abi}" in text
    assert "not refused: " in text
    assert "signals and abstract sockets" in text


def test_full_confinement() -> None:
    assert "not refused" not in checks.describe_confinement(FULL)


# --- the memory of a child


def test_the_memory_of_a_child_is_reached() -> None:
    assert "work" in doctor.check_process_vm(SETTINGS)


class Reading(ProcessMemory):
    """Memory that can be read, and written without effect."""

    def write(self, segments: Sequence[Segment], data: bytes) -> None:
        pass


class Refused(Reading):
    """Memory that can be read but not written."""

    def write(self, segments: Sequence[Segment], data: bytes) -> None:
        raise ProtocolError("guest memory cannot be reached: Bad address")


class Other(ProcessMemory):
    """Memory with other bytes than the child's."""

    def read(self, segments: Sequence[Segment]) -> bytes:
        return b"\0" * 6


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Reading, "process_vm_writev(2) on a child fails: other bytes"),
        (Refused, "process_vm_writev(2) on a child fails: guest memory cannot be reached: Bad address"),
        (Other, "process_vm_readv(2) on a child fails: other bytes"),
    ],
)
def test_memory_that_is_not_reached(kind: Callable[[int], ProcessMemory], reason: str) -> None:
    text = failure(lambda: doctor.check_process_vm(SETTINGS, kind), HostError)
    assert reason in text
    assert "kernel.yama.ptrace_scope" in text
    assert "Docker's default seccomp profile" in text


UNDER_A_FILTER = """
from pytest_smol.doctor import check_process_vm
from pytest_smol.engines.confinement.landlock import no_new_privileges
from pytest_smol.engines.confinement.seccomp import forbid_calls
from pytest_smol.errors import HostError
from pytest_smol.settings import Settings

no_new_privileges()
forbid_calls()
try:
    check_process_vm(Settings())
except HostError as error:
    print(error)
"""


def test_memory_that_a_filter_of_system_calls_refuses() -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNDER_A_FILTER], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.startswith("process_vm_readv(2) on a child fails: ")
    assert "Permission denied" in done.stdout
    assert "hint: allow this user to trace its own children" in done.stdout
