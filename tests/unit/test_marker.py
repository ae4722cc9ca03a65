"""The marker: where it stands and what its arguments ask for."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_smol.errors import SettingError
from pytest_smol.marker import Mark, MarkerArguments, marker_arguments, marks_of, place

SOURCE = """
import pytest

pytestmark = pytest.mark.smol(memory=300)

@pytest.mark.smol(scope="class")
class TestClass:
    @pytest.mark.smol(timeout=5)
    def test_method(self): pass

def test_function(): pass
"""


def mark(**kwargs: Any) -> Mark:
    return Mark("test", "a.py::test", kwargs)


def test_marks_stand_for_the_scope_of_their_place(pytester: pytest.Pytester) -> None:
    method, function = pytester.getitems(SOURCE)
    where = [(mark.place, mark.nodeid.partition("::")[2], dict(mark.kwargs)) for mark in marks_of(method)]
    assert where == [
        ("test", "TestClass::test_method", {"timeout": 5}),
        ("class", "TestClass", {"scope": "class"}),
        ("module", "", {"memory": 300}),
    ]
    assert [mark.place for mark in marks_of(function)] == ["module"]


def test_nodes_stand_for_scopes(pytester: pytest.Pytester) -> None:
    method = pytester.getitems(SOURCE)[0]
    assert [place(node) for node in method.listchain()][-3:] == ["module", "class", "test"]
    assert place(method.session) == "session"


def test_a_positional_argument_is_refused_with_what_can_be_given(pytester: pytest.Pytester) -> None:
    item = pytester.getitem("import pytest\n@pytest.mark.smol('test')\ndef test_one(): pass", "test_one")
    with pytest.raises(SettingError, match=r"::test_one: .*no positional arguments") as caught:
        marks_of(item)
    assert "scope=None" in caught.value.remedy


def test_no_marks_ask_for_nothing() -> None:
    assert marker_arguments("a.py::test", []) == MarkerArguments()


def test_every_argument_is_taken() -> None:
    marks = [mark(scope="class", memory=512, timeout=1.5, user="root")]
    assert marker_arguments("a.py::test", marks) == MarkerArguments("class", 512, 1.5, "root")


def test_the_closest_marker_wins_argument_by_argument() -> None:
    marks = [mark(memory=512), mark(memory=1024, timeout=7), mark(timeout=8, user="host")]
    assert marker_arguments("a.py::test", marks) == MarkerArguments(memory=512, timeout=7.0, user="host")


def test_none_takes_back_what_a_farther_marker_asks_for() -> None:
    assert marker_arguments("a.py::test", [mark(memory=None), mark(memory=512)]) == MarkerArguments()


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({"scope": "function"}, "one of test, class, module, session"),
        ({"scope": ["test"]}, "one of test, class, module, session"),
        ({"memory": 64}, "from 128"),
        ({"memory": "lots"}, "from 128"),
        ({"memory": 256.5}, "from 128"),
        ({"memory": True}, "from 128"),
        ({"memory": [256]}, "from 128"),
        ({"timeout": 0}, "positive number of seconds"),
        ({"timeout": True}, "positive number of seconds"),
        ({"timeout": 10**400}, "positive number of seconds"),
        ({"timeout": {}}, "positive number of seconds"),
        ({"user": "nobody"}, "one of host, root"),
        ({"user": 0}, "one of host, root"),
    ],
)
def test_a_wrong_argument_is_named_with_its_test(kwargs: dict[str, Any], expected: str) -> None:
    (name,) = kwargs
    with pytest.raises(SettingError, match=expected) as caught:
        marker_arguments("a.py::test", [mark(**kwargs)])
    assert caught.value.message.startswith(f"a.py::test: @pytest.mark.smol: {name}=")
    assert "smol(scope=None" in caught.value.remedy


def test_unknown_arguments_are_all_named() -> None:
    with pytest.raises(SettingError, match=r"a.py::test: .* no argument image, processors") as caught:
        marker_arguments("a.py::test", [mark(image="x"), mark(processors=2)])
    assert "smol(scope=None" in caught.value.remedy


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        (["64M", "1G"], (64 << 20, 1 << 30)),
        ("1M, 1T", (1 << 20, 1 << 40)),
        (("2048K",), (2 << 20,)),
        (["64MiB"], (64 << 20,)),
        ([], ()),
        (["1M"] * 8, (1 << 20,) * 8),
    ],
)
def test_sizes_of_disks(given: object, sizes: tuple[int, ...]) -> None:
    assert marker_arguments("a.py::t", [Mark("test", "a.py::t", {"disks": given})]).disks == sizes


@pytest.mark.parametrize(
    "given",
    [
        ["0M"],
        ["10T"],
        ["1023K"],
        ["64"],
        [64],
        64,
        {"64M": 1},
        ["1M"] * 9,
        ["-1M"],
        ["1M "],
        [None],
        ["1.5G"],
        "x",
    ],
)
def test_sizes_that_no_disk_has(given: object) -> None:
    with pytest.raises(SettingError, match="disks="):
        marker_arguments("a.py::t", [Mark("test", "a.py::t", {"disks": given})])


@pytest.mark.parametrize("given", [0, -1, 65, "two", 1.5, True, [2]])
def test_numbers_of_processors_that_no_machine_has(given: object) -> None:
    with pytest.raises(SettingError, match="cpus="):
        marker_arguments("a.py::t", [Mark("test", "a.py::t", {"cpus": given})])


def test_a_number_of_processors() -> None:
    assert marker_arguments("a.py::t", [Mark("test", "a.py::t", {"cpus": 2})]).cpus == 2


@pytest.mark.parametrize("given", [0, 1, "yes", [True]])
def test_nested_is_true_or_false(given: object) -> None:
    with pytest.raises(SettingError, match="nested="):
        marker_arguments("a.py::t", [Mark("test", "a.py::t", {"nested": given})])


def test_the_closest_marker_says_whether_a_machine_is_nested() -> None:
    marks = [Mark("test", "a.py::t", {"nested": False}), Mark("module", "a.py", {"nested": True})]
    assert marker_arguments("a.py::t", marks).nested is False
