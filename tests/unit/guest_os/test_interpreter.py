"""How the guest's Python is started."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pytest_smol.guest_os.interpreter import SUPERVISOR, start_command


def split(command: list[str]) -> tuple[list[str], list[str]]:
    """The assignments of variables, and the interpreter with its arguments."""
    assert command[:2] == ["/usr/bin/env", "-i"]
    python = command.index(sys.executable)
    return command[2:python], command[python:]


def started(*options: str) -> list[str]:
    """The interpreter's arguments as an interpreter with ``options`` gives them."""
    source = (
        "from pytest_smol.guest_os.interpreter import start_command; print('\\n'.join(start_command({})))"
    )
    argv = [sys.executable, *options, "-c", source]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return split(done.stdout.splitlines())[1]


def test_only_what_is_read_at_the_start_is_handed_on() -> None:
    environ = {
        "PYTHONPATH": "/a:/b",
        "PYTHONUTF8": "1",
        "LC_ALL": "C.UTF-8",
        "LANG": "de_DE.UTF-8",
        "LANGUAGE": "de:en",
        "PATH": "/bin",
        "SECRET": "x",
        "MY_PYTHON": "x",
        "LANGUAGES": "x",
        "PYTEST_ADDOPTS": "-v",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    assignments, _ = split(start_command(environ))
    assert assignments == [
        "LANG=de_DE.UTF-8",
        "LANGUAGE=de:en",
        "LC_ALL=C.UTF-8",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1",
        "PYTHONPATH=/a:/b",
        "PYTHONUTF8=1",
        "SMOL_GUEST=1",
    ]


def test_a_guest_always_knows_that_it_is_one() -> None:
    assert split(start_command({"SMOL_GUEST": "0"}))[0] == ["SMOL_GUEST=1"]


def test_the_supervisor_is_run_as_a_module() -> None:
    assert split(start_command({}))[1][-2:] == ["-m", SUPERVISOR]


@pytest.mark.parametrize(
    ("options", "handed"),
    [
        ([], []),
        (["-O"], ["-O"]),
        (["-OO", "-B"], ["-OO", "-B"]),
        (["-s", "-bb"], ["-s", "-bb"]),
    ],
)
def test_the_interpreters_own_options_are_handed_on(
    options: list[str], handed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PYTHONOPTIMIZE", "PYTHONDONTWRITEBYTECODE", "PYTHONNOUSERSITE"):
        monkeypatch.delenv(name, raising=False)
    assert started(*options) == [sys.executable, *handed, "-m", SUPERVISOR]
