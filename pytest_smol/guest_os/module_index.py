"""The files in which modprobe(8) looks modules up, as depmod(8) makes them.

A kernel package that was only unpacked has none of them: depmod runs when it is installed. Those whose
names end in ``.bin`` are for kmod, the others for busybox. Sources of the formats: modules.dep(5), and
for the binary ones kmod's libkmod/libkmod-index.h.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pytest_smol.errors import KernelUnavailable
from pytest_smol.guest_os.kernel import DECOMPRESS, GuestKernel, module_name, read_module

__all__ = ["Indexed", "binary_index", "index_files", "modinfo_pairs", "read_modules"]

#: Directories of modules in that of a kernel, in the order in which depmod prefers them.
SUBDIRECTORIES = ("updates", "extra", "kernel")

#: Where an ELF64 file has its section headers: their offset, then their size, their count and the index of
#: that of their names. Of each header its name, offset and size. Source: elf(5).
_HEADER = struct.Struct("<40xQ10xHHH")
_SECTION = struct.Struct("<I20xQQ")

#: Of libkmod-index.h: the head of a file, and the flags of a node in the upper bits of its offset.
_MAGIC, _VERSION = 0xB007F457, 0x00020001
_PREFIX, _VALUES, _CHILDREN = 0x80000000, 0x40000000, 0x20000000

#: An alias of a device node that udev or kmod makes at boot, for its module to be loaded when it is opened.
_NODE_NUMBER = re.compile(r"(char|block)-major-(\d+)-(\d+)\Z")


@dataclass(frozen=True)
class Indexed:
    """One module: its name, its path below the kernel's directory of modules, and its ``.modinfo``."""

    name: str
    path: str
    info: tuple[tuple[str, str], ...]

    def values(self, key: str) -> list[str]:
        """The values of ``key`` in its ``.modinfo``."""
        return [value for name, value in self.info if name == key]

    @property
    def depends(self) -> list[str]:
        """Names of the modules that it needs."""
        return [
            name.replace("-", "_") for value in self.values("depends") for name in value.split(",") if name
        ]


def read_modules(kernel: GuestKernel) -> dict[str, Indexed]:
    """All modules of ``kernel`` by name. A file that is no module, or damaged, is left out.

    Raises :class:`~pytest_smol.errors.ToolMissing` where zstd is needed.
    """
    found: dict[str, Indexed] = {}
    for directory in SUBDIRECTORIES:
        for path in sorted((kernel.modules / directory).rglob("*.ko*")):
            name = module_name(path.name)
            if path.suffix in DECOMPRESS and name not in found:
                try:
                    pairs = modinfo_pairs(read_module(path).data)
                except KernelUnavailable:
                    continue
                found[name] = Indexed(name, str(path.relative_to(kernel.modules)), tuple(pairs))
    return found


def modinfo_pairs(module: bytes) -> list[tuple[str, str]]:
    """The keys and values in the section ``.modinfo`` of an ELF64 file; empty where there is none."""
    try:
        at, size, count, names = _HEADER.unpack_from(module)
        rows = [_SECTION.unpack_from(module, at + size * n) for n in range(count)]
        strings = rows[names][1]
    except (struct.error, IndexError):
        return []
    for name, offset, length in rows:
        if module[strings + name : strings + name + 9] == b".modinfo\0":
            texts = module[offset : offset + length].decode("utf-8", "replace").split("\0")
            return [(key, value) for key, mark, value in (text.partition("=") for text in texts) if mark]
    return []


def index_files(
    modules: Mapping[str, Indexed], builtin: Iterable[str], builtin_info: bytes
) -> dict[str, bytes]:
    """The content of each index file by its name.

    ``builtin`` are names of modules that are part of the kernel's image, and ``builtin_info``
    is the file ``modules.builtin.modinfo``: texts ``module.key=value``, each with a NUL.
    """
    dependencies = {name: _dependency_line(name, modules) for name in modules}
    aliases = [
        (_normalised(alias), module.name) for module in modules.values() for alias in module.values("alias")
    ]
    softdeps = [f"softdep {m.name} {value}\n" for m in modules.values() for value in m.values("softdep")]
    pairs = (text.partition(".")[::2] for text in builtin_info.decode("utf-8", "replace").split("\0"))
    builtin_aliases = [
        (_normalised(text[6:]), name.replace("-", "_")) for name, text in pairs if text.startswith("alias=")
    ]
    return {
        "modules.dep": "".join(f"{line}\n" for line in dependencies.values()).encode(),
        "modules.dep.bin": binary_index(dependencies.items()),
        "modules.alias": "".join(f"alias {alias} {name}\n" for alias, name in aliases).encode(),
        "modules.alias.bin": binary_index(aliases),
        "modules.softdep": "".join(softdeps).encode(),
        "modules.devname": "".join(_device_lines(modules.values())).encode(),
        # Only modules that ask for one another's symbols at run time look here.
        "modules.symbols": b"",
        "modules.symbols.bin": binary_index(()),
        "modules.builtin.bin": binary_index((name, "") for name in sorted(builtin)),
        "modules.builtin.alias.bin": binary_index(builtin_aliases),
    }


def _dependency_line(name: str, modules: Mapping[str, Indexed]) -> str:
    """The line of modules.dep: the module's path, then those that it needs, the first to load at the end."""
    seen, order = {name}, []

    def visit(needed: str) -> None:
        for other in modules[needed].depends:
            if other in modules and other not in seen:
                seen.add(other)
                visit(other)
                order.append(other)

    visit(name)
    return " ".join([f"{modules[name].path}:", *(modules[other].path for other in reversed(order))])


def _normalised(alias: str) -> str:
    """``alias`` as it is looked up: with underscores for hyphens, but within brackets."""
    parts = re.split(r"(\[[^]]*\])", alias)
    return "".join(part if part.startswith("[") else part.replace("-", "_") for part in parts)


def _device_lines(modules: Iterable[Indexed]) -> Iterator[str]:
    for module in modules:
        nodes = [alias[8:] for alias in module.values("alias") if alias.startswith("devname:")]
        numbers = [found for alias in module.values("alias") if (found := _NODE_NUMBER.match(alias))]
        if nodes and numbers:
            kind, major, minor = numbers[0].groups()
            yield f"{module.name} {nodes[0]} {kind[0]}{major}:{minor}\n"


def binary_index(pairs: Iterable[tuple[str, str]]) -> bytes:
    """A file of kmod's that gives for a key its values, in the order of ``pairs``. Keys are ASCII."""
    table: dict[bytes, list[tuple[int, bytes]]] = {}
    for priority, (key, value) in enumerate(pairs):
        if key.isascii():
            table.setdefault(key.encode(), []).append((priority, value.encode()))
    out = bytearray(struct.pack(">III", _MAGIC, _VERSION, 0))
    root = _write_node(out, sorted(table), 0, table)
    struct.pack_into(">I", out, 8, root)
    return bytes(out)


def _write_node(
    out: bytearray, keys: Sequence[bytes], at: int, table: Mapping[bytes, list[tuple[int, bytes]]]
) -> int:
    """Append the node of all ``keys``, which are equal up to ``at``, after its children; gives its offset."""
    end = at
    while keys and end < len(keys[0]) and keys[0][end] == keys[-1][end]:  # they are sorted
        end += 1
    groups: dict[int, list[bytes]] = {}
    for key in keys:
        if len(key) > end:
            groups.setdefault(key[end], []).append(key)
    children = {letter: _write_node(out, group, end + 1, table) for letter, group in groups.items()}
    offset = len(out)
    if end > at:
        offset |= _PREFIX
        out += keys[0][at:end] + b"\0"
    if children:
        offset |= _CHILDREN
        first, last = min(children), max(children)
        out += bytes((first, last))
        out += b"".join(struct.pack(">I", children.get(letter, 0)) for letter in range(first, last + 1))
    if keys and len(keys[0]) == end:
        offset |= _VALUES
        values = table[keys[0]]
        out += struct.pack(">I", len(values))
        out += b"".join(struct.pack(">I", priority) + value + b"\0" for priority, value in values)
    return offset
