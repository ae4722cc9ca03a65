"""Keys of snapshots: a digest of all that can change what a snapshot holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_smol.virtiofs.filesystem.tree import FLAGS
from pytest_smol.virtiofs.view import View

__all__ = ["FORMAT", "base_key_fields", "key_of"]

#: Changes whenever what a snapshot holds or how it is laid out changes.
FORMAT = 4


def key_of(fields: Mapping[str, Any]) -> str:
    """The key for ``fields``, JSON-ready: all that can change a snapshot. 32 hexadecimal digits."""
    text = json.dumps({"format": FORMAT, **fields}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def base_key_fields(
    machine: Mapping[str, Any], boot: tuple[str, str, Sequence[str]], view: View
) -> dict[str, Any]:
    """The fields for :func:`key_of` of a base snapshot: all that can change it, JSON-ready.

    ``machine`` is the engine's identity for the guest's hardware (see
    ``Engine.identity``). ``boot`` is a digest of kernel and initramfs, the
    kernel's command line, and the program that the guest starts, with its
    arguments. The command line is without ``tsc_early_khz=``: a measured
    frequency differs a little from boot to boot of the host.
    """
    return {**machine, "boot": list(boot), "server": int(FLAGS), "view": view.to_json()}
