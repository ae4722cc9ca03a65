"""Made-up kernels, modules and archives, and an independent reader of archives."""

from __future__ import annotations

import lzma
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_smol.guest_os import cpio


def unpack(data: bytes) -> Iterator[tuple[str, dict[str, int], bytes]]:
    """An independent reader of the format."""
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        values = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        fields = dict(zip(cpio.FIELDS, values, strict=True))
        end = at + 110 + fields["namesize"]
        name = data[at + 110 : end - 1].decode()
        start = end + -end % 4
        if name == cpio.TRAILER:
            assert start == len(data)
            return
        yield name, fields, data[start : start + fields["filesize"]]
        at = start + fields["filesize"]
        at += -at % 4


def bzimage(release: str = "6.1.0-test", *, magic: bytes = b"HdrS", version_at: int = 0x300) -> bytes:
    image = bytearray(0x1000)
    image[0x1F1] = 4
    struct.pack_into("<H", image, 0x1FE, 0xAA55)
    image[0x202:0x206] = magic
    struct.pack_into("<H", image, 0x20E, version_at - 0x200 if version_at else 0)
    text = f"{release} (builder@host) #1 SMP".encode() + b"\0"
    if version_at:
        image[version_at : version_at + len(text)] = text
    return bytes(image)


def module(name: str, depends: str = "") -> bytes:
    return b"\x7fELF" + bytes(8) + f"license=GPL\0depends={depends}\0name={name}\0".encode() + b"tail"


def install(root: Path, layout: str = "lib/modules", *, image: str = "boot/vmlinuz") -> Path:
    """A kernel tree with the modules a (depends on b), b, and the builtin c."""
    path = root / image
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bzimage())
    modules = root / layout.format("6.1.0-test") if "{" in layout else root / layout / "6.1.0-test"
    (modules / "kernel/fs").mkdir(parents=True)
    (modules / "modules.builtin").write_text("kernel/drivers/c.ko\n")
    (modules / "kernel/fs/a.ko").write_bytes(module("a", "b"))
    (modules / "kernel/fs/b.ko.xz").write_bytes(lzma.compress(module("b")))
    return path


def elf(*kinds: int) -> bytes:
    """An ELF64 file with program headers of these types."""
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<Q", header, 0x20, 64)
    struct.pack_into("<HH", header, 0x36, 56, len(kinds))
    return bytes(header) + b"".join(struct.pack("<I", kind) + bytes(52) for kind in kinds)


def fake_busybox(directory: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A busybox in ``directory``, which becomes ``$PATH``."""
    directory.mkdir(exist_ok=True)
    path = directory / "busybox"
    path.write_bytes(content)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory))
    return path
