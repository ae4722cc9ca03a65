"""The initramfs, the kernel and its modules, the stamp in the cache and the kernel's command line."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_smol.errors import HostError, KernelUnavailable, SettingError, ToolMissing
from pytest_smol.guest_os import boot_files
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


# --- the kernel's command line


def init_decodes(word: str) -> str:
    """What guest/init makes of one word of ``smol.exec=``."""
    return re.sub("%([0-9A-F]{2})", lambda found: chr(int(found[1], 16)), word)


@given(
    st.lists(st.text(st.characters(min_codepoint=1, max_codepoint=127), max_size=12), min_size=1, max_size=4)
)
def test_words_survive_the_kernel_command_line(words: list[str]) -> None:
    line = boot_files.command_line(1, words)
    (option,) = [part for part in line.split() if part.startswith("smol.exec=")]
    assert [init_decodes(word) for word in option.removeprefix("smol.exec=").split(",")] == words
    assert '"' not in line
    assert "\\" not in line


def test_bytes_that_are_no_utf8_are_kept() -> None:
    assert boot_files.escape("\udcff") == "%FF"
    assert boot_files.escape("é") == "%C3%A9"


def test_the_clock_is_given_only_where_it_is_known() -> None:
    assert "tsc_early_khz=2596120" in boot_files.command_line(2596120, ["/x"]).split()
    assert "tsc_early_khz" not in boot_files.command_line(0, ["/x"])


def test_the_guest_zeroes_its_pages() -> None:
    assert "init_on_alloc=1" in boot_files.command_line(1, ["/x"]).split()


def test_a_line_that_the_kernel_would_cut_is_refused() -> None:
    with pytest.raises(SettingError, match="2047"):
        boot_files.command_line(1, ["/" + "x" * 2000])
    with pytest.raises(ValueError, match="not a program"):
        boot_files.command_line(1, [])
    with pytest.raises(ValueError, match="not a program"):
        boot_files.command_line(1, ["a\0b"])


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
@pytest.mark.parametrize("word", ["plain", "a b,c%", "line\nend\n", "back\\slash\\x41", "é'\"$(id)*", "%41"])
def test_init_decodes_what_command_line_encodes(word: str) -> None:
    decode = boot_files.INIT.read_text().partition("decode() {")[2].partition("\n}\n")[0]
    script = f'set -f\ndecode() {{{decode}\n}}\ndecode "$1"; printf %s "$word"'
    done = subprocess.run(
        ["busybox", "sh", "-c", script, "sh", boot_files.escape(word)], capture_output=True, check=True
    )
    assert done.stdout.decode() == word


@pytest.mark.skipif(not shutil.which("busybox"), reason="busybox is not installed")
def test_init_is_a_valid_script() -> None:
    subprocess.run(["busybox", "sh", "-n", str(boot_files.INIT)], check=True)
