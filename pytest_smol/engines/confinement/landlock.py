"""Landlock: what a thread, and all that it spawns from then on, may do with files, TCP and signals.

Source of the constants, the structures and what each version of the ABI added: linux/landlock.h and
the kernel's Documentation/userspace-api/landlock.rst. The C library has no wrappers for the three calls.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntFlag

__all__ = ["Access", "Rule", "abi", "restrict_thread"]

# The numbers are the same on every architecture.
SYS_CREATE_RULESET, SYS_ADD_RULE, SYS_RESTRICT_SELF = 444, 445, 446
CREATE_RULESET_VERSION = 1
RULE_PATH_BENEATH = 1
PR_SET_NO_NEW_PRIVS = 38


class Access(IntFlag):
    """LANDLOCK_ACCESS_FS_*."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


#: Rights that a rule may give for what is no directory.
_OF_FILES = Access.EXECUTE | Access.WRITE_FILE | Access.READ_FILE | Access.TRUNCATE | Access.IOCTL_DEV

# What each version of the ABI can refuse: (version, bits). LANDLOCK_ACCESS_NET_*: BIND_TCP and CONNECT_TCP.
# LANDLOCK_SCOPE_*: ABSTRACT_UNIX_SOCKET and SIGNAL.
_FS = (
    (1, (1 << 13) - 1),
    (2, int(Access.REFER)),
    (3, int(Access.TRUNCATE)),
    (5, int(Access.IOCTL_DEV)),
)
_NET = ((4, 0b11),)
_SCOPE = ((6, 0b11),)

_RULESET_ATTR = struct.Struct("=QQQ")  # struct landlock_ruleset_attr: handled_access_fs, _net, scoped
_PATH_BENEATH_ATTR = struct.Struct("=Qi")  # struct landlock_path_beneath_attr: allowed_access, parent_fd

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Rule:
    """``path`` and, where it is a directory, all below it may be used as ``access`` says."""

    path: str
    access: Access


def _call(number: int, *arguments: int | bytes | None) -> int:
    """syscall(2); integers are passed as longs. Raises OSError."""
    passed = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *passed))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def abi() -> int:
    """The version of Landlock's ABI that this kernel has; 0 where it has none, or a filter forbids it."""
    try:
        return _call(SYS_CREATE_RULESET, None, 0, CREATE_RULESET_VERSION)
    except OSError:
        return 0


def _bits(table: Iterable[tuple[int, int]], version: int) -> int:
    return sum(bits for since, bits in table if since <= version)


def ruleset_attr(version: int) -> bytes:
    """The structure that has all refused that ``version`` of the ABI can refuse."""
    return _RULESET_ATTR.pack(*(_bits(table, version) for table in (_FS, _NET, _SCOPE)))


def _add(ruleset: int, rule: Rule, version: int) -> None:
    """Add ``rule``; what is not there needs none."""
    try:
        fd = os.open(rule.path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    try:
        kind = ~0 if stat.S_ISDIR(os.fstat(fd).st_mode) else int(_OF_FILES)
        allowed = int(rule.access) & _bits(_FS, version) & kind
        _call(SYS_ADD_RULE, ruleset, RULE_PATH_BENEATH, _PATH_BENEATH_ATTR.pack(allowed, fd), 0)
    finally:
        os.close(fd)


def no_new_privileges() -> None:
    """Let nothing that the calling thread executes from now on gain privileges. Raises OSError."""
    if _libc.prctl(PR_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0))):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def restrict_thread(rules: Iterable[Rule], version: int) -> None:
    """Confine the calling thread to ``rules``, irrevocably; ``version`` is the result of :func:`abi`.

    Needs :func:`no_new_privileges` first. Whatever is open already stays usable. Raises OSError.
    """
    ruleset = _call(SYS_CREATE_RULESET, ruleset_attr(version), _RULESET_ATTR.size, 0)
    try:
        for rule in rules:
            _add(ruleset, rule, version)
        _call(SYS_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
