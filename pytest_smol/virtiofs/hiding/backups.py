"""From the name of a backup or of compiled code to the name of the file that it was made from."""

from __future__ import annotations

import re

from pytest_smol.virtiofs.hiding.names import BACKUPS

__all__ = ["original", "source"]

_SUFFIX = re.compile(
    r"(?:(?<=.)~|\.~\d{{1,9}}~|[._-](?:{})[._-]?\d{{0,9}}|\.\d{{1,9}})\Z".format("|".join(BACKUPS)).encode(),
    re.IGNORECASE,
)
_VIM_SWAP = re.compile(rb"\.sw[a-z]\Z", re.IGNORECASE)
#: Source: PEP 3147 and PEP 488: ``module.tag.pyc`` and ``module.tag.opt-1.pyc``.
_COMPILED = re.compile(rb"([^.]+)(?:\.[^.]+){0,3}\.py[co]\Z", re.IGNORECASE)
_DEPTH = 3
"""A backup may be one of a backup; how many layers are taken off."""


def original(name: bytes) -> tuple[bytes, ...]:
    """The names that the file ``name`` may be a backup of; empty for most names.

    >>> original(b".npmrc.bak~")
    (b'.npmrc.bak', b'.npmrc')
    """
    found: list[bytes] = []
    for _ in range(_DEPTH):
        saved_by_emacs = len(name) > 2 and name[:1] == name[-1:] == b"#"
        shorter = name[1:-1] if saved_by_emacs else _SUFFIX.sub(b"", name)
        if shorter in (b"", name):
            break
        found.append(shorter)
        if _VIM_SWAP.search(name) and shorter.startswith(b"."):
            found.append(shorter[1:])  # Vim puts a dot before a name that has none
        name = shorter
    return tuple(found)


def source(name: bytes) -> bytes | None:
    """The name of the module that ``name`` is the compiled code of, or None.

    >>> source(b"settings.cpython-312.opt-1.pyc")
    b'settings.py'
    """
    found = _COMPILED.match(name)
    return found[1] + b".py" if found else None
