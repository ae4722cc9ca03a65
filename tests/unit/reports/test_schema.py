"""The table that a guest's reports are checked against."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_smol.reports.schema import COLLECT_REPORT, TEST_REPORT, checked
from pytest_smol.reports.text import clean
from tests.unit.report_samples import SUITE, exception, passed, run

TRACEBACK = exception()["reprtraceback"]
#: Words of the tables themselves.
KEPT = {"-", "failed", "call", "native", "ReprEntryNative", "SubTestReport"}
SKIP = ["a.py", 3, "Skipped: x"]


def check(data: dict[str, Any]) -> dict[str, Any]:
    return checked(data, TEST_REPORT, clean)


def failed(**changes: Any) -> dict[str, Any]:
    return passed(outcome="failed", longrepr=exception(**changes))


def entry(kind: object = "ReprEntry", **changes: Any) -> dict[str, Any]:
    data = {"lines": ["x"], "reprfuncargs": None, "reprlocals": None, "reprfileloc": None, "style": "long"}
    return failed(reprtraceback={**TRACEBACK, "reprentries": [{"type": kind, "data": {**data, **changes}}]})


# --- what pytest makes


def kept(value: Any) -> Any:
    """``value`` in the form in which it was sent: lists for tuples."""
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("style", ["long", "short", "line", "native", "no", "auto"])
def test_all_that_pytest_reports_passes_unchanged(pytester: pytest.Pytester, style: str) -> None:
    for report, data in run(pytester, SUITE, f"--tb={style}", "--showlocals"):
        found = kept(checked(data, TEST_REPORT, str))
        assert found == {key: data[key] for key in found}, report


def test_broken_modules_are_reported_unchanged(pytester: pytest.Pytester) -> None:
    source = "import pytest; pytest.skip('x', allow_module_level=True)"
    ((_, skipped),) = run(pytester, source)
    assert kept(checked(skipped, COLLECT_REPORT, str))["longrepr"] == skipped["longrepr"]
    (_, broken) = run(pytester, "import nothing_of_that_name")[0]
    assert kept(checked(broken, COLLECT_REPORT, str))["longrepr"] == broken["longrepr"]


# --- what is refused

WRONG = {
    "an outcome": passed(outcome="errored"),
    "an outcome's form": passed(outcome=["passed"]),
    "a phase": passed(when="collect"),
    "a phase's form": passed(when=None),
    "a duration": passed(duration="1"),
    "a duration that is a truth": passed(duration=True),
    "a node id": passed(nodeid=None),
    "keywords": passed(keywords=["test"]),
    "a location": passed(location=["a.py", 1]),
    "a location's line": passed(location=["a.py", "1", "test"]),
    "a longer location": passed(location=["a.py", 1, "test", 2]),
    "sections": passed(sections={"out": "x"}),
    "a section": passed(sections=[["out", "x", "y"]]),
    "a section's text": passed(sections=[["out", 1]]),
    "properties": passed(user_properties=[["name"]]),
    "a property's name": passed(user_properties=[[1, 2]]),
    "an xfail's reason": passed(wasxfail=None),
    "a number of reruns": passed(rerun="1"),
    "a kind of report": passed(_report_type="Other", **{"_subtest.context": {"msg": None, "kwargs": {}}}),
    "a subtest without its context": passed(_report_type="SubTestReport"),
    "a context without its subtest": passed(**{"_subtest.context": {"msg": None, "kwargs": {}}}),
    "a context": passed(_report_type="SubTestReport", **{"_subtest.context": {"msg": "x", "kwargs": []}}),
    "a failure without reason": passed(outcome="failed"),
    "a skip without reason": passed(outcome="skipped"),
    "a skip with a text": passed(outcome="skipped", longrepr="why"),
    "what an object showed of a skip": passed(outcome="skipped", longrepr=SKIP, smol_shown=True),
    "what an object showed of nothing": passed(smol_shown=True),
    "what an object showed of an exception": {**failed(), "smol_shown": True},
    "a skip's line": passed(outcome="skipped", longrepr=["a.py", "3", "x"]),
    "a longer skip": passed(outcome="skipped", longrepr=[*SKIP, 1]),
    "a number for an exception": passed(outcome="failed", longrepr=3),
    "an empty exception": passed(outcome="failed", longrepr={}),
    "an exception with more": failed(more=1),
    "a crash": failed(reprcrash={"path": "a", "lineno": 1}),
    "a crash's line": failed(reprcrash={"path": "a", "lineno": None, "message": ""}),
    "no traceback": failed(reprtraceback=None),
    "a traceback's entries": failed(reprtraceback={**TRACEBACK, "reprentries": None}),
    "a traceback's style": failed(reprtraceback={**TRACEBACK, "style": None}),
    "an entry": failed(reprtraceback={**TRACEBACK, "reprentries": ["x"]}),
    "an entry's kind": entry(kind="ReprEntryForged"),
    "an entry's kind's form": entry(kind=[]),
    "an entry's style": entry(style="loud"),
    "an entry's lines": entry(lines="x"),
    "an entry's arguments": entry(reprfuncargs={"args": [["a"]]}),
    "an entry's locals": entry(reprlocals=["x"]),
    "an entry's place": entry(reprfileloc={}),
    "a chain": failed(chain=[[TRACEBACK, None]]),
    "a chain's link": failed(chain=[[None, None, None]]),
    "an exception's sections": failed(sections=[["a", "b"]]),
}


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_what_has_the_wrong_form_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected|object|is missing|needs"):
        check(data)


EXTRA = {"name": "Log", "format_type": "text", "content": "x", "mime_type": "text/plain", "extension": "txt"}


@pytest.mark.parametrize(
    "extra",
    [
        EXTRA,
        {**EXTRA, "format_type": "json", "content": {"a": [1, None]}},
        {**EXTRA, "name": None, "mime_type": None, "extension": None, "format_type": "html"},
        {**EXTRA, "extension": "tar.gz"},
    ],
)
def test_what_is_attached_for_a_plugin_is_handed_on(extra: dict[str, Any]) -> None:
    assert check(passed(extras=[extra, EXTRA]))["extras"] == [extra, EXTRA]


@pytest.mark.parametrize(
    "extras",
    [
        "x",
        ["x"],
        [{"name": "x"}],
        [{**EXTRA, "content": 1}],
        [{**EXTRA, "content": {}}],
        [{**EXTRA, "format_type": "script"}],
        [{**EXTRA, "extension": "/../../../x"}],
        [{**EXTRA, "extension": "x" * 300}],
        [EXTRA, {**EXTRA, "extension": "a/b"}],
    ],
)
def test_what_is_attached_in_another_form_is_left_out(extras: object) -> None:
    assert check(passed(extras=extras)) == check(passed())


def test_what_is_attached_can_be_written_to_files() -> None:
    extra = check(passed(extras=[{**EXTRA, "content": "a\ud800\x1b", "name": "\udc80"}]))["extras"][0]
    assert (extra["content"], extra["name"]) == ("a\\ud800^[", "\\udc80")


@pytest.mark.parametrize("key", TEST_REPORT)
def test_every_key_of_a_test_report_must_be_there(key: str) -> None:
    data = passed()
    del data[key]
    with pytest.raises(ValueError, match=f"{key} is missing"):
        check(data)


@pytest.mark.parametrize("outcome", ["passed", "rerun"])
def test_a_collect_report_never_says_that_it_passed(outcome: str) -> None:
    data = {"nodeid": "a.py", "outcome": outcome, "longrepr": "x", "sections": []}
    with pytest.raises(ValueError, match="outcome"):
        checked(data, COLLECT_REPORT, clean)


def test_the_key_at_fault_is_named() -> None:
    with pytest.raises(ValueError, match=r"^sections: a list is expected, not str$"):
        check(passed(sections="x"))


# --- what is kept, and what is cleaned


def test_unknown_keys_are_dropped() -> None:
    assert check(passed(plugin={"any": 1}, __class__="os.system", **{"$report_type": "x"})) == check(passed())


def test_lists_become_the_tuples_that_pytest_expects() -> None:
    found = check(passed(outcome="skipped", longrepr=SKIP, sections=[["out", "x"]]))
    assert found["longrepr"] == tuple(SKIP)
    assert found["sections"] == [("out", "x")]
    assert found["location"] == ("a.py", 1, "test")


def test_keywords_are_names_alone() -> None:
    assert check(passed(keywords={"a": {"forged": 1}, "b": None}))["keywords"] == {"a": 1, "b": 1}


@pytest.mark.parametrize("outcome", ["passed", "rerun"])
def test_an_outcome_with_its_extras_is_accepted(outcome: str) -> None:
    found = check(passed(outcome=outcome, rerun=2, wasxfail="known"))
    assert (found["outcome"], found["rerun"], found["wasxfail"]) == (outcome, 2, "known")


def test_no_string_passes_uncleaned() -> None:
    evil = "\x1b]0;owned\x07"

    def spoilt(value: Any) -> Any:
        if isinstance(value, str) and value not in KEPT:
            return value + evil
        if isinstance(value, list):
            return [spoilt(each) for each in value]
        if isinstance(value, dict):
            return {key: spoilt(each) for key, each in value.items()}
        return value

    links = [[TRACEBACK, exception()["reprcrash"], "cause"]]
    data = passed(
        outcome="failed",
        longrepr=exception(chain=links, sections=[["a", "b", "-"]]),
        keywords={f"key{evil}": 1},
        user_properties=[["name", {f"key{evil}": ["value"]}]],
        sections=[["title", "text"]],
        wasxfail="why",
        _report_type="SubTestReport",
        **{"_subtest.context": {"msg": "message", "kwargs": {f"key{evil}": "value"}}},
    )
    found = json.dumps(check(spoilt(data)))
    assert "\\u001b" not in found
    assert "^[]0;owned^G" in found


# --- properties

integers = st.integers(-(10**20), 10**20)
json_values = st.recursive(
    st.none() | st.booleans() | integers | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.fixed_dictionaries(dict.fromkeys(TEST_REPORT, json_values)))
def test_random_reports_raise_nothing_but_value_errors(data: dict[str, Any]) -> None:
    try:
        check(data)
    except ValueError:
        return


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in inner for place in _places(each, (*path, key)))]


RICH = passed(
    outcome="failed",
    longrepr=exception(
        chain=[[entry(reprfuncargs={"args": [["a", "1"]]})["longrepr"]["reprtraceback"], None, "why"]],
        sections=[["a", "b", "-"]],
    ),
    sections=[["out", "x"]],
    user_properties=[["a", [1, {"b": 2}]]],
)


@given(st.sampled_from(_places(RICH)[1:]), json_values)
def test_one_strange_value_anywhere_raises_nothing_but_value_errors(
    path: tuple[Any, ...], value: Any
) -> None:
    data = json.loads(json.dumps(RICH))
    holder = data
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    try:
        check(data)
    except ValueError:
        return
