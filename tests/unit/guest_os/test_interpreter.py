"""How the guest's Python is started: which variables and which options of the host's it is given."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from pytest_smol.guest_os.interpreter import (
    GIVEN,
    LEFT_OUT,
    LOCALE_VARIABLES,
    PYTHON_VARIABLES,
    SUPERVISOR,
    options_of,
    start_command,
)

#: Prints what options of the interpreter change.
STATE = """
import json, sys
names = [name for name in dir(sys.flags) if name[0] != "_" and name not in ("count", "index")]
state = {name: getattr(sys.flags, name) for name in names if not name.startswith("n_")}
print(json.dumps({**state, "W": sys.warnoptions, "X": sys._xoptions, "u": sys.stdout.write_through}))
"""

COMMAND = """
import json
from pytest_smol.guest_os.interpreter import start_command
print(json.dumps(start_command()))
"""


def split(command: list[str]) -> tuple[list[str], list[str]]:
    """The assignments of variables, and the interpreter with its arguments."""
    assert command[:2] == ["/usr/bin/env", "-i"]
    python = command.index(sys.executable)
    return command[2:python], command[python:]


def clean_environment(**variables: str) -> dict[str, str]:
    """This process's environment with those of Python's own variables that are given."""
    return {
        **{name: value for name, value in os.environ.items() if name not in PYTHON_VARIABLES},
        **variables,
    }


def output_of(argv: Sequence[str], env: Mapping[str, str]) -> Any:
    """The JSON on the last line that ``argv`` writes to standard output."""
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def handed_on(*options: str, **variables: str) -> list[str]:
    """The options that an interpreter with ``options`` and ``variables`` gives to the guest's."""
    command = output_of([sys.executable, *options, "-c", COMMAND], clean_environment(**variables))
    python = split(command)[1]
    assert python[-2:] == ["-m", SUPERVISOR]
    return python[1:-2]


# --- variables


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


@pytest.mark.parametrize(
    "name",
    ["PYTHON_GITLAB_TOKEN", "PYTHONTOKEN", "PYTHON", "LC_SECRET", "LC_", "LC_ALL_", "pythonpath", "LANG_"],
)
def test_a_variable_that_is_only_called_alike_stays_on_the_host(name: str) -> None:
    assert split(start_command({name: "s3cret"}))[0] == ["SMOL_GUEST=1"]


@pytest.mark.parametrize("name", sorted({*PYTHON_VARIABLES, *LOCALE_VARIABLES}))
def test_each_variable_of_the_table_is_handed_on(name: str) -> None:
    assert f"{name}=value" in split(start_command({name: "value"}))[0]


def test_all_that_this_interpreter_documents_is_in_the_table() -> None:
    options = ["--help-env"] if sys.version_info >= (3, 11) else ["--help"]
    done = subprocess.run([sys.executable, *options], capture_output=True, text=True, check=True)
    named = set(re.findall("^PYTHON[A-Z0-9_]*", done.stdout, re.MULTILINE))
    assert "PYTHONPATH" in named
    assert named <= set(PYTHON_VARIABLES)


def test_a_guest_always_knows_that_it_is_one() -> None:
    assert split(start_command({"SMOL_GUEST": "0"}))[0] == ["SMOL_GUEST=1"]


# --- options

#: Options of the host's interpreter -> what the guest's is given. One row for each option of the table.
OPTIONS = {
    "none": ([], []),
    "-b": (["-b"], ["-b"]),
    "-bb": (["-bb"], ["-b", "-b"]),
    "-B": (["-B"], ["-B"]),
    "-d": (["-d"], ["-d"]),
    "-E": (["-E"], ["-E"]),
    "-I": (["-I"], ["-I"]),
    "-O": (["-O"], ["-O"]),
    "-OO": (["-OO"], ["-O", "-O"]),
    "-R": (["-R"], ["-R"]),
    "-s": (["-s"], ["-s"]),
    "-S": (["-S"], ["-S"]),
    "-u": (["-u"], ["-u"]),
    "-v": (["-v"], ["-v"]),
    "-W": (["-W", "error::UserWarning"], ["-W", "error::UserWarning"]),
    "-W, attached, twice": (["-Werror", "-Wdefault"], ["-W", "error", "-W", "default"]),
    "-W, empty": (["-W", ""], ["-W", ""]),
    "-X dev": (["-X", "dev"], ["-X", "dev"]),
    "-X utf8": (["-Xutf8=1"], ["-X", "utf8=1"]),
    "-X importtime": (["-X", "importtime"], ["-X", "importtime"]),
    "-X frozen_modules": (["-X", "frozen_modules=off"], ["-X", "frozen_modules=off"]),
    "-X faulthandler": (["-X", "faulthandler"], ["-X", "faulthandler"]),
    "-X tracemalloc": (["-X", "tracemalloc=3"], ["-X", "tracemalloc=3"]),
    "--check-hash-based-pycs": (["--check-hash-based-pycs", "never"], ["--check-hash-based-pycs", "never"]),
    "several in a word": (["-OBsWerror"], ["-O", "-B", "-s", "-W", "error"]),
    "one for a dialogue": (["-Oq"], ["-O"]),
}
if sys.version_info >= (3, 11):
    OPTIONS["-P"] = (["-P"], ["-P"])


@pytest.mark.parametrize(("options", "given"), OPTIONS.values(), ids=OPTIONS)
def test_an_option_is_handed_on(options: list[str], given: list[str]) -> None:
    path = os.pathsep.join(filter(None, sys.path))  # without site there is no other way to the package
    assert handed_on(*options, **({"PYTHONPATH": path} if "-S" in options else {})) == given


def plain(*options: str) -> Any:
    """The state of an interpreter with ``options``."""
    return output_of(
        [sys.executable, *options, "-c", STATE], clean_environment(PYTHONWARNINGS="ignore::ImportWarning")
    )


@pytest.mark.parametrize(("options", "given"), OPTIONS.values(), ids=OPTIONS)
def test_both_interpreters_are_in_the_same_state(options: list[str], given: list[str]) -> None:
    host, guest = plain(*options), plain(*given)
    differing = {name for name in host if host[name] != guest[name]}
    assert differing == ({"quiet"} if "-Oq" in options else set())


def test_what_is_for_a_dialogue_or_another_program_is_left_out() -> None:
    for letter in LEFT_OUT:
        assert options_of(["python", f"-{letter}"], {}) == []


def test_each_option_of_the_table_has_a_row() -> None:
    tried = {word.partition(",")[0].split()[0] for word in OPTIONS}
    assert {f"-{letter}" for letter in GIVEN} - {"-P"} <= tried
    assert not set(GIVEN) & set(LEFT_OUT)


def test_a_variable_takes_the_place_of_an_option() -> None:
    assert (
        handed_on(PYTHONOPTIMIZE="1", PYTHONWARNINGS="error", PYTHONUNBUFFERED="1", PYTHONDEVMODE="1") == []
    )


@pytest.mark.parametrize(
    ("orig_argv", "given"),
    [
        (["python", "-m", "pytest", "-W", "error", "-v"], []),
        (["python", "-O", "-mpytest", "-x"], ["-O"]),
        (["python", "-c", "import pytest", "-O"], []),
        (["python", "-O", "/usr/bin/pytest", "-s", "-v"], ["-O"]),
        (["python", "-O", "-", "-s"], ["-O"]),
        (["python", "-O", "--", "-s"], ["-O"]),
        (["python", "-iO", "x.py"], ["-O"]),
        (["python"], []),
        ([], []),
        (["python", "-W"], []),
        (["python", "-O", "--unknown", "-B"], ["-O"]),
        (["python", "-OZB"], ["-O"]),
    ],
)
def test_where_the_options_of_the_interpreter_end(orig_argv: list[str], given: list[str]) -> None:
    assert options_of(orig_argv, {}) == given


def test_what_execnet_gives_a_worker_is_no_option_of_the_users() -> None:
    argv = ["python", "-u", "-B", "-c", "import sys;exec(eval(sys.stdin.readline()))"]
    assert options_of(argv, {"PYTEST_XDIST_WORKER": "gw0"}) == ["-B"]
    assert options_of(argv, {}) == ["-u", "-B"]
    assert options_of(["python", "-W", "-u", "-Xu"], {"PYTEST_XDIST_WORKER": "gw0"}) == [
        "-W",
        "-u",
        "-X",
        "u",
    ]
