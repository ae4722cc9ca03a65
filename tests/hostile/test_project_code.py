"""A project made of nothing but traps: with ``--smol`` the host runs none of its code.

Every trap appends its name to a file that exists on the host alone: what a guest writes stays in its memory.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.vm.project import Project, Result

pytestmark = pytest.mark.vm

#: Modules of the standard library, and of what is installed with pytest and this plugin.
SHADOWED = (
    *(name for name in sys.stdlib_module_names if name not in sys.builtin_module_names and name[0] != "_"),
    *("filelock", "pluggy", "pygments", "iniconfig", "packaging", "hypothesis", "exceptiongroup", "colorama"),
)


class Traps:
    """A project whose files leave a trace when the host runs them."""

    def __init__(self, home: Path) -> None:
        self.project = Project(home)
        self._trace = home / "trace"
        self.set("tests/test_it.py", "def test_it(): pass\n")
        self.ini()

    def set(self, name: str, more: str = "") -> None:
        spring = f"open({str(self._trace)!r}, 'a').write({name!r} + chr(10))"
        body = f"try:\n    {spring}\nexcept OSError:\n    pass\n"
        self.project.write(name, body + more)

    def ini(self, *lines: str) -> None:
        self.project.write("pytest.ini", "\n".join(["[pytest]", "testpaths = tests", *lines]) + "\n")

    def run(self, *args: str, **env: str) -> Result:
        return self.project.run("--smol", *args, **env)

    @property
    def sprung(self) -> set[str]:
        """The files that ran on the host."""
        return set(self._trace.read_text().split()) if self._trace.exists() else set()


@pytest.fixture
def traps(tmp_path: Path) -> Traps:
    return Traps(tmp_path)


def named_in_header(result: Result) -> set[str]:
    """The modules of the project that the header says were imported before ``--smol`` could prevent it."""
    found = re.search(
        r"^smol: imported on the host before --smol could prevent it: (.*)$", result.stdout, re.MULTILINE
    )
    return set(found.group(1).split(", ")) if found else set()


def test_files_that_pytest_and_python_look_for(traps: Traps) -> None:
    for name in (
        "conftest.py",
        "tests/conftest.py",
        "sitecustomize.py",
        "usercustomize.py",
        "tests/__init__.py",
    ):
        traps.set(name)
    traps.set("setup.py")
    traps.set("noxfile.py")
    result = traps.run()
    assert result.outcomes() == {"test_it": "passed"}, result.output
    assert not traps.sprung


@pytest.mark.parametrize("args", [(), ("--collect-only",), ("--fixtures",), ("--markers",)], ids=" ".join)
def test_modules_below_pythonpath(traps: Traps, args: tuple[str, ...]) -> None:
    """Also those with the names of modules that the host imports late, our own imports among them."""
    for module in ("filelock", "pdb", "cmd", "code", "bdb", "netrc", "wave", "getpass", "xmlrpc"):
        traps.set(f"src/{module}.py")
    traps.ini("pythonpath = src .")
    traps.run(*args)
    assert not traps.sprung


def test_what_was_imported_before_the_plugin_was_asked_is_named(traps: Traps) -> None:
    """pytest puts pythonpath first on sys.path before it loads any installed plugin."""
    for module in SHADOWED:
        traps.set(f"src/{module}.py", "raise ImportError('a trap')\n")
    traps.set("src/trap_plugin.py")
    traps.project.write(
        "src/trap-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: trap\nVersion: 1.0\n"
    )
    traps.project.write("src/trap-1.0.dist-info/entry_points.txt", "[pytest11]\ntrap = trap_plugin\n")
    traps.ini("pythonpath = src")
    result = traps.run("--collect-only")
    sprung = {Path(name).stem for name in traps.sprung}
    assert sprung <= named_in_header(result) | {"trap_plugin"}, result.output


@pytest.mark.parametrize(
    "where", ["filterwarnings = error::trap_warnings.Oops", "addopts = -Werror::trap_warnings.Oops"]
)
def test_warning_classes_of_the_project(traps: Traps, where: str) -> None:
    """The guest makes an error of the warning. The host's pytest imports them, if at all, before plugins."""
    traps.set("src/trap_warnings.py", "class Oops(Warning): pass\n")
    traps.set(
        "tests/test_it.py",
        "import trap_warnings, warnings\ndef test_it(): warnings.warn('oops', trap_warnings.Oops)\n",
    )
    traps.ini("pythonpath = src", where)
    result = traps.run()
    assert {Path(name).stem for name in traps.sprung} == named_in_header(result)
    assert result.outcomes() == {"test_it": "failed"}, result.output


def test_a_plugin_named_in_addopts_is_named_in_the_header(traps: Traps) -> None:
    traps.set("src/trap_plugin.py")
    traps.ini("pythonpath = src", "addopts = -p trap_plugin")
    result = traps.run()
    assert named_in_header(result) == {"trap_plugin"}


def test_a_program_named_in_the_ini_file(traps: Traps) -> None:
    program = traps.project.write("qemu", "#!/bin/sh\ntouch sprung\n")
    program.chmod(0o755)
    traps.ini("smol_qemu = ./qemu")
    result = traps.run()
    assert result.status == pytest.ExitCode.USAGE_ERROR
    assert "--smol-qemu" in result.stderr
    assert not (traps.project.root / "sprung").exists()


@pytest.mark.parametrize(
    "line",
    [
        "cache_dir = {outside}",
        "cache_dir = link",
        "log_file = {outside}/log",
        "smol_keep_console = {outside}",
        "addopts = --debug={outside}/debug",
        "addopts = --basetemp={outside}",
        "addopts = --log-file={outside}/log",
        "addopts = --smol-keep-console={outside}",
        "addopts = -o cache_dir={outside}",
        "addopts = -o log_file=../outside/log",
    ],
)
def test_files_outside_of_the_project_that_its_settings_name(traps: Traps, tmp_path: Path, line: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (traps.project.root / "link").symlink_to(outside)
    traps.ini(line.format(outside=outside))
    result = traps.run()
    assert result.status == pytest.ExitCode.USAGE_ERROR, result.output
    assert "does not choose what the host writes" in result.stderr
    assert [path.name for path in outside.iterdir()] == ["kept"]


@pytest.mark.parametrize("name", ["smol", "smol-host", "smol-role", "smol-summary"])
def test_a_project_cannot_turn_the_plugin_off(traps: Traps, name: str) -> None:
    """Or else ``--smol`` would run the tests on the host."""
    traps.set("tests/test_it.py", "def test_it(): pass\n")
    traps.ini(f"addopts = -p no:{name}")
    result = traps.run()
    assert not traps.sprung
    assert result.status == pytest.ExitCode.USAGE_ERROR, result.output
