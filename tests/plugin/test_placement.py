"""Which tests share a machine, of which kind it is, and what wrong settings lead to."""

from __future__ import annotations

import os

import pytest

from tests.plugin.lab import Lab

PLAIN_MODULE = """
    def test_1(): pass
    def test_2(): pass
    class TestA:
        def test_3(self): pass
        def test_4(self): pass
        class TestInner:
            def test_5(self): pass
"""

MODULE_IDS = ["test_1", "test_2", "TestA::test_3", "TestA::test_4", "TestA::TestInner::test_5"]

BY_SCOPE = {
    "test": [[0], [1], [2], [3], [4]],
    "class": [[0], [1], [2, 3], [4]],
    "module": [[0, 1, 2, 3, 4]],
}


def ids(module: str, groups: list[list[int]]) -> list[list[str]]:
    return [[f"{module}::{MODULE_IDS[number]}" for number in group] for group in groups]


@pytest.mark.parametrize("scope", BY_SCOPE)
@pytest.mark.parametrize("through", ["option", "ini", "marker", "option over ini", "marker over option"])
def test_scope(lab: Lab, scope: str, through: str) -> None:
    other = "class" if scope != "class" else "test"
    marked = f"import pytest\npytestmark = pytest.mark.smol(scope='{scope}')\n" if "marker" in through else ""
    ini = {"ini": scope, "option over ini": other}.get(through)
    option = {"option": scope, "option over ini": scope, "marker over option": other}.get(through)
    body = PLAIN_MODULE.replace("\n    ", "\n")
    lab.project(test_a=marked + body, test_b=marked + body)
    if ini:
        lab.project(pytest_ini=f"[pytest]\nsmol_scope = {ini}\n")
    outcome = lab.smol("--smol", *([f"--smol-scope={option}"] if option else []))
    assert outcome.status == 0, outcome
    assert lab.record.ran == ids("test_a.py", BY_SCOPE[scope]) + ids("test_b.py", BY_SCOPE[scope])


def test_session_scope(lab: Lab) -> None:
    lab.project(test_a=PLAIN_MODULE, test_b=PLAIN_MODULE)
    lab.smol("--smol", "--smol-scope=session")
    everything = [0, 1, 2, 3, 4]
    assert lab.record.ran == [ids("test_a.py", [everything])[0] + ids("test_b.py", [everything])[0]]


def test_a_module_is_the_default(lab: Lab) -> None:
    lab.project(test_a=PLAIN_MODULE, test_b=PLAIN_MODULE)
    lab.smol("--smol")
    assert [len(fork) for fork in lab.record.ran] == [5, 5]


MARKED_PLACES = """
    import pytest

    @pytest.mark.smol
    def test_own(): pass
    def test_on_the_host(): pass
    @pytest.mark.smol
    class TestMarked:
        def test_x(self): pass
        @pytest.mark.smol
        def test_apart(self): pass
        def test_y(self): pass
        class TestInner:
            def test_z(self): pass
    class TestHome:
        def test_on_the_host(self): pass
        @pytest.mark.smol
        def test_out(self): pass
    @pytest.mark.smol
    @pytest.mark.parametrize("n", [1, 2])
    def test_each(n): pass
    @pytest.mark.parametrize("n", [1, pytest.param(2, marks=pytest.mark.smol)])
    def test_some(n): pass
"""


def test_the_markers_place_is_the_boundary(lab: Lab) -> None:
    lab.project(test_a=MARKED_PLACES)
    outcome = lab.smol("-v")
    assert outcome.status == 0, outcome
    assert lab.record.ran == [
        ["test_a.py::test_own"],
        [
            "test_a.py::TestMarked::test_x",
            "test_a.py::TestMarked::test_y",
            "test_a.py::TestMarked::TestInner::test_z",
        ],
        ["test_a.py::TestMarked::test_apart"],
        ["test_a.py::TestHome::test_out"],
        ["test_a.py::test_each[1]"],
        ["test_a.py::test_each[2]"],
        ["test_a.py::test_some[2]"],
    ]


def test_fixtures_of_the_host_live_until_its_next_test(lab: Lab) -> None:
    lab.project(
        test_a="""
            import pytest
            @pytest.fixture(scope="module")
            def of_module():
                yield
                open("gone", "w")
            class TestFirst:
                def test_1(self, of_module): pass
                @pytest.mark.smol
                def test_away(self): pass
            @pytest.mark.smol
            def test_also_away(): pass
            class TestSecond:
                def test_2(self, of_module):
                    import os
                    assert not os.path.exists("gone")
        """,
        test_b="""
            import os, pytest
            def test_3(): assert os.path.exists("gone")
            @pytest.mark.smol
            def test_last(): pass
        """,
    )
    outcome = lab.smol("-v")
    assert "6 passed" in outcome.text, outcome


def test_a_marked_module_is_one_machine(lab: Lab) -> None:
    body = PLAIN_MODULE.replace("\n    ", "\n")
    lab.project(test_a="import pytest\npytestmark = pytest.mark.smol\n" + body, test_b=PLAIN_MODULE)
    outcome = lab.smol()
    assert "10 passed" in outcome.text
    assert lab.record.ran == ids("test_a.py", BY_SCOPE["module"])


def test_without_marks_and_option_nothing_is_started(lab: Lab) -> None:
    lab.project(test_a=PLAIN_MODULE)
    assert lab.smol("--smol-scope=test").status == 0
    assert not lab.record.factories


def test_marked_tests_that_are_not_selected_start_nothing(lab: Lab) -> None:
    lab.project(test_a=MARKED_PLACES)
    assert lab.smol("-k", "test_on_the_host").status == 0
    assert not lab.record.factories
    assert lab.smol("--collect-only", "-q").status == 0
    assert not lab.record.factories


def test_memory_makes_guests_of_its_own(lab: Lab) -> None:
    lab.project(
        test_a="""
            import pytest
            def test_default(): pass
            @pytest.mark.smol(memory=512)
            def test_big(): pass
            @pytest.mark.smol(memory=512)
            def test_as_big(): pass
        """
    )
    outcome = lab.smol("--smol", "--smol-memory=300")
    assert outcome.status == 0
    assert [snapshot.hardware.memory for snapshot in lab.record.snapshots] == [300, 512, 512]
    assert len(lab.record.sessions) == 2
    lab.smol("-k", "big")
    assert [snapshot.hardware.memory for snapshot in lab.record.snapshots] == [512, 512]
    assert len(lab.record.sessions) == 1


def test_user_is_the_hosts_or_root(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    lab.project(
        test_a="""
            import pytest
            def test_mine(): pass
            @pytest.mark.smol(user="root")
            def test_root(): pass
            @pytest.mark.smol(user="host")
            def test_also_mine(): pass
        """
    )
    outcome = lab.smol("--smol")
    assert outcome.status == 0
    assert [order["uid"] for order in lab.record.orders] == [1234, 0]
    assert len(lab.record.ran) == 3


def test_closer_markers_win_argument_by_argument(lab: Lab) -> None:
    lab.project(
        test_a="""
            import pytest
            pytestmark = pytest.mark.smol(memory=512, scope="module")
            def test_1(): pass
            @pytest.mark.smol(memory=300)
            def test_2(): pass
            @pytest.mark.smol(scope="test")
            def test_3(): pass
        """
    )
    assert lab.smol().status == 0
    made = zip(lab.record.ran, (snapshot.hardware.memory for snapshot in lab.record.snapshots), strict=True)
    assert sorted(made) == [  # machines can be made ahead, those of one memory size first
        (["test_a.py::test_1"], 512),
        (["test_a.py::test_2"], 300),
        (["test_a.py::test_3"], 512),
    ]


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("scope='function'", "scope"),
        ("scope=3", "scope"),
        ("memory='much'", "memory"),
        ("memory=1", "memory"),
        ("timeout=0", "timeout"),
        ("timeout='soon'", "timeout"),
        ("user='nobody'", "user"),
        ("network=True", "network"),
        ("'module'", "positional"),
    ],
)
@pytest.mark.parametrize("option", ["--smol", "-v"])
def test_a_wrong_marker(lab: Lab, option: str, argument: str, complaint: str) -> None:
    lab.project(
        test_a=f"""
            import os, pytest
            @pytest.mark.smol({argument})
            def test_never():
                open("it ran", "w")
        """
    )
    outcome = lab.smol(option)
    said = "\n".join(outcome.err)
    assert outcome.status == 4, outcome
    assert complaint in said
    assert "test_a.py::test_never" in said
    assert "hint: " in said
    assert "INTERNAL" not in outcome.text + said
    assert not (lab.path / "it ran").exists()


@pytest.mark.parametrize(
    "args",
    [
        "--smol-scope=function",
        "--smol-accel=fast",
        "--smol-memory=much",
        "--smol-memory=3",
        "--smol-timeout=-1",
    ],
)
def test_a_wrong_option(lab: Lab, args: str) -> None:
    lab.project(test_a="def test_never(): open('it ran', 'w')\n")
    outcome = lab.smol("--smol", args)
    said = "\n".join(outcome.err)
    assert outcome.status == 4, outcome
    assert args.split("=", maxsplit=1)[0] in said
    assert "INTERNAL" not in outcome.text + said
    assert not lab.record.factories


def test_a_wrong_ini_value(lab: Lab) -> None:
    lab.project(pytest_ini="[pytest]\nsmol_scope = everywhere\n", test_a="def test_a(): pass\n")
    outcome = lab.smol("--smol")
    assert outcome.status == 4
    assert "smol_scope" in "\n".join(outcome.err)


def test_an_unmarked_run_asks_nothing_of_the_settings_but_that_they_are_right(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMOL_QEMU", "/nonexistent/qemu")
    lab.project(test_a="def test_a(): pass\n")
    assert lab.plain().status == 0
