from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_smol.virtiofs import fuse
from tests.unit.virtiofs.fake_guest import request

HEADER = Path("/usr/include/linux/fuse.h")
# Sizes that the kernel's header gives; entry_out and attr_out stand here without their fuse_attr.
SIZES = {
    "IN_HEADER": 40,
    "OUT_HEADER": 16,
    "ATTR": 88,
    "ENTRY_OUT": 128 - 88,
    "ATTR_OUT": 104 - 88,
    "INIT_OUT": 64,
    "OPEN_IN": 8,
    "OPEN_OUT": 16,
    "READ_IN": 40,
    "KSTATFS": 80,
    "LSEEK_IN": 24,
    "LSEEK_OUT": 8,
    "FORGET_IN": 8,
    "FORGET_ONE": 16,
    "BATCH_FORGET_IN": 8,
    "DIRENT": 24,
}


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_structs_have_the_kernels_sizes(name: str, size: int) -> None:
    assert getattr(fuse, name).size == size


@pytest.mark.skipif(not HEADER.exists(), reason="no kernel headers on this machine")
def test_opcodes_and_flags_are_the_kernels() -> None:
    text = HEADER.read_text()
    for opcode in fuse.Opcode:
        found = re.search(rf"FUSE_{opcode.name}\s*=\s*(\d+)", text)
        assert found is None or int(found[1]) == opcode, opcode
        assert found or opcode is fuse.Opcode.STATX  # newer than some headers
    for flag in fuse.InitFlag:
        found = re.search(rf"#define FUSE_{flag.name}\s+\(1 << (\d+)\)", text)
        assert found, flag
        assert 1 << int(found[1]) == flag, flag
    for open_flag in fuse.OpenFlag:
        found = re.search(rf"#define FOPEN_{open_flag.name}\s+\(1 << (\d+)\)", text)
        assert found, open_flag
        assert 1 << int(found[1]) == open_flag, open_flag


def test_a_layout_packs_by_name_and_unpacks_the_same() -> None:
    data = fuse.READ_IN.pack({"offset": 1 << 40, "size": 4096})
    assert data == struct.pack("<QQIIQII", 0, 1 << 40, 4096, 0, 0, 0, 0)
    assert fuse.READ_IN.unpack(data + b"trailing")["offset"] == 1 << 40
    assert fuse.INIT_OUT.fields[-7:] == tuple(f"unused{n}" for n in range(7))


def test_a_layout_refuses_unknown_fields_and_short_data() -> None:
    with pytest.raises(KeyError, match="fuse_open_out has no field handle"):
        fuse.OPEN_OUT.pack({"handle": 1})
    for size in range(fuse.READ_IN.size):
        with pytest.raises(fuse.Malformed):
            fuse.READ_IN.unpack(bytes(size))


def test_a_request_is_decoded_whole() -> None:
    assert fuse.decode_request(request(1, 5, b"name\0", 99)) == (1, 99, 5, b"name\0")


def test_a_request_cut_anywhere_or_with_trailing_data_is_malformed() -> None:
    data = request(1, 5, b"name\0")
    for size in range(len(data)):
        with pytest.raises(fuse.Malformed):
            fuse.decode_request(data[:size])
    with pytest.raises(fuse.Malformed):
        fuse.decode_request(data + b"\0")


@given(st.binary(max_size=80))
def test_any_bytes_are_a_request_or_malformed(data: bytes) -> None:
    try:
        decoded = fuse.decode_request(data)
    except fuse.Malformed:
        return
    assert len(decoded.body) == len(data) - 40


@pytest.mark.parametrize("body", [b"", b"\0", b"a", b".\0", b"..\0", b"a/b\0", b"/\0", b"a\0b\0", b"a\0\0"])
def test_what_is_no_single_name_is_malformed(body: bytes) -> None:
    with pytest.raises(fuse.Malformed):
        fuse.decode_name(body)


@pytest.mark.parametrize("name", [b"a", b"...", b"\xff\xfe", b"new\nline", b" "])
def test_names_are_raw_bytes(name: bytes) -> None:
    assert fuse.decode_name(name + b"\0") == name


def test_replies_carry_length_error_and_number() -> None:
    assert fuse.encode_reply(3, b"abc") == struct.pack("<IiQ", 19, 0, 3) + b"abc"
    assert fuse.encode_error(3, 30) == struct.pack("<IiQ", 16, -30, 3)


@given(st.binary(min_size=1, max_size=255))
def test_a_dirent_is_padded_to_eight_bytes(name: bytes) -> None:
    data = fuse.encode_dirent(11, 12, 8, name)
    assert len(data) == fuse.dirent_size(len(name))
    assert len(data) % 8 == 0
    assert fuse.DIRENT.unpack(data) == {"ino": 11, "off": 12, "namelen": len(name), "type": 8}
    assert data[24:].rstrip(b"\0") == name.rstrip(b"\0")
