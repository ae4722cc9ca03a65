"""A thread that holds values in all AVX registers while its machine is frozen and forked."""

import ctypes
import mmap
import struct
import threading
import time
from pathlib import Path

REGISTERS = 16


def move(opcode: int, base: int) -> bytes:
    """``vmovdqu`` between each of ymm0 to ymm15 and 32 bytes of memory at a register's address.

    Encoded as Intel's manual has it, volume 2, "VEX Prefix": two bytes of prefix (256 bits, F3), the
    opcode (6F loads, 7F stores), ModRM with a displacement of 32 bits.
    """
    code = b""
    for number in range(REGISTERS):
        prefix = 0xFE if number < 8 else 0x7E
        code += bytes([0xC5, prefix, opcode, 0x80 | (number & 7) << 3 | base])
        code += struct.pack("<i", 32 * number)
    return code


RDI, RCX = 7, 1

#: hold(values in rdi, flag in rsi, entered in rdx, output in rcx): load, say that they are loaded, wait
#: for the flag without a system call, store.
HOLD = (
    move(0x6F, RDI)
    + b"\xc7\x02\x01\x00\x00\x00"  # mov dword [rdx], 1
    + b"\xf3\x90\x83\x3e\x00\x74\xf9"  # pause; cmp dword [rsi], 0; je to the pause
    + move(0x7F, RCX)
    + b"\xc5\xf8\x77\xc3"  # vzeroupper; ret
)

PAGE = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
PAGE.write(HOLD)
FUNCTION = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4)(ctypes.addressof(ctypes.c_char.from_buffer(PAGE)))

VALUES = bytes((7 * n + 13) & 0xFF for n in range(32 * REGISTERS))
SOURCE = ctypes.create_string_buffer(VALUES, len(VALUES))
OUTPUT = ctypes.create_string_buffer(len(VALUES))
FLAG, ENTERED = ctypes.c_int(0), ctypes.c_int(0)

THREAD = threading.Thread(
    target=FUNCTION,
    args=(
        ctypes.addressof(SOURCE),
        ctypes.addressof(FLAG),
        ctypes.addressof(ENTERED),
        ctypes.addressof(OUTPUT),
    ),
    daemon=True,
)
if " avx " in Path("/proc/cpuinfo").read_text():
    THREAD.start()
    while not ENTERED.value:
        time.sleep(0.001)


def test_registers_are_as_they_were():
    assert THREAD.is_alive()
    FLAG.value = 1
    THREAD.join(60)
    assert not THREAD.is_alive()
    assert OUTPUT.raw == VALUES
