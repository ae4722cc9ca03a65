"""What messages other than reports and nodes may hold: a table for each type, as in ``schema`` for reports.

The wire's own table says which fields a message has and of which JSON types; this one has the types within
lists, the ranges and the vocabularies. Text is made safe where it is used.
"""

from __future__ import annotations

from collections.abc import Mapping

from pytest_smol.errors import ProtocolError
from pytest_smol.protocol.wire import Message
from pytest_smol.reports.field_shapes import Shape, fields, integer, items_of, maybe, one_of, text, tuple_of

__all__ = ["MESSAGES", "require_valid"]

_LINES: Mapping[str, Shape] = {"lines": items_of(text)}

_numbers = items_of(integer)

#: By type of message; a field without a row may hold whatever its JSON type does.
MESSAGES: Mapping[str, Mapping[str, Shape]] = {
    "header": _LINES,
    "usage_error": _LINES,
    "collected": {**_LINES, "items": _numbers, "deselected": _numbers},
    "warning": {"lineno": integer, "location": maybe(tuple_of(text, integer, text))},
    "stop": {
        "kind": one_of("exit", "interrupt", "fail", "stop"),
        "returncode": maybe(integer),
        "place": maybe(tuple_of(text, integer)),
    },
    "exit": {"status": integer},
    "closed": {"exitstatus": integer},
}


def _as_it_is(value: str) -> str:
    return value


def require_valid(message: Message) -> None:
    """Raise :class:`ProtocolError` for a ``message`` with a value that its table does not take."""
    try:
        fields(message, MESSAGES.get(message["type"], {}), _as_it_is)
    except ValueError as error:
        raise ProtocolError(f"the guest sent a {message['type']!r} message that is none: {error}") from error
