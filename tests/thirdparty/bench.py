"""A project that pytest runs with real plugins, plainly and in real machines, to compare the runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from tests.evidence.boot_ids import host_boot_id, outside_machines, parse
from tests.plugin.lab import Outcome, dedented, difference

__all__ = ["Bench", "PairOfRuns"]

#: The longest that one run may take, in seconds, before it counts as hanging; generous, for a busy host.
LIMIT = 900

#: The file of the plugin smol_boot_ids; relative, so that the environment is the same in all projects.
_BOOT_IDS = "../boot-ids.json"

#: Directories that pytest and its plugins write for themselves.
_IGNORED = frozenset({"__pycache__", ".pytest_cache"})

PairOfRuns = tuple[Outcome, Outcome]


def _files(root: Path) -> dict[str, str]:
    """The text of each file below ``root`` by its relative path."""
    paths = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink()]
    named = [(path, path.relative_to(root)) for path in paths]
    return {
        str(name): path.read_text("utf-8", "replace") for path, name in named if not _IGNORED & {*name.parts}
    }


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


class Bench:
    """A project's directory and ways to run it. Runs follow one another in it and see what the last left.

    Every run records on which kernel each test ran: :meth:`smol`, and so all comparisons, raise
    AssertionError where a test ran on the host. ``runs_tests=False`` is for runs that end before the
    first test.

    ``plugins`` are the names (as ``-p`` takes them: entry points or modules) of all that are loaded
    in addition to pytest-smol; None loads whatever is installed, as pytest does where it is left alone.
    """

    def __init__(self, home: Path, python: Path) -> None:
        self.root = home / "project"
        self.root.mkdir()
        self._pristine = home / "pristine"
        self._python = python

    def write(self, name: str, text: str) -> Path:
        """Write a file of the project; the text may be indented as a whole."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedented(text), encoding="utf-8")
        return path

    def command(self, *args: str) -> list[str]:
        """What runs pytest with ``args``."""
        return [str(self._python), "-m", "pytest", *args]

    def environment(self, plugins: Sequence[str] | None, **changes: str | None) -> dict[str, str]:
        """The variables of a run with ``plugins``; those that ``changes`` has as None are left out."""
        changed: dict[str, str | None] = {**_environment(plugins), **changes}
        return {name: value for name, value in changed.items() if value is not None}

    def assert_in_machines(self, run: str, runs_tests: bool = True) -> None:
        """Assert that each test of the last run, whose command line was ``run``, ran in a machine."""
        found = self._boot_ids()
        if not runs_tests:
            assert not found, f"pytest {run} was to run no test, but ran {sorted(found)}"
            return
        wrong = outside_machines(found, host_boot_id())
        assert not wrong, f"pytest {run}: {wrong}"

    def ran_in_machines(self) -> set[str]:
        """The node ids of the tests of the last run that ran in machines, and not on the host as well."""
        host = host_boot_id()
        return {nodeid for nodeid, ids in self._boot_ids().items() if ids and host not in ids}

    def _boot_ids(self) -> dict[str, frozenset[str]]:
        file = self.root / _BOOT_IDS
        return parse(file.read_text("utf-8")) if file.exists() else {}

    def run(
        self, *args: str, plugins: Sequence[str] | None = (), env: Mapping[str, str] | None = None
    ) -> Outcome:
        """Run pytest with ``args`` as they are; ``env`` adds to its environment."""
        (self.root / _BOOT_IDS).unlink(missing_ok=True)
        done = subprocess.run(
            self.command(*args),
            cwd=self.root,
            env={**_environment(plugins), **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIMIT,
            check=False,
        )
        return Outcome(done.returncode, done.stdout.splitlines(), done.stderr.splitlines(), _files(self.root))

    def plain(
        self, *args: str, plugins: Sequence[str] | None = (), env: Mapping[str, str] | None = None
    ) -> Outcome:
        """A run without ``--smol``: only marked tests run in machines."""
        return self.run(*args, plugins=plugins, env=env)

    def smol(
        self,
        *args: str,
        plugins: Sequence[str] | None = (),
        env: Mapping[str, str] | None = None,
        runs_tests: bool = True,
    ) -> Outcome:
        """A run in machines."""
        outcome = self.run("--smol", *args, plugins=plugins, env=env)
        self.assert_in_machines(" ".join(("--smol", *args)), runs_tests)
        return outcome

    def both(
        self,
        *runs: str,
        plugins: Sequence[str] | None = (),
        env: Mapping[str, str] | None = None,
        runs_tests: bool = True,
    ) -> list[PairOfRuns]:
        """Each of the command lines ``runs``: one after the other plainly, then all anew in machines."""
        lines = [run.split() for run in runs or ("",)]
        shutil.copytree(self.root, self._pristine, dirs_exist_ok=True)
        plain = [self.plain(*line, plugins=plugins, env=env) for line in lines]
        _empty(self.root)
        shutil.copytree(self._pristine, self.root, dirs_exist_ok=True)
        shutil.rmtree(self._pristine)
        smol = [self.smol(*line, plugins=plugins, env=env, runs_tests=runs_tests) for line in lines]
        return list(zip(plain, smol, strict=True))

    def same(
        self,
        *runs: str,
        plugins: Sequence[str] | None = (),
        env: Mapping[str, str] | None = None,
        volatile: Iterable[str] = (),
    ) -> Outcome:
        """Assert that each of ``runs`` looks the same plainly and in machines; gives the last, in machines.

        What matches a regular expression of ``volatile`` may differ (a temporary name, a measured number).
        """
        pairs = self.both(*runs, plugins=plugins, env=env)
        patterns = [re.compile(pattern) for pattern in volatile]
        for plain, smol in pairs:
            differs = difference(
                *([_steady(line, patterns) for line in run.comparable()] for run in (plain, smol))
            )
            if differs:
                pytest.fail(differs, pytrace=False)
        return pairs[-1][1]


def _steady(line: str, patterns: Iterable[re.Pattern[str]]) -> str:
    for pattern in patterns:
        line = pattern.sub("VOLATILE", line)
    return line


def _environment(plugins: Sequence[str] | None) -> dict[str, str]:
    """This process's variables without what steers a pytest or a Python, and the same width everywhere."""
    dropped = ("PYTEST_", "PYTHON", "COV_", "HYPOTHESIS_")
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(dropped) and name != "CI"
    }
    kept |= {"COLUMNS": "80", "SMOL_BOOT_IDS": _BOOT_IDS}
    if plugins is None:
        return {**kept, "PYTEST_ADDOPTS": "-p smol_boot_ids"}
    named = " ".join(f"-p {name}" for name in ("smol", "smol_boot_ids", *plugins))
    return {**kept, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": named}
