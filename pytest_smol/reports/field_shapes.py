"""Shapes of what a guest says: a type, a range or a vocabulary for each value; text is cleaned on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pytest_smol.reports.text import encodable

__all__ = [
    "Shape",
    "anything",
    "count",
    "fields",
    "flag",
    "integer",
    "items_of",
    "maybe",
    "name",
    "number",
    "one_of",
    "record",
    "text",
    "tuple_of",
]

#: Takes a value and the function that cleans text; gives the value to use or raises ValueError.
Shape = Callable[[Any, Callable[[str], str]], Any]

#: The range of execnet's four-byte integers.
_LEAST_INTEGER, _MOST_INTEGER = -(1 << 31), (1 << 31) - 1


def text(value: Any, clean: Callable[[str], str]) -> str:
    """Text of any length."""
    if not isinstance(value, str):
        raise ValueError(f"text is expected, not {type(value).__name__}")
    return clean(value)


def name(value: Any, clean: Callable[[str], str]) -> str:
    """Text that goes where nothing escapes it: ids, names of properties, files of UTF-8."""
    return encodable(text(value, clean))


def integer(value: Any, clean: Callable[[str], str]) -> int:
    """A line number or a count: execnet sends 32 bits with a sign."""
    if type(value) is not int or not _LEAST_INTEGER <= value <= _MOST_INTEGER:
        raise ValueError(f"an integer of 32 bits is expected, not {type(value).__name__}")
    return value


def count(value: Any, clean: Callable[[str], str]) -> int:
    """An integer of 31 bits without a sign."""
    if integer(value, clean) < 0:
        raise ValueError("a count is expected")
    return int(value)


def flag(value: Any, clean: Callable[[str], str]) -> bool:
    """Nothing but true."""
    if value is not True:
        raise ValueError("only true is expected")
    return True


def number(value: Any, clean: Callable[[str], str]) -> float:
    """A number, as float."""
    if type(value) not in (int, float):
        raise ValueError(f"a number is expected, not {type(value).__name__}")
    return float(value)


def anything(value: Any, clean: Callable[[str], str]) -> Any:
    """Plain JSON data of any form, its strings cleaned.

    Integers below 32 bits are text: execnet sends none of these (those above it sends as decimals).
    """
    if isinstance(value, str):
        return clean(value)
    if type(value) is int and value < _LEAST_INTEGER:
        return str(value)
    if isinstance(value, list):
        return [anything(each, clean) for each in value]
    if isinstance(value, dict):
        return {clean(key): anything(each, clean) for key, each in value.items()}
    return value


def maybe(shape: Shape) -> Shape:
    """A shape: None, or what ``shape`` takes."""
    return lambda value, clean: None if value is None else shape(value, clean)


def one_of(*choices: str) -> Shape:
    """A shape: one of the given words."""

    def check(value: Any, clean: Callable[[str], str]) -> str:
        if value not in choices:
            raise ValueError(f"one of {choices} is expected")
        return str(value)

    return check


def items_of(shape: Shape) -> Shape:
    """A shape: a list of what ``shape`` takes."""

    def check(value: Any, clean: Callable[[str], str]) -> list[Any]:
        if not isinstance(value, list):
            raise ValueError(f"a list is expected, not {type(value).__name__}")
        return [shape(each, clean) for each in value]

    return check


def tuple_of(*shapes: Shape) -> Shape:
    """A shape: a list with one value for each of ``shapes``, as a tuple."""

    def check(value: Any, clean: Callable[[str], str]) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) != len(shapes):
            raise ValueError(f"a list of {len(shapes)} is expected")
        return tuple(shape(each, clean) for shape, each in zip(shapes, value, strict=True))

    return check


def record(**shapes: Shape) -> Shape:
    """A shape: an object with these keys and no others."""

    def check(value: Any, clean: Callable[[str], str]) -> dict[str, Any]:
        if not isinstance(value, dict) or value.keys() != shapes.keys():
            raise ValueError(f"an object with {', '.join(shapes)} is expected")
        return {key: shape(value[key], clean) for key, shape in shapes.items()}

    return check


def fields(
    data: Mapping[str, Any], table: Mapping[str, Shape], clean: Callable[[str], str]
) -> dict[str, Any]:
    """The keys of ``data`` that ``table`` has, each of its shape; some may be missing. Raises ValueError."""
    result: dict[str, Any] = {}
    for key, shape in table.items():
        if key in data:
            try:
                result[key] = shape(data[key], clean)
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from None
    return result
