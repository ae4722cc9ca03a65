"""Where the fields of a device are in the state file of QEMU: for tests that change one.

QEMU ends the file with a description of it in JSON. Source: QEMU's docs/devel/migration/main.rst, "Stream
structure", and migration/vmstate.c.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Field", "fields_of"]

#: Marks of the stream: a section with all of a device's state, and the description behind the end.
SECTION_FULL = 0x04
EOF_AND_DESCRIPTION = b"\x00\x06"


@dataclass(frozen=True)
class Field:
    """A field of a section of the file: its place there and its size in bytes. Numbers are big-endian."""

    section: str
    name: str
    offset: int
    size: int

    def read(self, content: bytes) -> int:
        """Its value in ``content``, as an unsigned number."""
        return int.from_bytes(content[self.offset : self.offset + self.size], "big")

    def write(self, content: bytearray, value: int) -> None:
        """Put ``value`` in its place. Raises OverflowError for one that is too large."""
        content[self.offset : self.offset + self.size] = value.to_bytes(self.size, "big")


def fields_of(content: bytes) -> Iterator[Field]:
    """The fields of the first instance of each device in a state file. Raises ValueError for another file."""
    for device in _description(content)["devices"]:
        if device["instance_id"] == 0 and "fields" in device:
            at = _data_of(content, device["name"])
            if at is not None:
                yield from _fields(device, at)


def _description(content: bytes) -> Mapping[str, Any]:
    mark = content.rfind(EOF_AND_DESCRIPTION)
    if mark < 0:
        raise ValueError("the file has no description of itself")
    (size,) = struct.unpack_from(">I", content, mark + len(EOF_AND_DESCRIPTION))
    begin = mark + len(EOF_AND_DESCRIPTION) + 4
    found: Mapping[str, Any] = json.loads(content[begin : begin + size])
    return found


def _data_of(content: bytes, name: str) -> int | None:
    """Where the state of the device ``name`` begins; None where there is none."""
    wanted = bytes([len(name)]) + name.encode("ascii") + bytes(4)
    at = content.find(wanted)
    while at >= 0:
        if at >= 5 and content[at - 5] == SECTION_FULL:
            return at + len(wanted) + 4
        at = content.find(wanted, at + 1)
    return None


def _fields(device: Mapping[str, Any], at: int) -> Iterator[Field]:
    for field in device["fields"]:
        size = field["size"] * field.get("array_len", 1)
        yield Field(device["name"], field["name"], at, size)
        at += size
