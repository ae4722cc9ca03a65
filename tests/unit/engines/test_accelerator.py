"""The decision between KVM and TCG by what the probe found."""

from __future__ import annotations

import threading

import pytest

from pytest_smol.engines.kvm import probe
from pytest_smol.engines.qemu import accelerator
from pytest_smol.engines.qemu.accelerator import Accelerator, decide, verdict
from pytest_smol.errors import AcceleratorUnusable, HostError, SettingError

#: There is no KVM.
NONE = probe.KvmRefused("there is no /dev/kvm", "load kvm_intel")

FAST, SLOW = accelerator.SLOW / 100, accelerator.SLOW * 20


def never() -> accelerator.Finding:
    raise AssertionError("probed although the answer does not matter")


def test_tcg_is_used_without_a_probe() -> None:
    assert decide("tcg", never) == Accelerator("tcg", "max", "")


def test_fast_kvm_is_used() -> None:
    assert decide("auto", lambda: FAST) == Accelerator("kvm", "host", "")
    assert decide("kvm", lambda: FAST) == Accelerator("kvm", "host", "")


@pytest.mark.parametrize("finding", [SLOW, accelerator.SLOW, NONE])
def test_kvm_that_is_no_use_means_tcg_with_the_reason(finding: accelerator.Finding) -> None:
    found = decide("auto", lambda: finding)
    assert (found.name, found.cpu) == ("tcg", "max")
    assert found.reason == verdict(finding) != ""


def test_insisting_on_kvm_that_is_no_use_fails_with_the_reason() -> None:
    with pytest.raises(AcceleratorUnusable, match="no /dev/kvm") as caught:
        decide("kvm", lambda: NONE)
    assert "--smol-accel=auto" in caught.value.remedy
    assert "load kvm_intel" in caught.value.remedy


def test_insisting_on_kvm_that_is_slow_gets_it_with_the_reason() -> None:
    assert decide("kvm", lambda: SLOW) == Accelerator("kvm", "host", verdict(SLOW))
    assert verdict(SLOW)


def test_another_word_is_a_setting_error() -> None:
    with pytest.raises(SettingError, match="hvf"):
        decide("hvf", never)


def test_the_reason_names_the_time_of_one_turn() -> None:
    assert "1500 ns" in verdict(accelerator.ITERATIONS * 1.5e-6)


@pytest.mark.parametrize(("system", "machine"), [("Darwin", "x86_64"), ("Linux", "aarch64")])
def test_another_platform_is_refused(monkeypatch: pytest.MonkeyPatch, system: str, machine: str) -> None:
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    with pytest.raises(HostError, match=machine):
        accelerator.choose("auto")


def test_a_probe_that_does_not_come_back_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = threading.Event()
    monkeypatch.setattr(accelerator, "TIMEOUT", 0.01)
    monkeypatch.setattr(accelerator, "best_time", lambda *given: stuck.wait() or 0.0)
    found = accelerator.probe()
    stuck.set()
    assert isinstance(found, probe.KvmRefused)
    assert "did not end" in str(found)


def refuse(error: Exception) -> float:
    raise error


@pytest.mark.parametrize("error", [probe.KvmRefused("KVM_RUN failed: odd"), RuntimeError("odd")])
def test_whatever_goes_wrong_in_the_probe_is_a_reason(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(accelerator, "best_time", lambda *given: refuse(error))
    assert "odd" in str(accelerator.probe())


def test_this_host_gets_an_accelerator() -> None:
    found = accelerator.choose("auto")
    assert (found.name, found.cpu) in (("kvm", "host"), ("tcg", "max"))
    assert (found.reason == "") == (found.name == "kvm")
