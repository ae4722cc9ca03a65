"""The initramfs, the kernel and its modules, the stamp in the cache and the kernel's command line."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pytest_smol.errors import DiskFull, HostError, KernelUnavailable, ToolMissing
from pytest_smol.guest_os import boot_files, cpio
from pytest_smol.plugin import _GUEST_PARAMETER
from tests.unit.boot_samples import bzimage, install, unpack


def ignore(line: str) -> None:
    """A progress report that nobody reads."""


# --- busybox


def elf(*kinds: int) -> bytes:
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<Q", header, 0x20, 64)
    struct.pack_into("<HH", header, 0x36, 56, len(kinds))
    return bytes(header) + b"".join(struct.pack("<I", kind) + bytes(52) for kind in kinds)


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
    assert boot_files.is_static(program) is static


def fake_busybox(directory: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / "busybox"
    path.write_bytes(content)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory))
    return path


def test_a_busybox_with_shared_libraries_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_busybox(tmp_path, elf(3), monkeypatch)
    with pytest.raises(ToolMissing, match="shared libraries") as caught:
        boot_files.find_busybox()
    assert "busybox-static" in caught.value.remedy


# --- prepare


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel tree, a busybox and a recipe that wants the modules a and c."""
    fake_busybox(tmp_path / "bin", elf(1), monkeypatch)
    recipe = tmp_path / "kernel.json"
    recipe.write_text('{"modules": ["c", "a"], "packages": {}}')
    monkeypatch.setattr(boot_files, "RECIPE", recipe)
    return install(tmp_path / "tree")


def test_boot_files_are_made_once(tmp_path: Path, host: Path) -> None:
    said: list[str] = []
    first = boot_files.prepare(tmp_path / "cache", str(host), said.append)
    assert len(said) == 1
    assert "6.1.0-test" in said[0]
    assert first.kernel == host
    names = [name for name, _, _ in unpack(first.initramfs.read_bytes())]
    assert [n for n in names if n.endswith(".ko")] == ["modules/b.ko", "modules/a.ko"]
    again = boot_files.prepare(tmp_path / "cache", str(host), said.append)
    assert again == first
    assert len(said) == 1


def test_equal_sources_give_equal_files_wherever_the_cache_is(tmp_path: Path, host: Path) -> None:
    one, two = (boot_files.prepare(tmp_path / name, str(host), ignore) for name in ("one", "two"))
    assert one.digest == two.digest
    assert one.initramfs.read_bytes() == two.initramfs.read_bytes()


def test_a_changed_busybox_gives_other_files_and_leaves_the_old_ones(tmp_path: Path, host: Path) -> None:
    first = boot_files.prepare(tmp_path / "cache", str(host), ignore)
    (tmp_path / "bin/busybox").write_bytes(elf(1, 1))
    second = boot_files.prepare(tmp_path / "cache", str(host), ignore)
    assert second.digest != first.digest
    assert first.initramfs.exists()
    assert second.initramfs.exists()


def test_a_changed_kernel_gives_another_digest(tmp_path: Path, host: Path) -> None:
    first = boot_files.prepare(tmp_path / "cache", str(host), ignore)
    host.write_bytes(bzimage() + b"patched")
    assert boot_files.prepare(tmp_path / "cache", str(host), ignore).digest != first.digest


@pytest.mark.parametrize("stamp", [b"", b"{", b"[]", b"{}", b'{"initramfs": 3, "sources": 4}', b"\xff"])
def test_a_broken_stamp_is_no_stamp(tmp_path: Path, host: Path, stamp: bytes) -> None:
    first = boot_files.prepare(tmp_path / "cache", str(host), ignore)
    (path,) = (tmp_path / "cache/boot").glob("*.json")
    path.write_bytes(stamp)
    assert boot_files.prepare(tmp_path / "cache", str(host), ignore) == first


def test_a_lost_or_short_initramfs_is_made_again(tmp_path: Path, host: Path) -> None:
    first = boot_files.prepare(tmp_path / "cache", str(host), ignore)
    whole = first.initramfs.read_bytes()
    first.initramfs.write_bytes(whole[:-1])
    assert boot_files.prepare(tmp_path / "cache", str(host), ignore).initramfs.read_bytes() == whole
    first.initramfs.unlink()
    assert boot_files.prepare(tmp_path / "cache", str(host), ignore).initramfs.read_bytes() == whole


def test_a_kernel_without_a_needed_module_leaves_nothing_behind(tmp_path: Path, host: Path) -> None:
    (tmp_path / "tree/lib/modules/6.1.0-test/kernel/fs/a.ko").unlink()
    with pytest.raises(KernelUnavailable, match="module a"):
        boot_files.prepare(tmp_path / "cache", str(host), ignore)
    assert [path.name for path in (tmp_path / "cache/boot").iterdir()] == ["lock"]


def test_the_default_kernel_is_downloaded_once(
    tmp_path: Path, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []

    def download(into: Path, packages: object, progress: object) -> None:
        calls.append(into)
        install(into, image="boot/vmlinuz-6.1.0-test")

    monkeypatch.setattr(boot_files, "unpack_default", download)
    first = boot_files.prepare(tmp_path / "cache", None, ignore)
    assert boot_files.prepare(tmp_path / "cache", None, ignore) == first
    first.initramfs.unlink()
    assert boot_files.prepare(tmp_path / "cache", None, ignore) == first
    assert len(calls) == 1


# --- what guest/init starts

needs_busybox = pytest.mark.skipif(not shutil.which("busybox"), reason="busybox is not installed")


def words_of(script: bytes) -> list[bytes]:
    """The words that guest/init, which is run by busybox, makes of ``script``."""
    argv = [boot_files.find_busybox(), "sh", "-c", '. /dev/stdin; printf "%s\\0" "$@"']
    done = subprocess.run(argv, input=script, capture_output=True, check=True)
    return done.stdout.split(b"\0")[:-1]


@needs_busybox
@given(st.lists(st.binary(max_size=12).map(lambda word: word.replace(b"\0", b"")), min_size=1, max_size=4))
@example([bytes(range(1, 256))])
@example([b"-n", b"", b"'", b"$HOME", b"*", b"\n"])
@settings(max_examples=40, deadline=None)
def test_words_reach_the_program_as_they_are(words: list[bytes]) -> None:
    assert words_of(boot_files.start_script([os.fsdecode(word) for word in words])) == words


@needs_busybox
def test_a_path_of_twenty_kilobytes_reaches_the_program() -> None:
    words = ["/usr/bin/env", "PYTHONPATH=" + ":".join(f"/nix/store/{n:032}-x" for n in range(500)), "/python"]
    assert words_of(boot_files.start_script(words)) == [word.encode() for word in words]


@pytest.mark.parametrize("program", [[], ["a\0b"]])
def test_what_cannot_be_executed_is_refused(program: list[str]) -> None:
    with pytest.raises(ValueError, match="not a program"):
        boot_files.start_script(program)


def test_the_initramfs_of_a_boot_has_the_program(tmp_path: Path) -> None:
    initramfs = tmp_path / "cached"
    initramfs.write_bytes(cpio.archive([cpio.file("init", b"#!")]))
    made = boot_files.with_start(initramfs, ["/x", "y z"], tmp_path)
    first, second = (
        made.read_bytes()[: initramfs.stat().st_size],
        made.read_bytes()[initramfs.stat().st_size :],
    )
    assert first == initramfs.read_bytes()
    assert [(name, data) for name, _, data in unpack(second)] == [("start", b"set -- /x 'y z'\n")]
    assert made.stat().st_mode & 0o777 == 0o600


def test_no_room_for_an_initramfs_is_told(tmp_path: Path) -> None:
    initramfs = tmp_path / "cached"
    initramfs.write_bytes(b"")
    with pytest.raises(DiskFull, match="could not be written") as caught:
        boot_files.with_start(initramfs, ["/x"], tmp_path / "gone")
    assert "TMPDIR" in caught.value.remedy


# --- the kernel's command line


def test_the_clock_is_given_only_where_it_is_known() -> None:
    assert "tsc_early_khz=2596120" in boot_files.command_line(2596120).split()
    assert "tsc_early_khz" not in boot_files.command_line(0)


def test_the_guest_zeroes_its_pages() -> None:
    assert "init_on_alloc=1" in boot_files.command_line(1).split()


def test_the_kernel_takes_the_whole_line() -> None:
    assert len(boot_files.command_line(10**9)) < boot_files.COMMAND_LINE_SIZE


def test_the_line_has_the_marker_of_a_guest() -> None:
    assert _GUEST_PARAMETER in boot_files.command_line(1).split()


@pytest.mark.parametrize(
    ("cpuinfo", "khz"),
    [
        ("processor\t: 0\nbogomips\t: 5192.24\nflags: a\n\nprocessor: 1\nbogomips\t: 1\n", 2596120),
        ("bogomips : 4000\n", 2000000),
    ],
)
def test_the_frequency_is_read_from_cpuinfo(cpuinfo: str, khz: int) -> None:
    assert boot_files.parse_tsc_khz(cpuinfo) == khz


@pytest.mark.parametrize("cpuinfo", ["", "bogomips : fast\n", "xbogomips : 1\n"])
def test_a_cpuinfo_without_frequency_is_reported(cpuinfo: str) -> None:
    with pytest.raises(HostError, match="frequency"):
        boot_files.parse_tsc_khz(cpuinfo)


# --- guest/init with the host's busybox


@pytest.mark.skipif(not shutil.which("busybox"), reason="busybox is not installed")
def test_init_is_a_valid_script() -> None:
    subprocess.run(["busybox", "sh", "-n", str(boot_files.INIT)], check=True)
