"""The initramfs: its busybox, guest/init, and the program that it starts."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pytest_smol.errors import DiskFull, ToolMissing
from pytest_smol.guest_os import boot_files, cpio, initramfs
from tests.unit.boot_samples import elf, fake_busybox, unpack

# --- busybox


@pytest.mark.parametrize(
    ("program", "static"),
    [
        (elf(1, 1), True),
        (elf(6, 3, 1), False),
        (elf(1, 1)[:-60], False),
        (b"#!/bin/sh\n", False),
        (b"", False),
        (b"\x7fELF\x02\x01", False),
    ],
)
def test_whether_a_program_is_static(program: bytes, static: bool) -> None:
    assert initramfs.is_static(program) is static


def test_a_busybox_with_shared_libraries_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_busybox(tmp_path, elf(3), monkeypatch)
    with pytest.raises(ToolMissing, match="shared libraries") as caught:
        initramfs.find_busybox()
    assert "busybox-static" in caught.value.remedy


# --- what guest/init starts

needs_busybox = pytest.mark.skipif(not shutil.which("busybox"), reason="busybox is not installed")


def words_of(script: bytes) -> list[bytes]:
    """The words that guest/init, which is run by busybox, makes of ``script``."""
    argv = [initramfs.find_busybox(), "sh", "-c", '. /dev/stdin; printf "%s\\0" "$@"']
    done = subprocess.run(argv, input=script, capture_output=True, check=True)
    return done.stdout.split(b"\0")[:-1]


@needs_busybox
@given(st.lists(st.binary(max_size=12).map(lambda word: word.replace(b"\0", b"")), min_size=1, max_size=4))
@example([bytes(range(1, 256))])
@example([b"-n", b"", b"'", b"$HOME", b"*", b"\n"])
@settings(max_examples=40, deadline=None)
def test_words_reach_the_program_as_they_are(words: list[bytes]) -> None:
    assert words_of(initramfs.start_script([os.fsdecode(word) for word in words])) == words


@needs_busybox
def test_a_path_of_twenty_kilobytes_reaches_the_program() -> None:
    words = ["/usr/bin/env", "PYTHONPATH=" + ":".join(f"/nix/store/{n:032}-x" for n in range(500)), "/python"]
    assert words_of(initramfs.start_script(words)) == [word.encode() for word in words]


@pytest.mark.parametrize("program", [[], ["a\0b"]])
def test_what_cannot_be_executed_is_refused(program: list[str]) -> None:
    with pytest.raises(ValueError, match="not a program"):
        initramfs.start_script(program)


def test_the_initramfs_of_a_boot_has_the_program(tmp_path: Path) -> None:
    cached = tmp_path / "cached"
    cached.write_bytes(cpio.archive([cpio.file("init", b"#!")]))
    made = initramfs.with_start(cached, ["/x", "y z"], tmp_path)
    first, second = (
        made.read_bytes()[: cached.stat().st_size],
        made.read_bytes()[cached.stat().st_size :],
    )
    assert first == cached.read_bytes()
    assert [(name, data) for name, _, data in unpack(second)] == [("start", b"set -- /x 'y z'\n")]
    assert made.stat().st_mode & 0o777 == 0o600


def test_no_room_for_an_initramfs_is_told(tmp_path: Path) -> None:
    cached = tmp_path / "cached"
    cached.write_bytes(b"")
    with pytest.raises(DiskFull, match="could not be written") as caught:
        initramfs.with_start(cached, ["/x"], tmp_path / "gone")
    assert "TMPDIR" in caught.value.remedy


# --- guest/init with the host's busybox


@pytest.mark.skipif(not shutil.which("busybox"), reason="busybox is not installed")
def test_init_is_a_valid_script() -> None:
    subprocess.run(["busybox", "sh", "-n", str(boot_files.INIT)], check=True)
