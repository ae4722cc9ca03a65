"""QEMU's command lines, and which QEMU is taken."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_smol.engines.protocol import PORTS, Hardware, Kernel
from pytest_smol.engines.qemu import program as qemu_program
from pytest_smol.engines.qemu.accelerator import Accelerator
from pytest_smol.engines.qemu.command_line import CHARDEVS, QemuConfig, command_line
from pytest_smol.engines.qemu.program import Emulator
from pytest_smol.errors import HostError, QemuTooOld, ToolMissing

EMULATOR = Emulator("/usr/bin/qemu", (10, 0, 2), "identity")
CONFIG = QemuConfig(EMULATOR, Accelerator("tcg", "max", ""))
HARDWARE = Hardware(memory=192, cpus=1)
FDS = range(10, 10 + len(CHARDEVS))
KERNEL = Kernel(Path("/k/vmlinuz"), Path("/k/initrd"), "console=hvc0 quiet")


def boot() -> list[str]:
    return command_line(CONFIG, HARDWARE, Path("/run/ram"), FDS, kernel=KERNEL)


def template() -> list[str]:
    return command_line(CONFIG, HARDWARE, Path("/run/ram"), FDS)


def fork() -> list[str]:
    return command_line(CONFIG, HARDWARE, Path("/run/ram"), FDS, private=True)


def options(argv: list[str]) -> list[tuple[str, ...]]:
    """``argv`` as pairs of an option and its value, in order."""
    starts = [index for index, word in enumerate(argv) if index and word.startswith("-")]
    return [tuple(argv[a:b]) for a, b in zip(starts, [*starts[1:], len(argv)], strict=True)]


def values(argv: list[str], option: str) -> list[str]:
    return [pair[1] for pair in options(argv) if pair[0] == option]


# --- the three command lines


def test_a_boot_and_a_template_differ_only_in_what_is_loaded() -> None:
    loaded = [("-kernel", "/k/vmlinuz"), ("-initrd", "/k/initrd"), ("-append", "console=hvc0 quiet")]
    common = options(boot())[: -len(loaded)]
    assert options(boot())[-len(loaded) :] == loaded
    assert options(template()) == [*common, ("-incoming", "defer"), ("-S",)]


def test_a_template_and_a_fork_differ_only_in_how_memory_is_mapped() -> None:
    differences = [(a, b) for a, b in zip(options(template()), options(fork()), strict=True) if a != b]
    file = "memory-backend-file,id=m0,size=192M,mem-path=/run/ram"
    assert differences == [
        (("-object", f"{file},share=on"), ("-object", f"{file},share=off,readonly=on,rom=off"))
    ]


def test_the_machine_is_what_a_snapshot_can_be_made_of() -> None:
    argv = boot()
    assert argv[0] == "/usr/bin/qemu"
    assert values(argv, "-machine") == ["microvm,acpi=on,memory-backend=m0"]
    assert values(argv, "-accel") == ["tcg"]
    assert values(argv, "-cpu") == ["max,svm=off,vmx=off"]
    assert values(argv, "-m") == ["192M"]
    assert values(argv, "-smp") == ["1"]


def test_only_a_nested_guest_has_an_extension_for_virtualisation() -> None:
    argv = command_line(CONFIG, replace(HARDWARE, nested=True), Path("ram"), FDS)
    assert values(argv, "-cpu") == ["max"]


@pytest.mark.parametrize("argv", [boot(), template(), fork()], ids=["boot", "template", "fork"])
def test_nothing_that_nobody_asked_for_is_there(argv: list[str]) -> None:
    for option in ("-nodefaults", "-no-user-config", "-no-reboot"):
        assert (option,) in options(argv)
    assert values(argv, "-display") == ["none"]
    assert not {"-netdev", "-nic", "-net", "-drive", "-daemonize", "-vnc"} & set(argv)


@pytest.mark.parametrize("argv", [boot(), template(), fork()], ids=["boot", "template", "fork"])
def test_the_emulator_is_in_its_sandbox(argv: list[str]) -> None:
    (sandbox,) = values(argv, "-sandbox")
    rules = dict(rule.split("=") for rule in sandbox.split(",")[1:])
    assert sandbox.split(",")[0] == "on"
    assert {name for name, rule in rules.items() if rule == "deny"} == {
        "obsolete",
        "elevateprivileges",
        "spawn",
        "resourcecontrol",
    }


# --- descriptors and devices


def test_every_chardev_has_its_descriptor() -> None:
    given = dict(zip(CHARDEVS, FDS, strict=True))
    assert values(boot(), "-chardev") == [f"socket,id={name},fd={fd}" for name, fd in given.items()]


@pytest.mark.parametrize("count", [0, len(CHARDEVS) - 1, len(CHARDEVS) + 1])
def test_another_number_of_descriptors_is_a_mistake(count: int) -> None:
    with pytest.raises(ValueError, match="zip"):
        command_line(CONFIG, HARDWARE, Path("/run/ram"), range(count))


def test_every_port_and_the_file_system_are_devices() -> None:
    ports = [f"virtserialport,chardev={port},name=smol.{port}" for port in PORTS]
    fs = "vhost-user-fs-device,chardev=fs,tag=smol,queue-size=128"
    assert values(boot(), "-device") == ["virtio-serial-device", *ports, fs]
    assert values(boot(), "-serial") == ["chardev:console"]
    assert values(boot(), "-mon") == ["chardev=qmp,mode=control"]


def test_every_device_is_connected_to_a_chardev_that_exists() -> None:
    used = {
        part.split("=")[1]
        for value in values(boot(), "-device")
        for part in value.split(",")
        if "chardev=" in part
    }
    assert used | {"qmp", "console"} == set(CHARDEVS)


def test_a_comma_in_a_path_does_not_end_it() -> None:
    (memory,) = values(command_line(CONFIG, HARDWARE, Path("/a,share=on/ram"), FDS, private=True), "-object")
    assert "mem-path=/a,,share=on/ram,share=off" in memory


# --- which QEMU


def program(directory: Path, text: str) -> Path:
    path = directory / "qemu"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)", (10, 0, 2)),
        ("QEMU emulator version 8.2.0\nCopyright (c) 2003-2023", (8, 2, 0)),
        ("QEMU emulator version 9.1.50 (v9.1.0-100-gdeadbeef)", (9, 1, 50)),
    ],
)
def test_versions_are_read(text: str, version: tuple[int, ...]) -> None:
    assert qemu_program.parse_version(text) == version


@pytest.mark.parametrize("text", ["", "version", "QEMU emulator version ten", "version 8.2"])
def test_what_names_no_version_is_no_qemu(text: str) -> None:
    with pytest.raises(HostError, match="which version") as caught:
        qemu_program.parse_version(text)
    assert caught.value.evidence == text
    assert "8.2" in caught.value.remedy


def test_a_qemu_is_found_by_its_resolved_path(tmp_path: Path) -> None:
    path = program(tmp_path, "echo QEMU emulator version 8.2.0")
    (tmp_path / "link").symlink_to(path)
    found = qemu_program.find(str(tmp_path / "link"))
    assert found.path == os.path.realpath(path)
    assert found.version == (8, 2, 0)
    assert found.version_text == "8.2.0"


def test_another_build_of_the_same_version_has_another_identity(tmp_path: Path) -> None:
    path = program(tmp_path, "echo QEMU emulator version 8.2.0")
    first = qemu_program.find(str(path)).identity
    assert qemu_program.find(str(path)).identity == first
    os.utime(path, ns=(1, 1))
    assert qemu_program.find(str(path)).identity != first


def test_a_missing_qemu_is_named_with_what_to_install() -> None:
    with pytest.raises(ToolMissing, match="qemu-that-is-not is not installed") as caught:
        qemu_program.find("qemu-that-is-not")
    assert "qemu-system-x86" in caught.value.remedy


@pytest.mark.parametrize("version", ["7.2.0", "8.1.9", "2.11.1"])
def test_a_qemu_that_cannot_fork_is_refused(tmp_path: Path, version: str) -> None:
    with pytest.raises(QemuTooOld, match=version) as caught:
        qemu_program.find(str(program(tmp_path, f"echo QEMU emulator version {version}")))
    assert "8.2" in caught.value.remedy


@pytest.mark.parametrize("text", ["exit 1", "kill -9 $$"])
def test_a_qemu_that_does_not_run_is_reported(tmp_path: Path, text: str) -> None:
    with pytest.raises(HostError, match="does not run") as caught:
        qemu_program.find(str(program(tmp_path, text)))
    assert caught.value.remedy


def test_a_qemu_that_cannot_be_executed_is_reported(tmp_path: Path) -> None:
    path = program(tmp_path, "")
    path.write_bytes(b"\x7fELF")
    with pytest.raises(HostError, match="does not run"):
        qemu_program.find(str(path))
