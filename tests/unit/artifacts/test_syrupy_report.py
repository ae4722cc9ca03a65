"""A guest's report for syrupy: what it may name, and what several make together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_smol.artifacts.plugins.syrupy_report import checked_report, merged


def a_report(**changes: Any) -> dict[str, Any]:
    return {
        "collections": {},
        "num_xfails": 0,
        "selected": {},
        "extensions": {},
        "collected": [],
        "collected_modules": [],
        **changes,
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "__snapshots__/deep").mkdir(parents=True)
    for name in ("__snapshots__/a.ambr", "__snapshots__/deep/b.json", "conftest.py"):
        (root / name).write_text("x")
    (tmp_path / "outside").write_text("x")
    (root / "__snapshots__/link").symlink_to(tmp_path / "outside")
    (root / "__snapshots__/way").symlink_to(tmp_path)
    return root


def discovered(root: Path, *places: str) -> list[str]:
    data = a_report(collections={"discovered": {place: ["name"] for place in places}})
    found = checked_report(data, root, "__snapshots__")["collections"]["discovered"]
    return list(found)


def test_only_snapshots_are_found(root: Path) -> None:
    good = [f"{root}/__snapshots__/a.ambr", f"{root}/__snapshots__/deep/b.json"]
    bad = [
        f"{root}/conftest.py",
        f"{root}/__snapshots__/link",
        f"{root}/__snapshots__/way/outside",
        f"{root}/__snapshots__/../conftest.py",
        f"{root}/__snapshots__/../../outside",
        f"{root}/__snapshots__",
        f"{root}/__snapshots__/missing",
        f"{root}/__snapshots__/{'x' * 300}",
        "__snapshots__/a.ambr",
        "/etc/passwd",
    ]
    assert discovered(root, *good, *bad) == good


@pytest.mark.parametrize(
    "name", ["os.system", "syrupy.evil", "syrupy.extensions.x.y;z", "", "syrupy.utils.env"]
)
def test_no_other_module_is_named(root: Path, name: str) -> None:
    report = checked_report(a_report(extensions={"a": name}), root, "__snapshots__")
    assert report["extensions"] == {}


def test_extensions_of_its_own_are_named(root: Path) -> None:
    name = "syrupy.extensions.amber.AmberSnapshotExtension"
    report = checked_report(a_report(extensions={"a": name}), root, "__snapshots__")
    assert report["extensions"] == {"a": name}


@pytest.mark.parametrize(
    "changes",
    [
        {"collections": []},
        {"collections": {"used": []}},
        {"collections": {"used": {"a": "b"}}},
        {"collections": {"used": {"a": ["b\x1b"]}}},
        {"num_xfails": "1"},
        {"num_xfails": True},
        {"num_xfails": -1},
        {"num_xfails": 2**63},
        {"selected": {"a": 0}},
        {"selected": {"a": ["passed"]}},
        {"collections": {"used": {"a\0": []}}},
        {"collections": {"used": {"\ud800": []}}},
        {"collections": None},
        {"extensions": {"a": "x" * 10_000_000}},
        {"selected": {"a": "great"}},
        {"selected": {"a\n": "passed"}},
        {"extensions": {"a": 1}},
        {"collected": [{}]},
        {"collected": [1]},
        {"collected": 1},
        {"collected_modules": [1]},
    ],
)
def test_what_is_no_report(root: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        checked_report(a_report(**changes), root, "__snapshots__")


def test_reports_are_merged() -> None:
    one = a_report(
        collections={"used": {"f": ["a"]}},
        num_xfails=1,
        selected={"t1": "passed", "t2": False},
        collected=[{"nodeid": "t1"}],
        collected_modules=["b"],
    )
    other = a_report(
        collections={"used": {"f": ["b", "a"]}},
        num_xfails=2,
        selected={"t1": False, "t2": "skipped"},
        extensions={"f": "x"},
        collected_modules=["a"],
    )
    whole = merged([one, other])
    assert whole["collections"]["used"] == {"f": ["a", "b"]}
    assert whole["num_xfails"] == 3
    assert whole["selected"] == {"t1": "passed", "t2": "skipped"}
    assert whole["extensions"] == {"f": "x"}
    assert whole["collected"] == [{"nodeid": "t1"}]
    assert whole["collected_modules"] == ["a", "b"]
