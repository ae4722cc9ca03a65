"""How a guest's Python starts: with the host's options and variables, none of them on a command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.vm.project import Project, Run, machines, share_boot_files, wait_until

pytestmark = pytest.mark.vm

#: Runs in the guest, and on the host for comparison.
STATE = """
import json, os, sys

def state():
    names = [name for name in dir(sys.flags) if name[0] != "_" and name not in ("count", "index")]
    flags = {name: getattr(sys.flags, name) for name in names if not name.startswith("n_")}
    variables = {name: os.environ.get(name) for name in NAMES}
    return {**flags, "W": sys.warnoptions, "X": sys._xoptions, "variables": variables, "hash": hash("smol")}

NAMES = ("PYTHONPATH", "PYTHONHASHSEED", "PYTHON_GITLAB_TOKEN", "LC_SECRET", "LC_TIME", "SHOWN")

if __name__ == "__main__":
    print(json.dumps(state()))
"""

TEST = """
import json, os, sys
from pathlib import Path
from state import state

def test_state(record_property):
    record_property("state", json.dumps(state()))
    record_property("unbuffered", json.dumps(sys.__stdout__.write_through))
    seen = {os.path.join(where, name): Path(where, name).read_text("ascii", "replace")
            for where in ("/proc/1", "/proc/self") for name in ("cmdline",)}
    record_property("command_lines", json.dumps([*seen.values(), Path("/proc/cmdline").read_text()]))
"""

#: Options of the host's interpreter: each that a run of pytest can do with.
OPTIONS = (
    *(
        "-O",
        "-bb",
        "-B",
        "-d",
        "-s",
        "-u",
        "-W",
        "error::UnicodeWarning",
        "-W",
        "ignore::ImportWarning",
    ),
    *("-X", "dev", "-X", "utf8=1", "-X", "tracemalloc=2", "--check-hash-based-pycs", "never"),
)

SECRET = "glpat-s3cret"


@pytest.fixture
def started(project: Project) -> Project:
    project.write("state.py", STATE)
    project.write("test_it.py", TEST)
    return project


def test_options_and_variables_arrive_and_are_on_no_command_line(started: Project) -> None:
    """One run, as each set of options and variables takes a base snapshot of its own."""
    path = os.pathsep.join(
        [str(started.root), *(f"/nix/store/{n:032}-python3-x/site-packages" for n in range(350))]
    )
    assert len(path) > 20_000
    variables = {
        "PYTHONPATH": path,
        "PYTHONHASHSEED": "123456",
        "LC_TIME": "C.UTF-8",
        "SHOWN": "shown-to-guests",
        "PYTHON_GITLAB_TOKEN": SECRET,
        "LC_SECRET": SECRET,
    }
    started.write("pytest.ini", "[pytest]\naddopts = -p no:cacheprovider -p no:randomly\nsmol_env = SHOWN\n")
    started.prefix, started.python = (sys.executable, *OPTIONS[:-1]), OPTIONS[-1]
    share_boot_files(started.home / "cache")  # and no base snapshot, so that a machine is booted
    run = started.start("--smol", XDG_CACHE_HOME=str(started.home / "cache"), **variables)
    lines = command_lines(started, run)
    result = run.result()
    assert result.outcomes() == {"test_state": "passed"}, result.output

    assert_no_value_is_in("\n".join(lines), variables)
    properties = result.cases["test_state"].properties
    assert_no_value_is_in("\n".join(json.loads(properties["command_lines"])), variables)

    host, guest = plain(started, variables), json.loads(properties["state"])
    for name in ("PYTHON_GITLAB_TOKEN", "LC_SECRET"):
        assert host["variables"].pop(name) == SECRET
        assert guest["variables"].pop(name) is None
    assert guest == host
    assert guest["hash"] == host["hash"]
    assert json.loads(properties["unbuffered"])


def plain(project: Project, variables: dict[str, str]) -> Any:
    """The state of an interpreter of the host's that is started alike."""
    argv = [sys.executable, *OPTIONS, project.root / "state.py"]
    done = subprocess.run(argv, env={**os.environ, **variables}, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def command_lines(project: Project, run: Run) -> list[str]:
    """The command lines of the QEMU that boots the guest of ``run``, which has begun."""
    found: list[str] = []

    def look() -> bool:
        found[:] = [line for line in machines(project.home).values() if " -append " in line]
        return bool(found) or run.process.poll() is not None

    wait_until(look, "a machine that boots")
    assert found, run.stdout
    return found


def assert_no_value_is_in(lines: str, variables: dict[str, str]) -> None:
    values = {*variables.values(), *variables["PYTHONPATH"].split(os.pathsep)[1:]}
    assert not [value for value in values if value in lines]


def test_strings_hash_alike_in_every_run_of_a_base_snapshot(started: Project) -> None:
    """Unlike a plain run: the interpreter chose its seed when the snapshot was made."""
    seen = []
    for _ in range(2):
        result = started.run("--smol", "-k", "state")
        seen.append(json.loads(result.cases["test_state"].properties["state"])["hash"])
    assert seen[0] == seen[1]
