"""The host's tree from a guest's rows: as the guest collected it, or a protocol error."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_smol.errors import ProtocolError
from pytest_smol.guest.session.collection import CollectedTree
from pytest_smol.marker import Mark
from pytest_smol.reports import nodes
from pytest_smol.reports.nodes import GuestCollector, GuestItem, NodeTable
from pytest_smol.reports.text import clean

SUITE = """
import pytest
pytestmark = pytest.mark.smol(memory=300)

class TestClass:
    "A class."
    @pytest.mark.xfail
    def test_method(self): "A method."

@pytest.mark.parametrize("value", ["a::b", "[x]", "with space", "A::()"])
def test_function(value): pass
"""

MODULE: dict[str, Any] = {
    "parent": None,
    "kind": "Module",
    "place": "module",
    "name": "a.py",
    "nodeid": "a.py",
    "path": "/p/a.py",
    "doc": None,
}


def function(number: object = 0, parent: object = 0, **changes: Any) -> dict[str, Any]:
    item = {"number": number, "location": ["a.py", 1, "test"], "keywords": ["slow"], "marks": []}
    row = {**MODULE, "kind": "Function", "place": "test", "name": "test", "nodeid": f"a.py::test{number}"}
    return {**row, "parent": parent, "item": item, **changes}


def item_with(**changes: Any) -> dict[str, Any]:
    row = function()
    return {**row, "item": {**row["item"], **changes}}


def table(*rows: Any) -> NodeTable:
    made = NodeTable(clean)
    made.add(list(rows))
    return made


@pytest.fixture
def session(request: pytest.FixtureRequest) -> pytest.Session:
    return request.session


# --- a real tree


def test_the_tree_is_the_one_that_was_collected(pytester: pytest.Pytester) -> None:
    originals = pytester.getitems(SUITE)
    tree = CollectedTree()
    for item in originals:
        tree.add(item)
    made = NodeTable(clean)
    for rows in tree.batches():
        made.add(rows)
    items, collectors = made.build(originals[0].session)
    assert made.item_ids() == [item.nodeid for item in originals]
    for original, item in zip(originals, items, strict=True):
        assert (item.nodeid, item.location) == (original.nodeid, original.location)
        assert repr(item) == repr(original)
        pairs = list(zip(original.listchain(), item.listchain(), strict=True))
        assert [a.nodeid for a, _ in pairs] == [b.nodeid for _, b in pairs]
        assert [repr(a) for a, _ in pairs[1:]] == [repr(b) for _, b in pairs[1:]]
    assert [each.place for each in collectors][-2:] == ["module", "class"]


def test_markers_keywords_and_documentation_are_there(pytester: pytest.Pytester) -> None:
    originals = pytester.getitems(SUITE)
    tree = CollectedTree()
    tree.add(originals[0])
    (item,), collectors = table(*next(tree.batches())).build(originals[0].session)
    assert item.marks == (Mark("module", originals[0].nodeid.split("::")[0], {"memory": 300}),)
    assert "xfail" in item.keywords
    assert "xfail" in item.listextrakeywords()
    assert item.obj is not None
    assert item.obj.__doc__ == "A method."
    assert collectors[-1].obj is not None
    assert collectors[-1].obj.__doc__ == "A class."


def test_a_test_of_a_guest_never_runs_on_the_host(session: pytest.Session) -> None:
    (item,), _ = table(MODULE, function()).build(session)
    with pytest.raises(RuntimeError, match="never run on the host"):
        item.runtest()


def test_items_stand_by_their_number(session: pytest.Session) -> None:
    made = table(MODULE, function(1), function(0))
    assert made.item_ids() == ["a.py::test0", "a.py::test1"]
    assert [item.nodeid for item in made.build(session)[0]] == made.item_ids()


def test_an_id_that_pytest_refuses_is_a_protocol_error(session: pytest.Session) -> None:
    """Until 9.0 pytest asserts that no id it is given has this in it; later ones take it."""
    refuses = "::()" in inspect.getsource(pytest.Item.__mro__[1].__init__)
    made = table(MODULE, function(nodeid="a.py::()::test"))
    try:
        items, _ = made.build(session)
    except ProtocolError:
        assert refuses
    else:
        assert not refuses
        assert items[0].nodeid == "a.py::()::test"


def test_one_node_id_may_stand_for_several_tests(session: pytest.Session) -> None:
    made = table(MODULE, function(0, nodeid="a.py::t"), function(1, nodeid="a.py::t"))
    items, _ = made.build(session)
    assert [item.number for item in items] == [0, 1]
    assert made.item_ids() == ["a.py::t", "a.py::t"]


def test_rows_may_come_in_any_number_of_messages(session: pytest.Session) -> None:
    made = NodeTable(clean)
    for row in (MODULE, function(0), function(1)):
        made.add([row])
    items, collectors = made.build(session)
    assert [item.parent for item in items] == collectors * 2


def test_all_text_is_cleaned(session: pytest.Session) -> None:
    evil = "\x1b[2J"
    item = {
        "number": 0,
        "location": [evil, None, evil],
        "keywords": [evil],
        "marks": [{"place": "test", "nodeid": evil, "kwargs": {evil: 1}}],
    }
    row = function(name=evil, nodeid=evil, kind=evil, path=evil, doc=evil, item=item)
    (made,), _ = table(MODULE, row).build(session)
    texts = [repr(made), made.nodeid, str(made.path), *map(str, made.location), *made.extra_keyword_matches]
    texts += [str(made.obj.__doc__), *map(str, made.keywords), str(made.marks)]
    assert "\x1b" not in "".join(texts)


def test_a_path_that_cannot_be_looked_for_is_not_there(session: pytest.Session) -> None:
    """pytest does for each test, for the hooks of the conftest files next to it."""
    (made,), _ = table(MODULE, function(path="/" + "x" * 4000)).build(session)
    assert not made.path.is_file()
    assert made.ihook is not None
    with pytest.raises(FileNotFoundError):
        made.path.stat()


# --- what makes no tree

WRONG: dict[str, list[Any]] = {
    "no row": [None],
    "a row that is a text": ["row"],
    "a row that is a list": [[]],
    "an empty row": [{}],
    "a parent that comes later": [{**MODULE, "parent": 1}, MODULE],
    "its own parent": [MODULE, {**MODULE, "parent": 1}],
    "a negative parent": [MODULE, {**MODULE, "parent": -1}],
    "a parent that is a fraction": [MODULE, MODULE, {**MODULE, "parent": 0.5}],
    "a parent that is a truth": [MODULE, {**MODULE, "parent": False}],
    "a parent that is a text": [MODULE, {**MODULE, "parent": "0"}],
    "a parent that is a test": [MODULE, function(), function(1, parent=1)],
    "a name": [{**MODULE, "name": None}],
    "a node id": [{**MODULE, "nodeid": 1}],
    "a path": [{**MODULE, "path": ["/"]}],
    "a path that is too long": [{**MODULE, "path": "/a" * 2048}],
    "a kind": [{**MODULE, "kind": {}}],
    "a documentation": [{**MODULE, "doc": 1}],
    "a place": [{**MODULE, "place": "package"}],
    "a place's form": [{**MODULE, "place": ["module"]}],
    "no item": [function(item=None)],
    "an item that is a list": [function(item=[])],
    "a number": [item_with(number="0")],
    "a number that is a truth": [item_with(number=False)],
    "a location": [item_with(location=None)],
    "a short location": [item_with(location=["a.py", 1])],
    "a line": [item_with(location=["a.py", 1.5, "t"])],
    "a line beyond 32 bits": [item_with(location=["a.py", 1 << 31, "t"])],
    "a line below 32 bits": [item_with(location=["a.py", -(1 << 31) - 1, "t"])],
    "a location's path": [item_with(location=[1, 1, "t"])],
    "keywords": [item_with(keywords=None)],
    "a keyword": [item_with(keywords=[1])],
    "marks": [item_with(marks=3)],
    "a mark": [item_with(marks=["smol"])],
    "a mark's place": [item_with(marks=[{"place": "x", "nodeid": "", "kwargs": {}}])],
    "a mark's arguments": [item_with(marks=[{"place": "test", "nodeid": "", "kwargs": []}])],
    "a mark's node": [item_with(marks=[{"place": "test", "nodeid": None, "kwargs": {}}])],
}


@pytest.mark.parametrize(
    "rows", [[MODULE, *rows] if rows[0] is not MODULE else rows for rows in WRONG.values()], ids=WRONG
)
def test_what_makes_no_tree_is_a_protocol_error(rows: list[Any]) -> None:
    with pytest.raises(ProtocolError, match="a node that is none"):
        table(*rows)


@pytest.mark.parametrize("numbers", [[1], [0, 2], [0, 0], [-1, 0], [0, 1, 1], [10**19]])
def test_numbers_have_to_be_complete(numbers: list[int], session: pytest.Session) -> None:
    made = table(MODULE, *map(function, numbers))
    with pytest.raises(ProtocolError, match="numbered"):
        made.item_ids()
    with pytest.raises(ProtocolError, match="numbered"):
        made.build(session)


def chain(length: int) -> list[dict[str, Any]]:
    """So many collectors, each within the one before, and a test in the last."""
    rows = [{**MODULE, "parent": number - 1 if number else None} for number in range(length)]
    return [*rows, function(parent=length - 1)]


def test_nodes_may_be_nested_as_deep_as_directories_are(session: pytest.Session) -> None:
    (item,), _ = table(*chain(nodes.MAX_DEPTH - 1)).build(session)
    assert "absent" not in item.keywords


def test_a_guest_cannot_nest_nodes_without_end() -> None:
    """pytest walks parents recursively."""
    with pytest.raises(ProtocolError, match="nested"):
        table(*chain(nodes.MAX_DEPTH))


def test_a_guest_cannot_announce_nodes_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "MAX_NODES", 3)
    made = table(MODULE, function(0))
    with pytest.raises(ProtocolError, match="more than 3"):
        made.add([function(1), function(2)])


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in inner for place in _places(each, (*path, key)))]


ROWS = [MODULE, item_with(marks=[{"place": "test", "nodeid": "a", "kwargs": {"memory": 300}}])]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(path=st.sampled_from(_places(ROWS)[1:]), value=json_values)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_strange_value_anywhere_is_a_tree_or_a_protocol_error(
    session: pytest.Session, path: tuple[Any, ...], value: Any
) -> None:
    rows: Any = copy.deepcopy(ROWS)
    holder = rows
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    try:
        items, collectors = table(*rows).build(session)
    except ProtocolError:
        return
    assert all(isinstance(item, GuestItem) for item in items)
    assert all(isinstance(collector, GuestCollector) for collector in collectors)
