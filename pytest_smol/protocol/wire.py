"""What crosses the border between host and guest: framed JSON messages, and no I/O.

A frame is a little-endian 32-bit length and that many bytes of JSON (ASCII
only, so that lone surrogates survive), one object with a ``type``. The tables
below name every message and its fields; anything else is refused before a
byte of it is used. This module runs on both sides, so it imports nothing of
ours and nothing beyond the standard library.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

__all__ = [
    "FROM_GUEST",
    "MARKER",
    "MAX_FRAME",
    "TO_GUEST",
    "TO_TERMINAL",
    "Decoder",
    "Message",
    "WireError",
    "encode",
]

#: The largest frame either side accepts, in bytes of JSON.
MAX_FRAME = 16 << 20

#: What a guest writes to its standard output (and error) before it says ``mark`` and the next message.
MARKER = b"\x1esmol:7d5c2a9be1f04386\x1e"

#: The longest integer literal accepted, in digits (64 bits and a sign need 20).
_MAX_DIGITS = 20

#: The deepest nesting of lists and objects in a message.
_MAX_DEPTH = 50

#: The most values in a message: a frame of 16 MiB could hold eight million empty lists, 64 bytes each.
_MAX_VALUES = 1 << 20

#: Before each value in JSON but the first there is one of these.
_BEGINS = (b",", b"[", b"{")

_LENGTH = struct.Struct("<I")

Message = dict[str, Any]
_Fields = Mapping[str, tuple[type, ...]]

_NULL = type(None)

#: Host to guest. ``session`` starts pytest in the guest; a fork takes ``identity`` and, when it is needed,
#: ``run``, after ``worker`` where pytest-xdist runs. ``more`` follows when the last step so far named a test
#: that comes after it. Where each module is collected in a machine of its own, a fork is told before all that
#: to ``collect`` the files ``paths``, or, where that is null, to list the files.
TO_GUEST: Mapping[str, _Fields] = {
    "session": {
        "args": (list,),
        "argv": (list,),
        "options": (dict,),
        "cwd": (str,),
        "env": (dict,),
        "sys_path": (list,),
        "uid": (int,),
        "gid": (int,),
        "groups": (list,),
        "umask": (int,),
        "process": (dict,),
        "storage": (int, _NULL),
        "drop_caches": (bool,),
        "screen": (dict,),
        "uncaptured": (bool,),
        "plugins": (list,),
        "dist": (str,),
        "files": (dict,),
        "output_limit": (int,),
        "seed": (int, _NULL),
        "collect": (str,),
        "fresh": (dict,),
    },
    "worker": {"input": (dict,), "env": (dict,), "screen": (dict,)},
    "identity": {"fresh": (dict,)},
    "collect": {"paths": (list, _NULL), "failed": (int,)},
    "run": {"steps": (list,), "failed": (int,)},
    "more": {"steps": (list,)},
    "close": {"failed": (int,)},
    "replay": {"reports": (list,), "warnings": (list,)},
    "phase": {"name": (str,), "exitstatus": (int,)},
    "terminal": {"tty": (bool,), "rows": (int,), "columns": (int,)},
    "line": {"text": (str,)},
}

#: Host to guest over the port ``terminal``: what the user types (a character for each byte) and resizes.
TO_TERMINAL: Mapping[str, _Fields] = {
    "typed": {"text": (str,)},
    "resize": {"rows": (int,), "columns": (int,)},
}

#: Guest to host. ``died`` comes from the guest's PID 1, all else from the runner.
FROM_GUEST: Mapping[str, _Fields] = {
    "ready": {"python": (str,)},
    "header": {"lines": (list,)},
    "mark": {"stderr": (bool,)},
    "printing": {},
    "screen": {"text": (str,), "fresh_line": (bool,)},
    "suite_property": {"name": (str,), "value": (str,)},
    "collecting": {"nodeid": (str,)},
    "nodes": {"rows": (list,)},
    "files": {"rows": (list,)},
    "collect_report": {"data": (dict,)},
    "warning": {
        "text": (str,),
        "category": (str,),
        "filename": (str,),
        "lineno": (int,),
        "line": (str,),
        "when": (str,),
        "nodeid": (str,),
        "location": (list, _NULL),
    },
    "collected": {"items": (list,), "deselected": (list,), "lines": (list,), "closing": (bool,)},
    "fresh": {},
    "start": {"index": (int,)},
    "finish": {"index": (int,)},
    "report": {"index": (int,), "data": (dict,)},
    "file": {"path": (str,), "data": (str,), "last": (bool,), "executable": (bool,)},
    "unsent": {"path": (str,), "reason": (str,)},
    "writes": {"paths": (list,), "more": (int,)},
    "state": {"plugin": (str,), "data": (dict,)},
    "stop": {"kind": (str,), "reason": (str,), "returncode": (int, _NULL), "place": (list, _NULL)},
    "done": {},
    "replayed": {},
    "closed": {"exitstatus": (int,), "failure": (str,)},
    "usage_error": {"lines": (list,)},
    "exit": {"status": (int,)},
    "died": {"status": (int, _NULL), "signal": (int, _NULL)},
    "terminal": {"open": (bool,)},
    "input": {},
    "pdb_shown": {},
}


class WireError(ValueError):
    """A frame or message that the protocol forbids."""


#: Made once: a fork would pay for making another.
_to_json = json.JSONEncoder(allow_nan=False).encode


def encode(message: Mapping[str, Any], most: int = MAX_FRAME) -> bytes:
    """The frame for ``message``. Raises :class:`WireError` if its JSON has more than ``most`` bytes.

    Values that the other side would refuse (a test may attach anything to a
    report) are sent as their ``repr``.
    """
    body = _to_json(_plain(message, depth=0)).encode("ascii")
    if len(body) > most:
        raise WireError(f"a {message.get('type')!r} message of {len(body)} bytes is larger than {most}")
    return _LENGTH.pack(len(body)) + body


def _plain(value: object, depth: int) -> object:
    """``value`` with all that a message lacks (NaN, large integers, odd keys, endless nesting) as text."""
    if type(value) is str or value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):  # a subclass may encode itself as it likes
        return str.__str__(value)
    if isinstance(value, int):
        return value if abs(value) < 1 << 63 else _shown(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else _shown(value)
    if isinstance(value, (list, tuple)) and depth < _MAX_DEPTH:
        return [_plain(each, depth + 1) for each in value]
    if isinstance(value, dict) and depth < _MAX_DEPTH:
        return {_key(key): _plain(each, depth + 1) for key, each in value.items()}
    return _shown(value)


def _key(key: object) -> str:
    return str.__str__(key) if isinstance(key, str) else _shown(key)


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:
        return f"<unprintable {type(value).__name__}: {type(error).__name__}>"


def take_body(buffer: bytearray) -> bytes | None:
    """Take the first frame off ``buffer`` and give its body; None while it is not whole.

    Raises :class:`WireError` if it is announced to be larger than MAX_FRAME.
    """
    if len(buffer) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack_from(buffer)
    if length > MAX_FRAME:
        raise WireError(f"a frame of {length} bytes is announced; {MAX_FRAME} is the most")
    end = _LENGTH.size + length
    if len(buffer) < end:
        return None
    body = bytes(buffer[_LENGTH.size : end])
    del buffer[:end]
    return body


class Decoder:
    """Bytes in, validated messages out. After an error it stays in error.

    ``table`` names the messages accepted (:data:`TO_GUEST` or :data:`FROM_GUEST`).
    """

    def __init__(self, table: Mapping[str, _Fields]) -> None:
        self._table = table
        self._buffer = bytearray()
        self._error: WireError | None = None

    @property
    def pending(self) -> int:
        """Bytes of an unfinished frame that are held."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take ``data``; yield each message it completes. Raises :class:`WireError`."""
        self._buffer += data
        while True:
            if self._error is not None:
                raise self._error
            body = self._next_body()
            if body is None:
                return
            yield self._checked(body)

    def _next_body(self) -> bytes | None:
        try:
            return take_body(self._buffer)
        except WireError as error:
            self._error = error
            raise

    def _checked(self, body: bytes) -> Message:
        try:
            message = _parse(body)
        except (ValueError, RecursionError) as error:
            self._fail(f"a frame is not strict JSON: {error}")
        fields = self._table.get(message["type"]) if isinstance(message.get("type"), str) else None
        if fields is None:
            self._fail(f"a message of unknown type {str(message.get('type'))[:40]!r}")
        if message.keys() - {"type"} != fields.keys():
            self._fail(f"a {message['type']!r} message has the wrong fields")
        for name, types in fields.items():
            if type(message[name]) not in types:
                self._fail(f"field {name!r} of a {message['type']!r} message is of the wrong type")
        return message

    def _fail(self, reason: str) -> NoReturn:
        self._error = WireError(reason)
        raise self._error


def _parse(body: bytes) -> Message:
    if _values(body) > _MAX_VALUES:
        raise ValueError("there are too many values")
    message = json.loads(
        body.decode("ascii"),
        parse_int=_integer,
        parse_float=_finite,
        parse_constant=_no_constant,
        object_pairs_hook=_no_duplicates,
    )
    if not isinstance(message, dict):
        raise ValueError("a message is an object")
    if _depth(message) > _MAX_DEPTH:
        raise ValueError("values are nested too deep")
    return message


def _values(body: bytes) -> int:
    """About how many values ``body`` holds, before anything is allocated for them."""
    if (most := sum(map(body.count, _BEGINS))) <= _MAX_VALUES:
        return most
    # Most of that may stand in texts.
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"")
    if (quotes := plain.count(b'"')) > 2 * _MAX_VALUES:
        return quotes
    return sum(part.count(each) for part in plain.split(b'"')[::2] for each in _BEGINS)


def _depth(message: Message) -> int:
    """How deep lists and objects are nested; what walks them recursively has to know."""
    level: list[Any] = [message]
    depth = 0
    while level:
        depth += 1
        inner = (each for holder in level for each in (holder.values() if type(holder) is dict else holder))
        level = [each for each in inner if isinstance(each, (list, dict))]
    return depth


def _integer(literal: str) -> int:
    if len(literal) > _MAX_DIGITS:
        raise ValueError("an integer is too long")
    return int(literal)


def _finite(literal: str) -> float:
    value = float(literal)
    if math.isinf(value):
        raise ValueError("a number is too large")
    return value


def _no_constant(literal: str) -> None:
    raise ValueError(f"{literal} is no JSON number")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key stands twice in an object")
    return table
