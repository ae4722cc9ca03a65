"""With --smol collection goes wrong in the same words, with the same exit status."""

from __future__ import annotations

import pytest

from tests.plugin.lab import Lab

ERRORS = {
    "test_a": "def test_fine(): pass\n",
    "test_import": "import no_such_module_anywhere\n",
    "test_syntax": "def test_x(:\n",
    "test_raises": "raise ValueError('while it is imported')\n",
    "test_skip": "import pytest\npytest.skip('not here', allow_module_level=True)\n",
    "test_z_importorskip": "import pytest\npytest.importorskip('no_such_module_anywhere')\n",
    "test_fixture": "def test_x(no_such_fixture): pass\n",
}


@pytest.mark.parametrize(
    "args",
    [
        "",
        "-v",
        "-q",
        "-rA",
        "-x",
        "--maxfail=2",
        "--collect-only",
        "--collect-only -q",
        "--continue-on-collection-errors -v",
        "--continue-on-collection-errors --maxfail=4",
        "--tb=short",
        "--tb=line",
        "--tb=no",
        "--color=yes",
        "test_import.py",
        "test_skip.py",
        "test_skip.py test_z_importorskip.py",
        "test_fixture.py",
        "test_import.py::test_x",
    ],
)
def test_errors(lab: Lab, args: str) -> None:
    lab.project(**ERRORS)
    lab.same(args)


@pytest.mark.parametrize("style", ["long", "native"])
def test_errors_with_all_frames(lab: Lab, style: str) -> None:
    lab.project(**ERRORS)
    lab.same(f"--tb={style}", apart=True)


def test_lf_after_collection_errors(lab: Lab) -> None:
    lab.project(**ERRORS)
    lab.same("", "--lf", "--lf test_import.py")


@pytest.mark.parametrize(
    "conftest",
    [
        "import no_such_module_anywhere\n",
        "raise ValueError('broken conftest')\n",
        "def broken(:\n",
        "import pytest\npytest.exit('leave it', returncode=7)\n",
        "import pytest\nraise pytest.UsageError('used wrongly')\n",
        "def pytest_configure(config):\n    raise ValueError('in configure')\n",
        "import pytest\ndef pytest_configure(config):\n    raise pytest.UsageError('in configure')\n",
        "import pytest\ndef pytest_sessionstart(session):\n    raise pytest.UsageError('in sessionstart')\n",
        "import pytest\ndef pytest_sessionstart(session):\n    pytest.exit('at the start', returncode=9)\n",
        "import pytest\ndef pytest_collection_modifyitems():\n    raise pytest.UsageError('modify')\n",
        "import pytest\ndef pytest_collection_modifyitems():\n    pytest.exit('enough', returncode=9)\n",
        "import pytest\ndef pytest_collection_modifyitems():\n    raise KeyboardInterrupt\n",
        "def pytest_collection_modifyitems():\n    raise ValueError('modify')\n",
        "def pytest_no_such_hook():\n    pass\n",
        "collect_ignore = ['test_a.py']\n",
    ],
)
def test_conftest(lab: Lab, conftest: str) -> None:
    """What ends a run before its tests: status and reason are the same, the frames around it may differ."""
    lab.project(conftest=conftest, test_a="def test_fine(): pass\n")
    plain, smol = lab.both("")[0]
    assert smol.status == plain.status
    assert reasons(smol.out + smol.err) >= reasons(plain.out + plain.err)


def test_conftest_that_names_no_plugin(lab: Lab) -> None:
    """Before 9.2 pytest ends with a traceback and Python's status there; with --smol it is an error."""
    lab.project(conftest="pytest_plugins = ['no_such_plugin_anywhere']\n", test_a="def test_fine(): pass\n")
    [(plain, smol)] = lab.both("", apart=True)
    unexpected = plain.err[:1] == ["Traceback (most recent call last):"]
    assert unexpected == (pytest.version_tuple < (9, 2)), plain
    assert smol.status == (pytest.ExitCode.INTERRUPTED if unexpected else plain.status)
    for outcome in plain, smol:
        assert 'Error importing plugin "no_such_plugin_anywhere"' in "\n".join(outcome.out + outcome.err)


def reasons(lines: list[str]) -> set[str]:
    """The lines that name an error, wherever pytest shows it."""
    names = ("Error: ", "ERROR: ", "Exit: ")
    found = (line for line in lines if any(name in line for name in names) and "INTERNAL" not in line)
    return {line.strip(" !").replace("_pytest.outcomes.", "") for line in found}


def test_conftest_of_a_subdirectory(lab: Lab) -> None:
    lab.project(sub__conftest="raise ValueError('broken below')\n", sub__test_a="def test_x(): pass\n")
    plain, smol = lab.both("")[0]
    assert smol.status == plain.status
    assert "broken below" in smol.text


def test_options_of_a_conftest(lab: Lab) -> None:
    lab.project(
        conftest="""
            import pytest
            def pytest_addoption(parser):
                parser.addoption("--name", default="nobody")
                parser.addoption("--flag", action="store_true")
            @pytest.fixture
            def name(request): return request.config.getoption("name")
        """,
        test_a="""
            def test_name(name, request):
                assert name == "me" and request.config.getoption("flag")
        """,
    )
    assert lab.same("--name=me --flag", "--name me --flag -v").status == 0
    assert lab.same("--name=you").status == 1
    assert "unrecognized arguments: --other" in "\n".join(lab.same("--name=me --other").err)
