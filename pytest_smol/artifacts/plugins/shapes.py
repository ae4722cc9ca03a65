"""Shapes for the data of guests' plugins: a type, a range or a vocabulary for each value.

A shape takes a value of plain JSON and gives the value to use, or raises ValueError with what is expected.
A plugin's table maps each field to its shape; a field that no table has is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

__all__ = [
    "Shape",
    "checked",
    "integer",
    "json_value",
    "list_of",
    "maybe",
    "one_of",
    "printable",
    "real",
    "row",
    "table_of",
]

Shape = Callable[[Any], Any]

#: The longest text in characters: PATH_MAX of linux/limits.h, as most of these are paths or node ids.
MAX_TEXT = 4096

#: The most entries of a list or table.
MAX_ENTRIES = 100_000

#: The deepest nesting of a value that a plugin only passes on; json.dumps and repr recurse.
MAX_DEPTH = 20

#: The greatest integer, as in SQLite, execnet and C the least common one.
MAX_INTEGER = 2**31 - 1


def printable(value: Any) -> str:
    """Text without controls, NUL, surrogates and invisible characters."""
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("text that can be shown is expected")
    if len(value) > MAX_TEXT:
        raise ValueError(f"a text of at most {MAX_TEXT} characters is expected")
    return value


def integer(least: int, most: int) -> Shape:
    """A shape: an integer from ``least`` to ``most``."""

    def check(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"an integer from {least} to {most} is expected")
        return value

    return check


def real(least: float, most: float) -> Shape:
    """A finite number; neither NaN nor a boolean is one."""

    def check(value: Any) -> float:
        if type(value) not in (int, float) or not least <= value <= most:
            raise ValueError(f"a number from {least:g} to {most:g} is expected")
        number: float = value
        return number

    return check


def one_of(*choices: Any) -> Shape:
    """A shape: one of the given values."""

    def check(value: Any) -> Any:
        if not any(value is each or (type(value) is type(each) and value == each) for each in choices):
            raise ValueError(f"one of {choices} is expected")
        return value

    return check


def maybe(shape: Shape) -> Shape:
    """A shape: None, or what ``shape`` takes."""
    return lambda value: None if value is None else shape(value)


def list_of(shape: Shape, most: int = MAX_ENTRIES) -> Shape:
    """A shape: a list of what ``shape`` takes."""

    def check(value: Any) -> list[Any]:
        if not isinstance(value, list) or len(value) > most:
            raise ValueError(f"a list of at most {most} is expected")
        return [shape(each) for each in value]

    return check


def row(*shapes: Shape) -> Shape:
    """A shape: a list with one value for each shape."""

    def check(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) != len(shapes):
            raise ValueError(f"a row of {len(shapes)} is expected")
        return tuple(shape(each) for shape, each in zip(shapes, value, strict=True))

    return check


def table_of(key: Shape, shape: Shape, most: int = MAX_ENTRIES) -> Shape:
    """A shape: an object whose values ``shape`` takes."""

    def check(value: Any) -> dict[Any, Any]:
        if not isinstance(value, dict) or len(value) > most:
            raise ValueError(f"an object of at most {most} entries is expected")
        return {key(name): shape(each) for name, each in value.items()}

    return check


def json_value(value: Any, depth: int = 0) -> Any:
    """Any plain value: text with what cannot be shown escaped, finite numbers, and not nested too deep."""
    if depth > MAX_DEPTH:
        raise ValueError(f"at most {MAX_DEPTH} levels are expected")
    if isinstance(value, str):
        return value if value.isprintable() else value.encode("unicode_escape").decode("ascii")
    if isinstance(value, list):
        return [json_value(each, depth + 1) for each in value]
    if isinstance(value, dict):
        return {json_value(name, depth + 1): json_value(each, depth + 1) for name, each in value.items()}
    if value is None or isinstance(value, bool):
        return value
    if type(value) not in (int, float) or not math.isfinite(value) or abs(value) >= 2**63:
        raise ValueError("a finite number is expected")
    return value


def checked(data: Mapping[str, Any], table: Mapping[str, Shape]) -> dict[str, Any]:
    """The fields of ``table`` from ``data``, where a missing one counts as null. Raises ValueError."""
    result = {}
    for name, shape in table.items():
        try:
            result[name] = shape(data.get(name))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return result
