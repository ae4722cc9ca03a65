"""With --smol a project's layout means what it means in a plain run: roots, paths, import modes, packages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.plugin.lab import Lab

WHERE = """
    import os, sys
    def test_where(request):
        config = request.config
        here = os.path.dirname(__file__)
        print(__name__, __package__, os.path.basename(__file__))
        print(config.rootpath.name, config.inipath and config.inipath.name, config.getini("testpaths"))
        print([entry.removeprefix(str(config.rootpath)) for entry in sys.path if "/test_" in entry])
        print(os.path.relpath(os.getcwd(), config.rootpath), request.node.nodeid)
        assert 0
"""

MODES = ("prepend", "append", "importlib")


@pytest.mark.parametrize("mode", MODES)
def test_import_modes(lab: Lab, mode: str) -> None:
    lab.project(tests__test_a=WHERE, tests__deep__test_b=WHERE, other__test_c=WHERE)
    lab.same(f"--import-mode={mode} -rA", f"--import-mode={mode} other tests/deep")


@pytest.mark.parametrize("mode", MODES)
def test_packages(lab: Lab, mode: str) -> None:
    """Two modules of one name, in packages."""
    lab.project(
        tests____init__="",
        tests__conftest="import pytest\n@pytest.fixture\ndef fix(): return __name__\n",
        tests__one____init__="value = 1\n",
        tests__one__test_a=WHERE + "\n    def test_fix(fix): print(fix); assert 0\n",
        tests__two____init__="",
        tests__two__test_a=WHERE + "\n    from tests.one import value\n",
    )
    lab.same(f"--import-mode={mode}", f"--import-mode={mode} --pyargs tests.one")


@pytest.mark.parametrize("mode", MODES)
def test_namespace_packages(lab: Lab, mode: str) -> None:
    lab.project(
        pytest_ini="[pytest]\nconsider_namespace_packages = true\npythonpath = src\n",
        src__space__one__code="value = 1\n",
        src__space__two__test_a=WHERE + "\n    from space.one.code import value\n",
    )
    lab.same(f"--import-mode={mode}", f"--import-mode={mode} src/space/two")


def test_modules_of_one_name_without_packages(lab: Lab) -> None:
    lab.project(a__test_same="def test_a(): pass\n", b__test_same="def test_b(): pass\n")
    lab.same("", "--import-mode=importlib -v")


IMPORTS_AND_TEST = (
    "import helper, package\ndef test_a(): assert package.value == helper.value\ndef check(): assert 0\n"
)
FILES_FOR_INI = {
    "src__package____init__": "value = 1\n",
    "lib__helper": "value = 2\n",
    "tests__test_a": IMPORTS_AND_TEST,
    "tests__deep__test_b": IMPORTS_AND_TEST,
    "other__check_c": IMPORTS_AND_TEST,
}
RUNS_FOR_INI = ("", "-q tests", "--rootdir=tests")


@pytest.mark.parametrize(
    "ini",
    [
        "[pytest]\ntestpaths = tests\npythonpath = src lib\n",
        "[pytest]\ntestpaths = tests other no_such\npythonpath = src lib\nnorecursedirs = deep\n",
        "[pytest]\npythonpath = src lib\npython_files = check_*.py\npython_functions = check\n",
        "[pytest]\npythonpath = src lib\naddopts = -v --import-mode=importlib\nxfail_strict = true\n",
        "[pytest]\npythonpath = src lib\nno_such_value = 1\n",
        "[pytest]\npythonpath = src lib\nempty_parameter_set_mark = fail_at_collect\n",
    ],
)
def test_ini_values(lab: Lab, ini: str) -> None:
    lab.project(pytest_ini=ini, **FILES_FOR_INI)
    lab.same(*RUNS_FOR_INI)


@pytest.mark.parametrize("value", ["minversion = 99", "required_plugins = no-such-plugin"])
def test_ini_values_that_refuse_a_run(lab: Lab, value: str) -> None:
    lab.project(pytest_ini=f"[pytest]\npythonpath = src lib\n{value}\n", **FILES_FOR_INI)
    lab.same(*RUNS_FOR_INI, on_host=RUNS_FOR_INI)


def test_src_layout_that_is_installed_editable(lab: Lab) -> None:
    """What a .pth file or an import hook of an editable install adds to the path, guests have too."""
    lab.project(
        src__installed____init__="value = 7\n",
        tests__test_a="from installed import value\ndef test_a(): assert value == 8\n",
    )
    sys.path.append(str(lab.path / "src"))
    try:
        lab.same("", "--import-mode=importlib")
    finally:
        sys.path.remove(str(lab.path / "src"))


def test_paths_outside_the_root(lab: Lab, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "test_out.py").write_text("import os\ndef test_out(): assert 0, os.path.basename(__file__)\n")
    lab.project(pytest_ini="[pytest]\n", test_in="def test_in(): pass\n")
    lab.same(
        f"{outside}/test_out.py", f"test_in.py {outside} -v", f"--rootdir=. {outside}/test_out.py::test_out"
    )


def test_a_symbolic_link_to_the_project(lab: Lab) -> None:
    lab.project(real__test_a=WHERE)
    (lab.path / "link").symlink_to("real")
    lab.same("link -v")


def test_conftest_files_on_the_way(lab: Lab) -> None:
    fixture = "import pytest\n@pytest.fixture\ndef where(): return {!r}\n"
    lab.project(
        conftest=fixture.format("root"),
        a__conftest=fixture.format("a"),
        a__test_a="def test_a(where): assert where == 'x'\n",
        a__b__test_b="def test_b(where): assert where == 'x'\n",
        test_c="def test_c(where): assert where == 'x'\n",
    )
    lab.same("", "a/b", "--confcutdir=a a", "--noconftest")


def test_another_directory(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.project(pytest_ini="[pytest]\n", sub__test_a=WHERE, test_b=WHERE)
    monkeypatch.chdir(lab.path / "sub")
    plain = lab.plain("test_a.py", "../test_b.py", "-v")
    smol = lab.in_machines("test_a.py", "../test_b.py", "-v")
    assert smol.comparable() == plain.comparable()


def test_arguments_from_a_file(lab: Lab) -> None:
    lab.project(args_txt="test_a.py\n-v\n", test_a="def test_a(): pass\n", test_b="def test_b(): pass\n")
    lab.same("@args.txt")


def test_doctests_of_every_kind(lab: Lab) -> None:
    lab.project(
        conftest="""
            import pytest
            @pytest.fixture(autouse=True)
            def add(doctest_namespace): doctest_namespace["seven"] = 7
        """,
        pytest_ini="[pytest]\ndoctest_optionflags = ELLIPSIS NORMALIZE_WHITESPACE\n",
        code='''
            """
            >>> seven
            7
            >>> print("a   b")
            a b
            """
            class C:
                """
                >>> C().broken
                Traceback (most recent call last):
                ...
                KeyError
                >>> import pytest; pytest.skip("here")
                """
                def method(self):
                    """
                    >>> 1  # doctest: +SKIP
                    2
                    """
            def fails():
                """
                >>> [1, 2]
                [1, 3]
                >>> 1 / 0
                0
                """
        ''',
        docs__text_txt="Text\n\n>>> seven + 1\n8\n>>> undefined\n1\n",
    )
    lab.same(
        "--doctest-modules --doctest-glob=*.txt -v -rA",
        "--doctest-modules --doctest-report=ndiff --doctest-continue-on-failure",
        "--doctest-modules --doctest-ignore-import-errors code.py -q",
    )
