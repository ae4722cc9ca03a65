"""What guests with one file each say, put together; what one says of other files is refused."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_smol.errors import ProtocolError
from pytest_smol.session.guests.module_tree import CollectedFile, ModuleTree


def row(nodeid: str, parent: int | None, number: int | None = None, **changes: Any) -> dict[str, Any]:
    place = "test" if number is not None else "module" if nodeid.endswith(".py") else "session"
    made = {"kind": "Node", "place": place, "name": nodeid, "nodeid": nodeid, "path": "/p", "doc": None}
    item = {} if number is None else {"item": {"number": number}}
    return {**made, "parent": parent, **item, **changes}


def file(name: str, *tests: str, **changes: Any) -> CollectedFile:
    nodeid = f"sub/{name}"
    rows = [row("sub", None), row(nodeid, 0), *(row(f"{nodeid}::{t}", 1, n) for n, t in enumerate(tests))]
    fields: dict[str, Any] = {"rows": rows, "order": list(range(len(tests)))}
    return CollectedFile(nodeid, f"/project/{nodeid}", **fields | changes)


def said(*files: CollectedFile) -> dict[str, list[Any]]:
    tree = ModuleTree()
    for each in files:
        tree.add(each)
    found: dict[str, list[Any]] = {}
    for message in tree.messages():
        found.setdefault(message["type"], []).append(message)
    return found


def test_files_are_put_together_as_one_guest_would_say_them() -> None:
    messages = said(file("a.py", "x", "y", order=[1, 0]), file("b.py", "z", deselected=[0], order=[]))
    [nodes] = messages["nodes"]
    assert [(each["nodeid"], each["parent"]) for each in nodes["rows"]] == [
        ("sub", None),
        ("sub/a.py", 0),
        ("sub/a.py::x", 1),
        ("sub/a.py::y", 1),
        ("sub/b.py", 0),
        ("sub/b.py::z", 4),
    ]
    assert [each["item"]["number"] for each in nodes["rows"] if "item" in each] == [0, 1, 2]
    [collected] = messages["collected"]
    assert (collected["items"], collected["deselected"]) == ([1, 0], [2])


def test_a_test_is_of_the_file_that_was_collected() -> None:
    """Its path is what its machines are told to collect."""
    [nodes] = said(file("a.py", "x"))["nodes"]
    assert {each["path"] for each in nodes["rows"][1:]} == {"/project/sub/a.py"}


def report(nodeid: Any) -> dict[str, Any]:
    return {"type": "collect_report", "data": {"nodeid": nodeid, "outcome": "failed"}}


FORGED = {
    "a test of another file": file("a.py", rows=[row("sub/b.py::x", None, 0)]),
    "a module of another file": file("a.py", rows=[row("sub/b.py", None)]),
    "a file whose name begins alike": file("a.py", rows=[row("sub/a.pyx::x", None, 0)]),
    "a test that is called as its directory": file("a.py", rows=[row("sub", None, 0)]),
    "the selection of a test of another file": file("a.py", "x", order=[1]),
    "the selection of no number": file("a.py", "x", order=["0"]),
    "the deselection of an earlier test": file("a.py", "x", deselected=[-1]),
    "a report of another file": file("a.py", reports=[report("sub/b.py")]),
    "a report of nothing": file("a.py", reports=[report(None)]),
    "a report without a node": file("a.py", reports=[{"type": "collect_report", "data": {}}]),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED.keys())
def test_a_guest_says_nothing_of_other_files(forged: CollectedFile) -> None:
    tree = ModuleTree({"sub/a.py", "sub/b.py"})
    tree.add(file("b.py", "z"))
    with pytest.raises(ProtocolError):
        tree.add(forged)


def test_what_is_wrong_with_a_directory_is_reported_once() -> None:
    files = [file(name, reports=[report("sub"), report(f"sub/{name}")]) for name in ("a.py", "b.py")]
    reported = [each["data"]["nodeid"] for each in said(*files)["collect_report"]]
    assert reported == ["sub", "sub/a.py", "sub/b.py"]


def test_a_warning_that_several_guests_sent_is_kept_as_often_as_one_sent_it() -> None:
    warnings = [{"type": "warning", "text": text} for text in ("same", "same", "own")]
    files = [file("a.py", run_messages=warnings[:1]), file("b.py", run_messages=warnings)]
    assert [each["text"] for each in said(*files)["warning"]] == ["same", "same", "own"]
