"""The files in which modprobe looks modules up, read as kmod and busybox read them."""

from __future__ import annotations

import ctypes
import ctypes.util
import lzma
import struct
from pathlib import Path

import pytest

from pytest_smol.guest_os.kernel import open_kernel
from pytest_smol.guest_os.module_index import binary_index, index_files, modinfo_pairs, read_modules
from tests.unit.boot_samples import bzimage

VALUES, CHILDREN, PREFIX = 0x40000000, 0x20000000, 0x80000000


def elf_module(*texts: str) -> bytes:
    """An ELF64 file with the section .modinfo."""
    info = b"".join(text.encode() + b"\0" for text in texts)
    names = b"\0.modinfo\0.shstrtab\0"
    at = 64 + len(info) + len(names)
    head = bytearray(64)
    head[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<Q", head, 0x28, at)
    struct.pack_into("<HHH", head, 0x3A, 64, 3, 2)
    rows = ((0, 0, 0), (1, 64, len(info)), (10, 64 + len(info), len(names)))
    sections = b"".join(struct.pack("<I20xQQ24x", *row) for row in rows)
    return bytes(head) + info + names + sections


def lookup(data: bytes, key: bytes) -> list[bytes]:
    """An independent reader of the binary format, for whole keys."""
    assert struct.unpack_from(">II", data) == (0xB007F457, 0x00020001)
    (node,) = struct.unpack_from(">I", data, 8)
    while True:
        at = node & 0x0FFFFFFF
        if node & PREFIX:
            prefix = data[at : data.index(b"\0", at)]
            at += len(prefix) + 1
            if not key.startswith(prefix):
                return []
            key = key[len(prefix) :]
        children: dict[int, int] = {}
        if node & CHILDREN:
            first, last = data[at], data[at + 1]
            offsets = struct.unpack_from(f">{last - first + 1}I", data, at + 2)
            children = dict(zip(range(first, last + 1), offsets, strict=True))
            at += 2 + 4 * len(offsets)
        if not key:
            return _values(data, at) if node & VALUES else []
        node, key = children.get(key[0], 0), key[1:]
        if not node:
            return []


def _values(data: bytes, at: int) -> list[bytes]:
    (count,) = struct.unpack_from(">I", data, at)
    at, found = at + 4, []
    for _ in range(count):
        end = data.index(b"\0", at + 4)
        found.append(data[at + 4 : end])
        at = end + 1
    return found


def test_a_binary_index_finds_each_key_and_no_other() -> None:
    pairs = [("loop", "1"), ("lo", "2"), ("loop_x", "3"), ("a", "4"), ("lo", "5"), ("z*", "")]
    data = binary_index(pairs)
    for key in ("", "l", "loo", "loop_", "b", "z"):
        assert lookup(data, key.encode()) == []
    assert lookup(data, b"lo") == [b"2", b"5"]
    assert {key: lookup(data, key.encode())[0].decode() for key, _ in pairs} == {
        "loop": "1", "lo": "2", "loop_x": "3", "a": "4", "z*": "",
    }  # fmt: skip


def test_an_empty_index_has_a_root() -> None:
    assert lookup(binary_index(()), b"x") == []


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """A kernel with modules: fs needs lib and crc-x, lib needs crc-x, and some are broken."""
    modules = tmp_path / "lib/modules/6.1.0-test"
    (modules / "kernel/fs").mkdir(parents=True)
    (modules / "updates").mkdir()
    (modules / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    (modules / "kernel/fs/fs.ko").write_bytes(
        elf_module("alias=fs-fs", "alias=char-major-10-7", "alias=devname:fs-control", "depends=lib,crc-x")
    )
    (modules / "kernel/fs/lib.ko.xz").write_bytes(
        lzma.compress(elf_module("depends=crc-x", "softdep=pre: fs"))
    )
    (modules / "kernel/fs/crc-x.ko").write_bytes(elf_module("depends=", "alias=pci:v[0-9]-x"))
    (modules / "updates/crc-x.ko").write_bytes(elf_module("depends="))
    (modules / "kernel/fs/broken.ko.xz").write_bytes(b"no xz")
    (modules / "kernel/fs/text.ko").write_text("no ELF")
    image = tmp_path / "boot/vmlinuz"
    image.parent.mkdir()
    image.write_bytes(bzimage())
    return image


def indexed(image: Path) -> dict[str, bytes]:
    kernel = open_kernel(image)
    return index_files(read_modules(kernel), kernel.builtin(), b"ext4.alias=fs-ext4\0ext4.license=GPL\0")


def test_dependencies_are_listed_so_that_the_last_is_loaded_first(kernel: Path) -> None:
    files = indexed(kernel)
    lines = dict(line.split(":") for line in files["modules.dep"].decode().splitlines())
    assert lines == {
        "updates/crc-x.ko": "",
        "kernel/fs/fs.ko": " kernel/fs/lib.ko.xz updates/crc-x.ko",
        "kernel/fs/lib.ko.xz": " updates/crc-x.ko",
    }
    assert lookup(files["modules.dep.bin"], b"crc_x") == [b"updates/crc-x.ko:"]


def test_aliases_devices_and_builtin_modules(kernel: Path) -> None:
    files = indexed(kernel)
    assert b"alias fs_fs fs\n" in files["modules.alias"]
    assert lookup(files["modules.alias.bin"], b"fs_fs") == [b"fs"]
    assert files["modules.devname"] == b"fs fs-control c10:7\n"
    assert files["modules.softdep"] == b"softdep lib pre: fs\n"
    assert lookup(files["modules.builtin.bin"], b"ext4") == [b""]
    assert lookup(files["modules.builtin.alias.bin"], b"fs_ext4") == [b"ext4"]


def test_modules_that_need_one_another_end(tmp_path: Path, kernel: Path) -> None:
    place = tmp_path / "lib/modules/6.1.0-test/kernel"
    (place / "a.ko").write_bytes(elf_module("depends=b"))
    (place / "b.ko").write_bytes(elf_module("depends=c"))
    (place / "c.ko").write_bytes(elf_module("depends=b,missing"))
    assert b"kernel/a.ko: kernel/b.ko kernel/c.ko\n" in indexed(kernel)["modules.dep"]


@pytest.mark.parametrize("size", [0, 4, 63, 64, 100])
def test_a_short_file_has_no_values(size: int) -> None:
    assert modinfo_pairs(elf_module("depends=x")[:size]) == []


def test_kmod_reads_it(tmp_path: Path, kernel: Path) -> None:
    name = ctypes.util.find_library("kmod")
    if name is None:
        pytest.skip("this host has no libkmod")
    library = ctypes.CDLL(name)
    for function in ("kmod_new", "kmod_module_get_module", "kmod_list_next"):
        getattr(library, function).restype = ctypes.c_void_p
    library.kmod_module_get_path.restype = ctypes.c_char_p
    directory = tmp_path / "lib/modules/6.1.0-test"
    for file, content in indexed(kernel).items():
        (directory / file).write_bytes(content)
    context = ctypes.c_void_p(library.kmod_new(bytes(directory), (ctypes.c_void_p * 1)(None)))
    for alias, path in (
        (b"fs", "kernel/fs/fs.ko"),
        (b"fs-fs", "kernel/fs/fs.ko"),
        (b"crc-x", "updates/crc-x.ko"),
    ):
        found = ctypes.c_void_p()
        assert library.kmod_module_new_from_lookup(context, alias, ctypes.byref(found)) == 0
        module = ctypes.c_void_p(library.kmod_module_get_module(found))
        assert library.kmod_module_get_path(module).decode() == str(directory / path)
