"""What a serialised report may hold: the table a guest's reports are checked against.

The form is that of pytest's ``pytest_report_to_serializable``. Unknown keys of
a report are dropped, as a plugin may add any; a known key with a value of the
wrong form makes the report invalid. Strings are cleaned on the way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from pytest_smol.pytest_private import SHOWN_IN_DEBUGGER, known_markup
from pytest_smol.reports.text import encodable

__all__ = ["COLLECT_REPORT", "TEST_REPORT", "checked"]

#: Takes a value and the function that cleans text; gives the value to use or raises ValueError.
Shape = Callable[[Any, Callable[[str], str]], Any]


#: The range of execnet's four-byte integers.
_LEAST_INTEGER, _MOST_INTEGER = -(1 << 31), (1 << 31) - 1


def _text(value: Any, clean: Callable[[str], str]) -> str:
    if not isinstance(value, str):
        raise ValueError(f"text is expected, not {type(value).__name__}")
    return clean(value)


def _name(value: Any, clean: Callable[[str], str]) -> str:
    """Text that goes where nothing escapes it: ids, names of properties, files of UTF-8."""
    return encodable(_text(value, clean))


def _separator(value: Any, clean: Callable[[str], str]) -> str:
    """The character of a line that separates sections: the terminal writer divides by its length."""
    if not isinstance(value, str) or len(value) != 1 or not " " <= value <= "~":
        raise ValueError("one printable ASCII character is expected")
    return value


def _suffix(value: Any, clean: Callable[[str], str]) -> str:
    """The end of a file's name, of which no path can be made."""
    text = _text(value, clean)
    if not re.fullmatch(r"[A-Za-z0-9]{1,10}(\.[A-Za-z0-9]{1,10})?", text):
        raise ValueError("a file's extension is expected")
    return text


def _integer(value: Any, clean: Callable[[str], str]) -> int:
    """A line number or a count: execnet sends 32 bits with a sign."""
    if type(value) is not int or not _LEAST_INTEGER <= value <= _MOST_INTEGER:
        raise ValueError(f"an integer of 32 bits is expected, not {type(value).__name__}")
    return value


def _count(value: Any, clean: Callable[[str], str]) -> int:
    if _integer(value, clean) < 0:
        raise ValueError("a count is expected")
    return int(value)


def _flag(value: Any, clean: Callable[[str], str]) -> bool:
    if value is not True:
        raise ValueError("only true is expected")
    return True


def _number(value: Any, clean: Callable[[str], str]) -> float:
    if type(value) not in (int, float):
        raise ValueError(f"a number is expected, not {type(value).__name__}")
    return float(value)


def _anything(value: Any, clean: Callable[[str], str]) -> Any:
    """Plain JSON data of any form, its strings cleaned.

    Integers below 32 bits are text: execnet sends none of these (those above it sends as decimals).
    """
    if isinstance(value, str):
        return clean(value)
    if type(value) is int and value < _LEAST_INTEGER:
        return str(value)
    if isinstance(value, list):
        return [_anything(each, clean) for each in value]
    if isinstance(value, dict):
        return {clean(key): _anything(each, clean) for key, each in value.items()}
    return value


def _maybe(shape: Shape) -> Shape:
    return lambda value, clean: None if value is None else shape(value, clean)


def _one_of(*choices: str) -> Shape:
    def check(value: Any, clean: Callable[[str], str]) -> str:
        if value not in choices:
            raise ValueError(f"one of {choices} is expected")
        return str(value)

    return check


def _items_of(shape: Shape) -> Shape:
    def check(value: Any, clean: Callable[[str], str]) -> list[Any]:
        if not isinstance(value, list):
            raise ValueError(f"a list is expected, not {type(value).__name__}")
        return [shape(each, clean) for each in value]

    return check


def _tuple_of(*shapes: Shape) -> Shape:
    def check(value: Any, clean: Callable[[str], str]) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) != len(shapes):
            raise ValueError(f"a list of {len(shapes)} is expected")
        return tuple(shape(each, clean) for shape, each in zip(shapes, value, strict=True))

    return check


def _record(**fields: Shape) -> Shape:
    def check(value: Any, clean: Callable[[str], str]) -> dict[str, Any]:
        if not isinstance(value, dict) or value.keys() != fields.keys():
            raise ValueError(f"an object with {', '.join(fields)} is expected")
        return {name: shape(value[name], clean) for name, shape in fields.items()}

    return check


#: The most characters of a word that stands for an outcome.
_MOST_STATUS = 100


def _word(value: Any, clean: Callable[[str], str]) -> str:
    return _name(value, clean).replace("\n", " ")[:_MOST_STATUS]


def _markup(value: Any, clean: Callable[[str], str]) -> dict[str, bool]:
    """The names that pytest's TerminalWriter knows; for any other it raises."""
    if not isinstance(value, dict):
        raise ValueError("markup is an object")
    return {name: bool(on) for name, on in value.items() if name in known_markup()}


def _status(value: Any, clean: Callable[[str], str]) -> tuple[Any, ...]:
    """What ``pytest_report_teststatus`` gives: category, letter, and a word or a word with its markup."""
    marked = isinstance(value, list) and len(value) == 3 and isinstance(value[2], list)
    status: tuple[Any, ...] = _tuple_of(_word, _word, _tuple_of(_word, _markup) if marked else _word)(
        value, clean
    )
    return status


def _properties(value: Any, clean: Callable[[str], str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"an object is expected, not {type(value).__name__}")
    return {clean(key): _anything(each, clean) for key, each in value.items()}


def _keywords(value: Any, clean: Callable[[str], str]) -> dict[str, int]:
    if not isinstance(value, dict):
        raise ValueError("keywords are an object")
    return {encodable(clean(key)): 1 for key in value}


# _pytest/_code/code.py: ReprFileLocation, ReprEntry, ReprEntryNative, ReprTraceback, ExceptionChainRepr
_location = _record(path=_text, lineno=_integer, message=_text)
_entry = _record(
    lines=_items_of(_text),
    reprfuncargs=_maybe(_record(args=_items_of(_tuple_of(_text, _text)))),
    reprlocals=_maybe(_record(lines=_items_of(_text))),
    reprfileloc=_maybe(_location),
    style=_one_of("long", "short", "line", "no", "native", "value", "auto"),
)
_native_entry = _record(lines=_items_of(_text))


def _any_entry(value: Any, clean: Callable[[str], str]) -> dict[str, Any]:
    shapes: Mapping[str, Shape] = {"ReprEntry": _entry, "ReprEntryNative": _native_entry}
    if not isinstance(value, dict) or value.keys() != {"type", "data"}:
        raise ValueError("an entry of a traceback is expected")
    kind = _one_of(*shapes)(value["type"], clean)
    data = value["data"]
    if kind == "ReprEntryNative" and isinstance(data, dict):
        data = {"lines": data.get("lines")}
    return {"type": kind, "data": shapes[kind](data, clean)}


_traceback = _record(reprentries=_items_of(_any_entry), extraline=_maybe(_text), style=_text)
_exception = _record(
    reprcrash=_maybe(_location),
    reprtraceback=_traceback,
    sections=_items_of(_tuple_of(_text, _text, _separator)),
    chain=_maybe(_items_of(_tuple_of(_traceback, _maybe(_location), _maybe(_text)))),
)
_skip = _tuple_of(_text, _integer, _text)


def _longrepr(value: Any, clean: Callable[[str], str]) -> Any:
    if value is None or isinstance(value, str):
        return _maybe(_text)(value, clean)
    return _exception(value, clean) if isinstance(value, dict) else _skip(value, clean)


_sections = _items_of(_tuple_of(_text, _text))

TEST_REPORT: Mapping[str, Shape] = {
    "nodeid": _name,
    "location": _tuple_of(_text, _maybe(_integer), _text),
    "keywords": _keywords,
    "outcome": _one_of("passed", "failed", "skipped", "rerun"),  # the last by pytest-rerunfailures
    "longrepr": _longrepr,
    "when": _one_of("setup", "call", "teardown"),
    "user_properties": _items_of(_tuple_of(_name, _anything)),
    "sections": _sections,
    "duration": _number,
}

COLLECT_REPORT: Mapping[str, Shape] = {
    "nodeid": _name,
    "outcome": _one_of("failed", "skipped"),
    "longrepr": _longrepr,
    "sections": _sections,
}

#: Keys that a report may have or lack.
_OPTIONAL: Mapping[str, Shape] = {
    "wasxfail": _text,
    "smol_status": _tuple_of(_one_of("failed"), _text),  # ours: what pytest_report_teststatus makes of it
    "smol_teststatus": _status,  # ours: what this hook of a plugin that only the guest has gives
    "smol_shown": _flag,  # ours: longrepr is what an object would have shown, and plain pytest has no text
    "rerun": _count,
    SHOWN_IN_DEBUGGER: _flag,  # pytest's: a debugger showed the failure, so it is not shown again
    "_hypothesis_stats": _text,  # what --hypothesis-show-statistics shows at the end
    "_report_type": _one_of("SubTestReport"),
    "_subtest.context": _record(msg=_maybe(_text), kwargs=_properties),
}

# pytest_html/extras.py
_extra = _record(
    name=_maybe(_name),
    format_type=_one_of("html", "image", "json", "text", "url", "video"),
    content=_anything,
    mime_type=_maybe(_name),
    extension=_maybe(_suffix),
)


def _html_extra(value: Any, clean: Callable[[str], str]) -> dict[str, Any]:
    extra: dict[str, Any] = _extra(value, clean)
    if extra["format_type"] != "json":
        extra["content"] = _name(extra["content"], clean)
    return extra


#: What plugins attach to a report for themselves on the host. The names are not theirs alone, so a value of
#: another form is left out.
_ATTACHED: Mapping[str, Shape] = {"extras": _items_of(_html_extra)}


def _attached(data: Mapping[str, Any], clean: Callable[[str], str]) -> dict[str, Any]:
    result = {}
    for key in _ATTACHED.keys() & data.keys():
        with suppress(ValueError):
            result[key] = _ATTACHED[key](data[key], clean)
    return result


def checked(
    data: Mapping[str, Any], table: Mapping[str, Shape], clean: Callable[[str], str]
) -> dict[str, Any]:
    """The known keys of ``data``, each of its form and cleaned. Raises :class:`ValueError`."""
    missing = table.keys() - data.keys()
    if missing:
        raise ValueError(f"{', '.join(sorted(missing))} is missing")
    result: dict[str, Any] = {}
    for key, shape in {**table, **_OPTIONAL}.items():
        if key in data:
            try:
                result[key] = shape(data[key], clean)
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from None
    _check_agreement(result)
    _settle_category(result)
    return result | _attached(data, clean)


#: Categories that pytest's reporters treat in their own way, and whether a report has what they need for it.
_CATEGORY_NEEDS: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    "failed": lambda report: report["longrepr"] is not None,
    "error": lambda report: report["longrepr"] is not None,
    "subtests failed": lambda report: report["longrepr"] is not None,
    "skipped": lambda report: type(report["longrepr"]) is tuple,
    "subtests skipped": lambda report: type(report["longrepr"]) is tuple,
    "xfailed": lambda report: "wasxfail" in report,
    "xpassed": lambda report: "wasxfail" in report,
    "warnings": lambda report: False,
    "deselected": lambda report: False,
}

#: Before a category whose name is pytest's where the report is of another form.
_GUESTS_OWN = "guest's "


def _settle_category(report: dict[str, Any]) -> None:
    """Rename a category that pytest's reporters would take for one of theirs."""
    if "smol_teststatus" in report:
        category, letter, word = report["smol_teststatus"]
        fits = _CATEGORY_NEEDS.get(category)
        if fits is not None and not fits(report):
            report["smol_teststatus"] = (f"{_GUESTS_OWN}{category}", letter, word)


def _check_agreement(report: Mapping[str, Any]) -> None:
    """Refuse what pytest's own reporters take for impossible."""
    if report["outcome"] == "failed" and report["longrepr"] is None:
        raise ValueError("a failure needs its reason")
    if report["outcome"] == "skipped" and "wasxfail" not in report and type(report["longrepr"]) is not tuple:
        raise ValueError("a skip needs its place and reason")
    if "smol_shown" in report and not isinstance(report["longrepr"], str):
        raise ValueError("what an object showed needs its text")
    if ("_report_type" in report) != ("_subtest.context" in report):
        raise ValueError("a subtest needs its context")
