"""Reports rebuilt on the host: as pytest made them in the guest, but for what the host owns."""

from __future__ import annotations

import builtins
import os
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_smol.errors import MachineDied, ProtocolError
from pytest_smol.reports.builder import ReportBuilder
from tests.unit.report_samples import SUITE, exception, passed, run


@pytest.fixture
def item(request: pytest.FixtureRequest) -> pytest.Item:
    node: pytest.Item = request.node
    return node


@pytest.fixture
def builder(item: pytest.Item, monkeypatch: pytest.MonkeyPatch) -> ReportBuilder:
    monkeypatch.setattr(item.config.get_terminal_writer(), "hasmarkup", False)
    return ReportBuilder(item.config)


def shown(report: Any) -> str:
    """What a terminal would show of a report."""
    return str(report.longreprtext)


def build(builder: ReportBuilder, item: pytest.Item, data: dict[str, Any], longest: float = 60) -> Any:
    return builder.test_report(item, data, longest)


# --- as the guest's pytest made them


def test_reports_are_those_of_the_guest(
    pytester: pytest.Pytester, item: pytest.Item, builder: ReportBuilder
) -> None:
    reports = run(pytester, SUITE)
    assert {report.outcome for report, _ in reports} == {"passed", "failed", "skipped"}
    for original, data in reports:
        rebuilt = build(builder, item, data)
        for name in ("outcome", "when", "sections", "duration"):
            assert getattr(rebuilt, name) == getattr(original, name)
        assert [list(pair) for pair in original.user_properties] == [
            list(pair) for pair in rebuilt.user_properties
        ]
        assert shown(rebuilt) == builder.clean(shown(original))
        assert getattr(rebuilt, "wasxfail", None) == getattr(original, "wasxfail", None)
        assert type(rebuilt).__name__ == type(original).__name__


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="reports of subtests came with pytest 9.0")
def test_a_subtest_keeps_its_context(
    pytester: pytest.Pytester, item: pytest.Item, builder: ReportBuilder
) -> None:
    found = [(original, build(builder, item, data)) for original, data in run(pytester, SUITE)]
    contexts = [(a.context, b.context) for a, b in found if hasattr(a, "context")]
    assert contexts
    for original, rebuilt in contexts:
        assert original == rebuilt


def test_the_crash_of_a_chain_is_the_last_one(
    pytester: pytest.Pytester, item: pytest.Item, builder: ReportBuilder
) -> None:
    (data,) = [
        data for report, data in run(pytester, SUITE) if "test_fails" in report.nodeid and report.failed
    ]
    longrepr = build(builder, item, data).longrepr
    assert [link[2] for link in longrepr.chain][:-1] != [None]
    assert "RuntimeError: chained" in longrepr.reprcrash.message


# --- what the host owns


def test_the_host_decides_which_test_it_was(item: pytest.Item, builder: ReportBuilder) -> None:
    forged = passed(
        nodeid="other.py::test", location=["other.py", 9, "other"], **{"$report_type": "CollectReport"}
    )
    report = build(builder, item, forged)
    assert isinstance(report, pytest.TestReport)
    assert (report.nodeid, report.location) == (item.nodeid, item.location)


@pytest.mark.parametrize(("claimed", "counted"), [(0.5, 0.5), (1e300, 2.0), (-3, 0.0), (1 << 62, 2.0)])
def test_no_test_took_longer_than_the_host_waited(
    item: pytest.Item, builder: ReportBuilder, claimed: float, counted: float
) -> None:
    report = build(builder, item, passed(duration=claimed), longest=2.0)
    assert report.duration == counted
    assert report.stop - report.start == pytest.approx(counted)


def test_keywords_are_those_of_both_sides(item: pytest.Item, builder: ReportBuilder) -> None:
    report = build(builder, item, passed(keywords={"slow": 1}))
    assert {"slow", item.name} <= report.keywords.keys()
    assert set(report.keywords.values()) == {1}


@pytest.mark.parametrize("data", [{}, passed(outcome="x"), passed(_report_type="SubTestReport")])
def test_what_is_no_report_is_a_protocol_error(
    item: pytest.Item, builder: ReportBuilder, data: dict[str, Any]
) -> None:
    with pytest.raises(ProtocolError, match="a report that is none"):
        build(builder, item, data)


@pytest.mark.parametrize(
    ("outcome", "longrepr"),
    [("failed", "reprcrash reprtraceback"), ("skipped", ["reprcrash", 1, "reprtraceback"]), ("failed", "")],
)
def test_texts_are_never_taken_for_exceptions(
    item: pytest.Item, builder: ReportBuilder, outcome: str, longrepr: Any
) -> None:
    report = build(builder, item, passed(outcome=outcome, longrepr=longrepr))
    assert report.longrepr == (tuple(longrepr) if isinstance(longrepr, list) else longrepr)


def test_what_is_shown_is_clean(item: pytest.Item, builder: ReportBuilder) -> None:
    data = passed(
        outcome="failed", longrepr=exception(sections=[["\x1b[2J", "\x07", "-"]]), sections=[["a", "\x1bc"]]
    )
    report = build(builder, item, data)
    assert "\x1b" not in shown(report) + report.sections[0][1]
    assert "^[[2J" in shown(report)


# --- collect reports


@pytest.mark.parametrize(
    "source", ["import nothing_of_that_name", "import pytest; pytest.skip('x', allow_module_level=True)"]
)
def test_collect_reports_are_those_of_the_guest(
    pytester: pytest.Pytester, builder: ReportBuilder, source: str
) -> None:
    original, data = run(pytester, source)[0]
    rebuilt = builder.collect_report(data)
    assert isinstance(rebuilt, pytest.CollectReport)
    assert (rebuilt.nodeid, rebuilt.outcome, rebuilt.result) == (original.nodeid, original.outcome, [])
    assert shown(rebuilt) == shown(original)


def test_a_forged_collect_report_is_a_protocol_error(builder: ReportBuilder) -> None:
    with pytest.raises(ProtocolError, match="a collect report that is none"):
        builder.collect_report({"nodeid": "a.py", "outcome": "passed", "longrepr": None, "sections": []})


# --- crashes


def test_a_crash_is_a_failure_with_its_cause(item: pytest.Item, builder: ReportBuilder) -> None:
    error = MachineDied("the guest \x1b[31m rebooted itself", evidence="qemu: bad", remedy="do not")
    report: Any = builder.crash_report(item, "call", error, [("Captured guest console", "\x07panic")], 1.5)
    assert (report.outcome, report.when, report.duration) == ("failed", "call", 1.5)
    assert report.longrepr.reprcrash.message == "the guest ^[[31m rebooted itself"
    assert report.longrepr.reprcrash.lineno == (item.location[1] or 0) + 1
    assert shown(report).splitlines() == ["the guest ^[[31m rebooted itself", "qemu: bad", "hint: do not"]
    assert report.sections == [("Captured guest console", "^Gpanic")]


def test_a_crash_is_followed_by_an_empty_teardown(item: pytest.Item, builder: ReportBuilder) -> None:
    report = builder.passed_teardown(item)
    assert (report.outcome, report.when, report.nodeid) == ("passed", "teardown", item.nodeid)
    assert report.longrepr is None


# --- warnings


def relayed(**changes: Any) -> dict[str, Any]:
    """What pytest is told of a warning with ``changes``, and the text that it would show."""
    message = {
        "text": "careful",
        "category": "UserWarning",
        "filename": "a.py",
        "lineno": 3,
        "line": "warn()",
        "when": "runtest",
        "nodeid": "a.py::test",
        "location": None,
    }
    calls: list[dict[str, Any]] = []

    def call_historic(kwargs: dict[str, Any]) -> None:
        calls.append(kwargs)

    hook = SimpleNamespace(call_historic=call_historic)
    config: Any = SimpleNamespace(
        get_terminal_writer=lambda: SimpleNamespace(hasmarkup=False),
        hook=SimpleNamespace(pytest_warning_recorded=hook),
    )
    ReportBuilder(config).relay_warning({**message, **changes})
    (found,) = calls
    caught = found.pop("warning_message")
    shown = (str(caught.message), caught.category, caught.filename, caught.lineno, caught.line)
    return {**found, "text": warnings.formatwarning(*shown), "kind": caught.category}


def test_a_warning_is_recorded_on_the_host() -> None:
    found = relayed(location=["a.py", 3, "test"])
    assert found == {
        "text": "a.py:3: UserWarning: careful\n  warn()\n",
        "kind": UserWarning,
        "when": "runtest",
        "nodeid": "a.py::test",
        "location": ("a.py", 3, "test"),
    }


def test_the_host_reads_no_file_that_a_guest_names(tmp_path: Path) -> None:
    secret = tmp_path / "secret.py"
    secret.write_text("PASSWORD = 1\n")
    os.mkfifo(tmp_path / "endless")
    assert "PASSWORD" not in relayed(filename=str(secret), lineno=1, line="")["text"]
    assert relayed(filename=str(tmp_path / "endless"), line="")["text"]


@pytest.mark.parametrize(
    "name", [n for n in {**vars(builtins), **vars(pytest)} if n.endswith("Warning") and n != "Warning"]
)
def test_known_categories_are_the_hosts_own(name: str) -> None:
    expected = getattr(builtins, name, None) or getattr(pytest, name)
    assert relayed(category=name)["kind"] is expected


@pytest.mark.parametrize(
    "name", ["MyWarning", "int", "print", "SystemExit", "fixture", "", "\x00\x1b", "\ud800", "x" * 1000]
)
def test_other_categories_have_an_empty_stand_in(name: str) -> None:
    kind = relayed(category=name)["kind"]
    assert kind.__mro__[1:] == Warning.__mro__
    assert "\x1b" not in kind.__name__
    assert len(kind.__name__) <= 100


def test_a_warnings_texts_are_cleaned() -> None:
    evil = "\x1b[2J"
    location = [evil, 1, evil]
    found = relayed(text=evil, filename=evil, line=evil, nodeid=evil, location=location, when=evil)
    assert "\x1b" not in str(found["text"] + found["nodeid"]) + "".join(map(str, found["location"]))
    assert found["when"] == "runtest"


def test_colours_are_kept_where_the_terminal_has_them(
    item: pytest.Item, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = item.config.get_terminal_writer()
    monkeypatch.setattr(writer, "hasmarkup", True)
    assert ReportBuilder(item.config).clean("\x1b[31mred\x1b[0m\x07") == "\x1b[31mred\x1b[0m^G"
    monkeypatch.setattr(writer, "hasmarkup", False)
    assert ReportBuilder(item.config).clean("\x1b[31m") == "^[[31m"
