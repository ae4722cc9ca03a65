"""Guests under KVM: clocks, timers, registers and identities of forks, and forks of what was frozen twice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_smol.errors import MachineDied, MachineTimeout
from pytest_smol.host.resources import available_memory
from tests.kvm.device_state import fields_of
from tests.kvm.guests import Guest, Result
from tests.kvm.l1 import EMULATED

pytestmark = [pytest.mark.kvm, pytest.mark.vm]

#: Forks of one test in the quick part: an emulated host takes more than a second for each.
FORKS = 8 if EMULATED in os.environ else 100

#: How far the clocks of guest and host may be apart, in seconds, on a busy host.
APART = 5.0


def wrong_clocks(guest: Guest, result: Result) -> str:
    """What is wrong with the clocks of a fork; empty if nothing is."""
    if result.outcome != "passed":
        return result.text
    elapsed = time.monotonic() - guest.started
    fast = {name: passed for name, passed in result.values["passed"].items() if passed > elapsed}
    if fast:
        return f"more time than the {elapsed:.1f} s that passed here: {fast}"
    apart = result.values["time"] - time.time()
    return "" if abs(apart) < APART else f"the time of day is {apart:.1f} s off"


def test_the_engine_is_kvm(guest: Guest) -> None:
    assert guest.factory.engine.describe().startswith("kvm, ")
    assert "hypervisor" in guest.run("test_processor").values["flags"]


def test_clocks_go_on_together(guest: Guest) -> None:
    result = guest.run("test_clocks")
    assert wrong_clocks(guest, result) == ""
    assert result.values["source"] in ("kvm-clock", "tsc")


def test_clocks_of_a_machine_that_was_frozen_twice(guest: Guest, tmp_path: Path) -> None:
    again = guest.again(tmp_path / "again")
    for _ in range(2):
        assert wrong_clocks(guest, guest.run("test_clocks", again)) == ""


def test_timers_fire(guest: Guest, tmp_path: Path) -> None:
    for snapshot in (guest.snapshot, guest.again(tmp_path / "again")):
        result = guest.run("test_timer_of_the_lapic", snapshot)
        assert result.outcome == "passed", result.text
        assert result.values["device"] in ("lapic", "lapic-deadline")


def test_two_forks_at_once(guest: Guest) -> None:
    machines = [guest.fork() for _ in range(2)]
    for machine in machines:
        guest.send(machine, "test_clocks")
    results = [guest.result(machine) for machine in machines]
    for machine in machines:
        guest.pool.retire(machine)
    assert [wrong_clocks(guest, result) for result in results] == ["", ""]


def check_forks(guest: Guest, number: int) -> None:
    """``number`` forks have identities of their own, and none sees what another one wrote."""
    identities = [guest.run("test_identity").values for _ in range(number)]
    for name in identities[0]:
        assert len({each[name] for each in identities}) == number, name
    assert [guest.run("test_memory_is_its_own").values["found"] for _ in range(2)] == [False, False]


def test_forks_are_distinct_and_start_from_the_snapshot(guest: Guest) -> None:
    check_forks(guest, FORKS)


@pytest.mark.kvm_long
@pytest.mark.skipif(FORKS == 100, reason="the test before has made as many")
def test_a_hundred_forks(guest: Guest) -> None:
    check_forks(guest, 100)


def test_memory_is_as_it_was(guest: Guest, tmp_path: Path) -> None:
    for snapshot in (guest.snapshot, guest.again(tmp_path / "again")):
        result = guest.run("test_memory_is_as_it_was", snapshot)
        assert result.outcome == "passed", result.text


# --- deaths and their causes


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("test_panic", "the guest kernel panicked: sysrq triggered crash"),
        ("test_triple_fault", "the guest rebooted itself"),
        ("test_power_off", "the guest powered itself off"),
        ("test_crash", "the test process was killed by SIGSEGV"),
    ],
)
def test_a_death_has_its_cause(guest: Guest, name: str, cause: str) -> None:
    with pytest.raises(MachineDied, match=cause):
        guest.run(name)


def test_a_hang_is_a_timeout_and_no_death(guest: Guest) -> None:
    with pytest.raises(MachineTimeout):
        guest.run("test_hang", limit=3)


def test_a_qemu_that_is_killed_is_named(guest: Guest) -> None:
    machine = guest.fork()
    os.kill(machine.vm.pid, signal.SIGKILL)
    with pytest.raises(MachineDied, match="QEMU was killed by SIGKILL"):
        guest.result(machine)
    guest.pool.retire(machine)


# --- other machines


def test_a_machine_that_was_frozen_an_hour_ago(busy_guest: Guest) -> None:
    assert wrong_clocks(busy_guest, busy_guest.run("test_clocks")) == ""


def test_avx_registers_are_kept(busy_guest: Guest) -> None:
    if "avx" not in busy_guest.run("test_processor").values["flags"]:
        pytest.skip("this processor has no AVX")
    for _ in range(2):
        result = busy_guest.run("test_registers_are_as_they_were")
        assert result.outcome == "passed", result.text


@pytest.mark.kvm_long
def test_a_small_machine_of_two_processors(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    with Guest.start(tmp_path, ["guest_tests.py"], pytestconfig, memory=128, cpus=2) as small:
        for _ in range(3):
            result = small.run("test_processors")
            assert (result.outcome, result.values["processors"]) == ("passed", 2), result.text
        assert wrong_clocks(small, small.run("test_clocks")) == ""
        found = small.run("test_processor").values["memory"]
    assert 128 * 0.6 < found <= 128


@pytest.mark.kvm_long
def test_a_machine_that_was_frozen_for_a_minute(guest: Guest) -> None:
    """By the clock that runs on: so this test is the last to use the snapshot, and waits for the rest."""
    while time.monotonic() - guest.started < 75:
        assert guest.run("test_memory_is_as_it_was").outcome == "passed"
    assert wrong_clocks(guest, guest.run("test_clocks")) == ""


@pytest.mark.kvm_long
@pytest.mark.parametrize("memory", [3072, 4096])
def test_large_machines(memory: int, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Addresses from 3 GiB to 4 GiB belong to devices, so 4 GiB of memory reach beyond 4 GiB."""
    if available_memory() < (memory + 512) << 20:
        pytest.skip(f"this host has no {memory + 512} MiB left")
    with Guest.start(tmp_path, ["guest_tests.py"], pytestconfig, memory=memory) as sized:
        found = sized.run("test_processor").values["memory"]
        assert memory * 0.9 < found <= memory
        zones = sized.run("test_where_memory_is").values["zones"]
        assert zones.get("Normal") == (1 << 32 if memory > 3072 else None)
        result = sized.run("test_memory_is_as_it_was")
        assert result.outcome == "passed", result.text


# --- that these tests can fail: a state that is changed is a state that is restored wrongly


def changed(guest: Guest, tmp_path: Path, section: str, name: str, change: Callable[[int], int]) -> Guest:
    """``guest`` with a snapshot in whose device state the value of one field is changed."""
    content = bytearray(guest.snapshot.state.read_bytes())
    (found,) = (each for each in fields_of(bytes(content)) if (each.section, each.name) == (section, name))
    found.write(content, change(found.read(bytes(content))))
    state = tmp_path / "state"
    state.write_bytes(content)
    return replace(guest, snapshot=replace(guest.snapshot, state=state))


def test_a_time_stamp_counter_that_is_restored_wrongly_is_noticed(guest: Guest, tmp_path: Path) -> None:
    other = changed(guest, tmp_path, "cpu", "env.tsc", lambda value: value + (1 << 45))
    assert "tsc" in wrong_clocks(other, other.run("test_clocks"))


def test_a_timer_that_is_restored_masked_is_noticed(guest: Guest, tmp_path: Path) -> None:
    """Bit 16 of the LVT's entry for the timer, which is the first of six of 32 bits.

    The guest keeps a timer armed: a kernel that has none sets up the LAPIC's anew when it needs one.
    """
    other = changed(guest, tmp_path, "apic", "lvt", lambda value: value | 1 << (16 + 5 * 32))
    with pytest.raises(MachineTimeout):
        other.run("test_timer_of_the_lapic", limit=5)
