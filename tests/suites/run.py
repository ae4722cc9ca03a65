"""Runs other projects' test suites on the host and with ``--smol`` and compares every outcome.

For each suite: the source release is downloaded once and unpacked afresh, and its own virtual
environment gets the project, what its tests need, and pytest-smol as a wheel of this checkout.
All tests of the runs with ``--smol`` must have run on another kernel than the host's.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from tests.evidence import boot_ids
from tests.suites.compare import Run, differences, parse, summary
from tests.suites.table import SUITES, Suite

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = (Path(__file__).with_name("smol_outcomes.py"), boot_ids.PLUGIN)
PYTEST = "pytest~=9.0"
RUN_SECONDS = 1800
WELL = frozenset({"passed", "skipped", "xfailed", "subtests passed"})


class SuiteError(Exception):
    """A suite could not be prepared or run; the message says what to look at."""


@dataclass(frozen=True)
class Place:
    """Where one suite's files are: its release, environment, unpacked tree and logs."""

    name: str
    folder: Path

    @property
    def environment(self) -> Path:
        return self.folder / "venv"

    @property
    def source(self) -> Path:
        return self.folder / "source"


def cache_folder() -> Path:
    """``pytest-smol-suites`` in the user's cache: what is there may be removed at any time."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pytest-smol-suites"


def call(command: Sequence[str | Path], log: Path) -> None:
    """Run a command with its output in ``log``. Raises :class:`SuiteError` with the log's end."""
    with log.open("w", encoding="utf-8") as output:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False)
    if done.returncode:
        raise SuiteError(f"{command[0]} {command[1]} ... exited with {done.returncode}:\n{tail(log)}")


def tail(log: Path, lines: int = 30) -> str:
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    return "\n".join(text.splitlines()[-lines:])


def pip(python: Path | str, *arguments: str | Path) -> list[str | Path]:
    return [python, "-m", "pip", "--disable-pip-version-check", *arguments]


def build_wheel(folder: Path) -> Path:
    """This checkout as a wheel: what a user gets, not what happens to lie around in the checkout."""
    call(pip(sys.executable, "wheel", "--no-deps", "-w", folder, ROOT), folder / "wheel.log")
    (wheel,) = folder.glob("pytest_smol-*.whl")
    return wheel


def release(place: Place, suite: Suite) -> Path:
    """The suite's source release, downloaded unless it is there."""
    folder = place.folder / "releases" / suite.version
    if not list(folder.glob("*.tar.gz")):
        folder.mkdir(parents=True, exist_ok=True)
        wanted = f"{place.name}=={suite.version}"
        log = place.folder / "download.log"
        call(
            pip(sys.executable, "download", "--no-deps", "--no-binary", place.name, "-d", folder, wanted), log
        )
    (archive,) = folder.glob("*.tar.gz")
    return archive


def unpack(place: Place, archive: Path) -> Path:
    """A fresh tree of the release. An earlier run may have left anything in the old one."""
    shutil.rmtree(place.source, ignore_errors=True)
    place.source.mkdir(parents=True)
    command: list[str | Path] = ["tar", "-x", "--no-same-owner", "-f", archive, "-C", place.source]
    call(command, place.folder / "unpack.log")
    (tree,) = place.source.iterdir()
    return tree


def stamp(suite: Suite, wheel: Path) -> str:
    """What an environment depends on: it is made anew when any of it changes."""
    files = (wheel, *PLUGINS)
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    return f"{sys.version}\n{suite}\n{PYTEST}\n{digest}\n"


def make_environment(place: Place, suite: Suite, archive: Path, wheel: Path) -> None:
    """A virtual environment with the project, its tests' needs and pytest-smol."""
    record = place.environment / "smol-suite"
    wanted = stamp(suite, wheel)
    if record.exists() and record.read_text(encoding="utf-8") == wanted:
        return
    log = place.folder / "environment.log"
    call([sys.executable, "-m", "virtualenv", "--clear", place.environment], log)
    python = place.environment / "bin" / "python"
    extras = f"[{','.join(suite.extras)}]" if suite.extras else ""
    project = f"{place.name}{extras} @ {archive.as_uri()}"
    call(pip(python, "install", project, wheel, PYTEST, *suite.requires), log)
    (packages,) = place.environment.glob("lib/python*/site-packages")
    for plugin in PLUGINS:
        shutil.copy(plugin, packages / plugin.name)
    record.write_text(wanted, encoding="utf-8")


def environ(place: Place, outcomes: Path, ids: Path) -> dict[str, str]:
    """The variables of an activated environment, without those that change how pytest runs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHON"))}
    bin_folder = place.environment / "bin"
    path = f"{bin_folder}{os.pathsep}{kept.get('PATH', os.defpath)}"
    own = {"VIRTUAL_ENV": str(place.environment), "SMOL_OUTCOMES": str(outcomes), "SMOL_BOOT_IDS": str(ids)}
    return {**kept, "PATH": path, **own}


def run(place: Place, suite: Suite, tree: Path, label: str, options: Sequence[str] = ()) -> Run:
    """One run of the suite; its output is kept as ``LABEL.log``."""
    outcomes, log = place.folder / f"{label}.json", place.folder / f"{label}.log"
    ids = place.folder / f"{label}-boot-ids.json"
    for file in (outcomes, ids):
        file.unlink(missing_ok=True)
    deselect = [f"--deselect={nodeid}" for nodeid, _ in suite.deselect]
    command: list[str | Path] = [
        place.environment / "bin" / "pytest",
        "-p",
        "smol_outcomes",
        "-p",
        "smol_boot_ids",
        "-p",
        "no:cacheprovider",
    ]
    command += [*options, *deselect, *suite.arguments, *suite.tests]
    start = time.monotonic()
    with log.open("w", encoding="utf-8") as output:
        done = subprocess.run(
            command,
            cwd=tree,
            env=environ(place, outcomes, ids),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            timeout=RUN_SECONDS,
            check=False,
        )
    seconds = time.monotonic() - start
    if not outcomes.exists() or not ids.exists():
        raise SuiteError(f"the {label} run ended with {done.returncode} and no outcomes:\n{tail(log)}")
    found = boot_ids.parse(ids.read_text(encoding="utf-8"))
    return parse(outcomes.read_text(encoding="utf-8"), done.returncode, seconds, found)


def compare(place: Place, suite: Suite, tree: Path, options: Sequence[str], both: Sequence[str] = ()) -> bool:
    """Whether runs on the host and with ``options`` had the same outcomes, all with the options ``both``."""
    plain = run(place, suite, tree, "plain", ["-p", "no:smol", *both])
    smol = run(place, suite, tree, "smol", [*options, *both])
    found = differences(plain, smol, boot_ids.host_boot_id())
    if not found:
        times = f"plain {plain.seconds:.1f} s, smol {smol.seconds:.1f} s"
        print(f"{place.name}: identical, {len(plain.tests)} tests, {times}", flush=True)
        return True
    print(f"{place.name}: {len(found)} differences, output in {place.folder}/plain.log and smol.log")
    for difference in found:
        print(f"  {difference}", flush=True)
    return False


def plainly(place: Place, suite: Suite, tree: Path, options: Sequence[str] = ()) -> bool:
    result = run(place, suite, tree, "plain", ["-p", "no:smol", *options])
    print(f"{place.name}: plain, {summary(result)}, exit status {result.status}, {result.seconds:.1f} s")
    for nodeid, outcome in {**result.tests, **result.collection}.items():
        if not WELL.issuperset(outcome.split(" + ")):
            print(f"  {nodeid}: {outcome}", flush=True)
    return bool(result.tests)


@contextmanager
def prepared(name: str, wheel: Path, fresh: bool) -> Iterator[tuple[Place, Path]]:
    """The suite's place and unpacked tree, held against other runs of the same suite."""
    suite = SUITES[name]
    place = Place(name, cache_folder() / name)
    place.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(place.folder.with_suffix(".lock")):
        if fresh:
            shutil.rmtree(place.folder)
            place.folder.mkdir()
        archive = release(place, suite)
        make_environment(place, suite, archive, wheel)
        yield place, unpack(place, archive)


def one(name: str, wheel: Path, arguments: argparse.Namespace) -> bool:
    """Prepare and run one suite. True if all was the same (or, with ``--plain``, if tests ran)."""
    both = [f"--outcomes-limit={arguments.limit}"] if arguments.limit else []
    options = ["--smol", *([f"--smol-scope={arguments.scope}"] if arguments.scope else [])]
    try:
        with prepared(name, wheel, arguments.fresh) as (place, tree):
            if arguments.plain:
                return plainly(place, SUITES[name], tree, both)
            return compare(place, SUITES[name], tree, options, both)
    except (SuiteError, subprocess.TimeoutExpired, ValueError) as error:
        print(f"{name}: {error}", flush=True)
        return False


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/suites", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("names", nargs="+", metavar="NAME", choices=SUITES, help=", ".join(SUITES))
    parser.add_argument("--scope", choices=["test", "module"], help="the VM's boundary, as --smol-scope")
    parser.add_argument("--limit", type=int, metavar="N", help="run N of the tests, the same in both runs")
    parser.add_argument("--fresh", action="store_true", help="download and install everything again")
    parser.add_argument("--plain", action="store_true", help="only run on the host: does the suite work?")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 if every suite's outcomes were identical."""
    arguments = parse_arguments(argv)
    with tempfile.TemporaryDirectory(prefix="pytest-smol-") as folder:
        try:
            wheel = build_wheel(Path(folder))
        except SuiteError as error:
            print(f"pytest-smol itself: {error}")
            return 1
        same = [one(name, wheel, arguments) for name in arguments.names]
    return 0 if all(same) else 1


if __name__ == "__main__":
    sys.exit(main())
