"""The verdict on each kind of host, from what its /dev/kvm answered: recorded where a file says so."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_smol.engines.kvm import probe
from pytest_smol.engines.qemu import accelerator
from pytest_smol.engines.qemu.accelerator import Accelerator, decide
from pytest_smol.errors import AcceleratorUnusable
from tests.kvm.transcript import Transcript, replayed

FOLDER = Path(__file__).parent / "transcripts"


@dataclass(frozen=True)
class Verdict:
    """What ``auto`` uses, what its reason has, and the words of the remedy where ``kvm`` is an error."""

    used: str
    reason: str = ""
    remedy: tuple[str, ...] = ()


VERDICTS = {
    "absent": Verdict("tcg", "there is no /dev/kvm", ("kvm_amd", "--device=/dev/kvm")),
    "container": Verdict("tcg", "cannot be opened: Permission denied", ("--group-add 993", "udev rule")),
    "fault": Verdict("tcg", "ended with exit reason 17", ("use a host",)),
    "group": Verdict("tcg", "cannot be opened: Permission denied", ("usermod -aG kvm $USER", "udev rule")),
    "hardware": Verdict("kvm"),
    "interprets": Verdict("tcg", "interprets guests"),
    "kvm_amd": Verdict("kvm"),
    "lacks": Verdict("tcg", "/dev/kvm lacks KVM_CAP_IRQFD, KVM_CAP_XSAVE", ("update this host's kernel",)),
    "no_driver": Verdict("tcg", "/dev/kvm has no driver", ("load the module",)),
    "no_hardware": Verdict("tcg", "KVM_CREATE_VM failed: Operation not supported", ("use a host",)),
    "no_nested_paging": Verdict("kvm", "without nested paging, as kvm_amd.npt is N"),
    "old_interface": Verdict("tcg", "has version 10 of the interface", ("update this host's kernel",)),
    "root_only": Verdict("tcg", "cannot be opened: Permission denied", ("udev rule",)),
    "slow": Verdict("tcg", "250 ns for each iteration"),
}


def opened() -> list[str]:
    """What this process has open of a replayed KVM."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            links.append(os.readlink(f"/proc/self/fd/{name}"))
    return [link for link in links if "memfd:fake" in link]


def test_each_transcript_has_a_verdict() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == VERDICTS.keys()


@pytest.mark.parametrize("name", VERDICTS)
def test_verdict(name: str) -> None:
    wanted = VERDICTS[name]
    transcript = Transcript.from_json((FOLDER / f"{name}.json").read_text())
    with replayed(transcript) as replay:
        found = decide("auto", accelerator.probe)
        assert replay.left == []
    assert (found.name, found.cpu) == (wanted.used, {"kvm": "host", "tcg": "max"}[wanted.used])
    assert wanted.reason in found.reason
    assert bool(found.reason) == bool(wanted.reason)
    assert opened() == []
    check_insisted(transcript, wanted)


def check_insisted(transcript: Transcript, wanted: Verdict) -> None:
    """--smol-accel=kvm uses KVM wherever it works, else names cause and remedy."""
    with replayed(transcript):
        if not wanted.remedy:
            found = decide("kvm", accelerator.probe)
            assert found == Accelerator("kvm", "host", found.reason)
            assert wanted.reason in found.reason
            return
        with pytest.raises(AcceleratorUnusable) as caught:
            decide("kvm", accelerator.probe)
    assert wanted.reason in str(caught.value)
    for words in (*wanted.remedy, "--smol-accel=auto"):
        assert words in caught.value.remedy


@pytest.mark.parametrize("name", VERDICTS)
def test_transcripts_are_written_as_they_are_read(name: str) -> None:
    text = (FOLDER / f"{name}.json").read_text()
    assert Transcript.from_json(text).to_json() == text


@pytest.mark.parametrize(
    ("module", "parameter", "value"),
    [("kvm_amd", "npt", "N"), ("kvm_intel", "ept", "1"), ("kvm_amd", "npt", "Y")],
)
def test_nested_paging_is_read_from_the_module(
    tmp_path: Path, module: str, parameter: str, value: str
) -> None:
    folder = tmp_path / module / "parameters"
    folder.mkdir(parents=True)
    (folder / parameter).write_text(f"{value}\n")
    assert probe.nested_paging(tmp_path) == f"{module}.{parameter}={value}"
    assert probe.nested_paging(tmp_path / "none") == ""
