"""Plain JSON data with values at some places replaced, removed, added or doubled, as a fuzzer decides."""

from __future__ import annotations

import json
from typing import Any

from fuzz.support.supply import Supply

__all__ = ["changed"]

_ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 10**19, -1 << 63, 0.5, 1e308, -0.0),
    *("", "passed", "failed", "skipped", "rerun", "call", "long", "ReprEntry", "a.py::test", "::()", "/"),
    *("\x1b[31m", "\x1b]0;x\x07", "\n", "\r", "\0", "\x85\u2028", "\ud800", "\udcff", "E   x", "[50%]", "{}"),
    *("UserWarning", "Warning", "__name__", "print", "\u0130", "a" * 5000, "../..", "%s"),
    *([], {}, [[]], [None], {"": None}, [1, "x"], ["a", "b", "c"], ["a.py", 1, "b"], {"a": {"b": []}}),
)


def changed(message: dict[str, Any], supply: Supply) -> dict[str, Any]:
    """``message``, changed in place by what is left of ``supply``."""
    while supply:
        holder, key = _place(message, supply)
        kind = supply.number() % 8
        if kind == 0 and isinstance(holder, dict):
            holder[str(_odd(supply))] = _odd(supply)
        elif kind == 1 and key is not None:
            del holder[key]
        elif kind == 2 and isinstance(holder, list) and key is not None:
            holder += holder[key : key + 1] * (supply.number() % 4)
        elif kind == 3 and key is not None and isinstance(holder[key], str):
            holder[key] += supply.take(4).decode("latin-1")
        elif key is not None:
            holder[key] = _odd(supply)
    return message


def _odd(supply: Supply) -> Any:
    return json.loads(json.dumps(supply.choice(_ODD)))


def _place(message: Any, supply: Supply) -> tuple[Any, Any]:
    """A list or object within ``message``, and a key or index in it, None where it is empty."""
    holder = message
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not keys:
            return holder, None
        key = supply.choice(keys[:256])
        if not isinstance(holder[key], (dict, list)) or supply.number() % 4 == 0:
            return holder, key
        holder = holder[key]
