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
from pytest_smol.reports.field_shapes import (
    Shape,
    anything,
    count,
    fields,
    flag,
    integer,
    items_of,
    maybe,
    name,
    number,
    one_of,
    record,
    text,
    tuple_of,
)
from pytest_smol.reports.text import encodable

__all__ = ["COLLECT_REPORT", "TEST_REPORT", "checked"]


def _separator(value: Any, clean: Callable[[str], str]) -> str:
    """The character of a line that separates sections: the terminal writer divides by its length."""
    if not isinstance(value, str) or len(value) != 1 or not " " <= value <= "~":
        raise ValueError("one printable ASCII character is expected")
    return value


def _suffix(value: Any, clean: Callable[[str], str]) -> str:
    """The end of a file's name, of which no path can be made."""
    suffix = text(value, clean)
    if not re.fullmatch(r"[A-Za-z0-9]{1,10}(\.[A-Za-z0-9]{1,10})?", suffix):
        raise ValueError("a file's extension is expected")
    return suffix


#: The most characters of a word that stands for an outcome.
_MOST_STATUS = 100


def _word(value: Any, clean: Callable[[str], str]) -> str:
    return name(value, clean).replace("\n", " ")[:_MOST_STATUS]


def _markup(value: Any, clean: Callable[[str], str]) -> dict[str, bool]:
    """The names that pytest's TerminalWriter knows; for any other it raises."""
    if not isinstance(value, dict):
        raise ValueError("markup is an object")
    return {name: bool(on) for name, on in value.items() if name in known_markup()}


def _status(value: Any, clean: Callable[[str], str]) -> tuple[Any, ...]:
    """What ``pytest_report_teststatus`` gives: category, letter, and a word or a word with its markup."""
    marked = isinstance(value, list) and len(value) == 3 and isinstance(value[2], list)
    status: tuple[Any, ...] = tuple_of(_word, _word, tuple_of(_word, _markup) if marked else _word)(
        value, clean
    )
    return status


def _properties(value: Any, clean: Callable[[str], str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"an object is expected, not {type(value).__name__}")
    return {clean(key): anything(each, clean) for key, each in value.items()}


def _keywords(value: Any, clean: Callable[[str], str]) -> dict[str, int]:
    if not isinstance(value, dict):
        raise ValueError("keywords are an object")
    return {encodable(clean(key)): 1 for key in value}


# _pytest/_code/code.py: ReprFileLocation, ReprEntry, ReprEntryNative, ReprTraceback, ExceptionChainRepr
_location = record(path=text, lineno=integer, message=text)
_entry = record(
    lines=items_of(text),
    reprfuncargs=maybe(record(args=items_of(tuple_of(text, text)))),
    reprlocals=maybe(record(lines=items_of(text))),
    reprfileloc=maybe(_location),
    style=one_of("long", "short", "line", "no", "native", "value", "auto"),
)
_native_entry = record(lines=items_of(text))


def _any_entry(value: Any, clean: Callable[[str], str]) -> dict[str, Any]:
    shapes: Mapping[str, Shape] = {"ReprEntry": _entry, "ReprEntryNative": _native_entry}
    if not isinstance(value, dict) or value.keys() != {"type", "data"}:
        raise ValueError("an entry of a traceback is expected")
    kind = one_of(*shapes)(value["type"], clean)
    data = value["data"]
    if kind == "ReprEntryNative" and isinstance(data, dict):
        data = {"lines": data.get("lines")}
    return {"type": kind, "data": shapes[kind](data, clean)}


_traceback = record(reprentries=items_of(_any_entry), extraline=maybe(text), style=text)
_exception = record(
    reprcrash=maybe(_location),
    reprtraceback=_traceback,
    sections=items_of(tuple_of(text, text, _separator)),
    chain=maybe(items_of(tuple_of(_traceback, maybe(_location), maybe(text)))),
)
_skip = tuple_of(text, integer, text)


def _longrepr(value: Any, clean: Callable[[str], str]) -> Any:
    if value is None or isinstance(value, str):
        return maybe(text)(value, clean)
    return _exception(value, clean) if isinstance(value, dict) else _skip(value, clean)


_sections = items_of(tuple_of(text, text))

TEST_REPORT: Mapping[str, Shape] = {
    "nodeid": name,
    "location": tuple_of(text, maybe(integer), text),
    "keywords": _keywords,
    "outcome": one_of("passed", "failed", "skipped", "rerun"),  # the last by pytest-rerunfailures
    "longrepr": _longrepr,
    "when": one_of("setup", "call", "teardown"),
    "user_properties": items_of(tuple_of(name, anything)),
    "sections": _sections,
    "duration": number,
}

COLLECT_REPORT: Mapping[str, Shape] = {
    "nodeid": name,
    "outcome": one_of("failed", "skipped"),
    "longrepr": _longrepr,
    "sections": _sections,
}

#: Keys that a report may have or lack.
_OPTIONAL: Mapping[str, Shape] = {
    "wasxfail": text,
    "smol_status": tuple_of(one_of("failed"), text),  # ours: what pytest_report_teststatus makes of it
    "smol_teststatus": _status,  # ours: what this hook of a plugin that only the guest has gives
    "smol_shown": flag,  # ours: longrepr is what an object would have shown, and plain pytest has no text
    "rerun": count,
    SHOWN_IN_DEBUGGER: flag,  # pytest's: a debugger showed the failure, so it is not shown again
    "_hypothesis_stats": text,  # what --hypothesis-show-statistics shows at the end
    "_report_type": one_of("SubTestReport"),
    "_subtest.context": record(msg=maybe(text), kwargs=_properties),
}

# pytest_html/extras.py
_extra = record(
    name=maybe(name),
    format_type=one_of("html", "image", "json", "text", "url", "video"),
    content=anything,
    mime_type=maybe(name),
    extension=maybe(_suffix),
)


def _html_extra(value: Any, clean: Callable[[str], str]) -> dict[str, Any]:
    extra: dict[str, Any] = _extra(value, clean)
    if extra["format_type"] != "json":
        extra["content"] = name(extra["content"], clean)
    return extra


#: What plugins attach to a report for themselves on the host. The names are not theirs alone, so a value of
#: another form is left out.
_ATTACHED: Mapping[str, Shape] = {"extras": items_of(_html_extra)}


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
    result = fields(data, {**table, **_OPTIONAL}, clean)
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
