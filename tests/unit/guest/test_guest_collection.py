"""The rows in which a guest sends what it collected."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_smol.errors import SettingError
from pytest_smol.guest.session import collection
from pytest_smol.guest.session.collection import CollectedTree

SUITE = """
import pytest

class TestOne:
    def test_a(self): pass
    def test_b(self): pass

@pytest.mark.smol(scope="test")
@pytest.mark.xfail
def test_c():
    "What it does."
"""


def rows_of(items: list[pytest.Item]) -> list[dict[str, Any]]:
    tree = CollectedTree()
    for item in items:
        tree.add(item)
    return [row for batch in tree.batches() for row in batch]


def test_parents_come_first_and_each_once(pytester: pytest.Pytester) -> None:
    rows = rows_of(pytester.getitems(SUITE))
    assert [row["kind"] for row in rows if row["kind"] != "Dir"] == [
        "Module",
        "Class",
        "Function",
        "Function",
        "Function",
    ]
    for index, row in enumerate(rows):
        assert row["parent"] is None or row["parent"] < index
    assert rows[0]["parent"] is None
    assert [row["item"]["number"] for row in rows if "item" in row] == [0, 1, 2]


def test_a_row_says_all_that_the_host_shows(pytester: pytest.Pytester) -> None:
    item = pytester.getitems(SUITE)[2]
    row = rows_of([item])[-1]
    module = item.nodeid.split("::")[0]
    assert {key: row[key] for key in ("kind", "place", "name", "nodeid", "path", "doc")} == {
        "kind": "Function",
        "place": "test",
        "name": "test_c",
        "nodeid": f"{module}::test_c",
        "path": str(item.path),
        "doc": "What it does.",
    }
    assert row["item"]["location"] == [module, 6, "test_c"]
    assert {"smol", "xfail", "test_c"} <= set(row["item"]["keywords"])
    assert row["item"]["marks"] == [{"place": "test", "nodeid": row["nodeid"], "kwargs": {"scope": "test"}}]


def test_numbers_are_given_once_and_in_the_order_met(pytester: pytest.Pytester) -> None:
    a, b, c = pytester.getitems(SUITE)
    tree = CollectedTree()
    tree.add(b)
    tree.add(b)
    assert [tree.number(item) for item in (a, b, c, a)] == [1, 0, 2, 1]
    assert tree.items == [b, a, c]


def test_many_rows_go_in_several_batches(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection, "BATCH", 2)
    items = pytester.getitems("import pytest\n@pytest.mark.parametrize('n', range(7))\ndef test_n(n): pass")
    tree = CollectedTree()
    for item in items:
        tree.add(item)
    batches = list(tree.batches())
    assert len(batches) > 2
    numbers = [row["item"]["number"] for batch in batches for row in batch if "item" in row]
    assert numbers == list(range(7))


def test_nothing_collected_is_no_batch() -> None:
    assert list(CollectedTree().batches()) == []


def test_a_long_documentation_is_cut(pytester: pytest.Pytester) -> None:
    item = pytester.getitem(f"def test_x(): '''{'x' * 10_000}'''", "test_x")
    assert len(rows_of([item])[-1]["doc"]) == 2000


def test_a_wrong_marker_is_named_in_the_guest_too(pytester: pytest.Pytester) -> None:
    item = pytester.getitem("import pytest\n@pytest.mark.smol(1)\ndef test_x(): pass", "test_x")
    with pytest.raises(SettingError, match="test_x"):
        rows_of([item])


def test_an_item_that_gets_another_id_keeps_its_number() -> None:
    class Renamed:
        hash = 1

        def __hash__(self) -> int:
            return self.hash

    item: Any = Renamed()
    tree = CollectedTree()
    tree.add(item)
    item.hash = 2
    assert (tree.number(item), len(tree.items)) == (0, 1)
