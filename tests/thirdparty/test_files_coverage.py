"""pytest-cov with tests in machines: what they cover is in the host's reports."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tests.thirdparty.bench import Bench

pytestmark = pytest.mark.vm

COV = ("pytest_cov",)

CORE = """
    import subprocess, sys
    from pathlib import Path

    def sign(x):
        if x > 0:
            return 1
        elif x < 0:
            return -1
        return 0

    def tool():
        subprocess.run([sys.executable, "-m", "pkg.tool"], check=True, cwd=Path(__file__).parents[1])

    def never():
        return 3
"""

TOOL = """
    import sys
    if len(sys.argv) > 3:
        print("never")
    print("tool")
"""

POSITIVE = """
    import pytest
    from pkg import core

    def test_positive(): assert core.sign(1) == 1
    def test_negative(): assert core.sign(-1) == -1
"""

ZERO = """
    from pkg import core

    def test_zero(): assert core.sign(0) == 0
    def test_tool(): core.tool()
"""


@pytest.fixture
def covered(bench: Bench) -> Bench:
    """A package of which each of two test modules covers a part, and a third module nothing."""
    bench.write("pkg/__init__.py", "")
    bench.write("pkg/core.py", CORE)
    bench.write("pkg/tool.py", TOOL)
    bench.write("pkg/unused.py", "x = 1\n")
    bench.write("test_a.py", POSITIVE)
    bench.write("test_b.py", ZERO)
    bench.write("pytest.ini", "[pytest]\npythonpath = .\n")
    bench.write("coverage.cfg", "[run]\npatch = subprocess\n")
    return bench


def reports(files: dict[str, str]) -> dict[str, str]:
    """The reports among ``files``, without the time of their making."""
    times = re.compile(r'timestamp"?[=:] ?"[^"]*"')
    return {name: times.sub("", text) for name, text in files.items() if name.endswith((".xml", ".json"))}


def rows(root: Path) -> list[tuple[object, ...]]:
    """All that the data file in ``root`` holds of lines and arcs, with their contexts."""
    query = (
        "select context, path, {what} from {table} "
        "join file on file.id = file_id join context on context.id = context_id"
    )
    with closing(sqlite3.connect(root / ".coverage")) as database:
        lines = list(database.execute(query.format(what="hex(numbits)", table="line_bits")))
        return sorted(lines + list(database.execute(query.format(what="fromno, tono", table="arc"))))


def test_reports_are_those_of_a_plain_run(covered: Bench) -> None:
    args = "--cov=pkg --cov-report=term-missing --cov-report=xml --cov-report=json --cov-branch"
    ((plain, smol),) = covered.both(args, plugins=COV)
    assert smol.comparable() == plain.comparable()
    assert reports(smol.files) == reports(plain.files)
    totals = json.loads(smol.files["coverage.json"])["totals"]
    assert totals["covered_branches"] == 4
    assert sorted(smol.files) == sorted(plain.files)


def test_contexts_subprocesses_and_data_that_is_appended_to(covered: Bench) -> None:
    args = ["--cov=pkg", "--cov-context=test", "--cov-config=coverage.cfg", "--cov-append"]
    found = []
    for run in (covered.plain, partial(covered.smol, "--smol-scope=test")):
        for test in ("test_a.py", "test_b.py"):
            outcome = run(*args, test, plugins=COV)
            assert outcome.status == 0, outcome
        found.append(rows(covered.root))
        (covered.root / ".coverage").unlink()
    assert found[1] == found[0]
    contexts = {row[0] for row in found[1]}
    assert contexts == {"", "test_a.py::test_positive|run", "test_a.py::test_negative|run", *BY_B}


BY_B = {"test_b.py::test_zero|run", "test_b.py::test_tool|run"}


def test_a_mixed_run_that_covers_too_little(covered: Bench) -> None:
    covered.write("test_a.py", POSITIVE.replace("def test_neg", "@pytest.mark.smol\n    def test_neg"))
    plain = covered.run("--cov=pkg", "--cov-fail-under=90", "test_a.py", plugins=COV)
    text = plain.text
    assert covered.ran_in_machines() == {"test_a.py::test_negative"}
    assert plain.status == 1
    assert re.search(r"pkg/core.py +\d+ +3 +", text), text
    assert "FAIL Required test coverage of 90% not reached" in text


def test_workers_of_xdist_send_what_their_machines_measured(covered: Bench) -> None:
    ((plain, smol),) = covered.both("--cov=pkg --cov-report=json -n2", plugins=(*COV, "xdist"))
    assert smol.status == plain.status == 0, smol
    assert reports(smol.files) == reports(plain.files)


def test_what_a_lost_machine_measured_is_told_to_be_lost(covered: Bench) -> None:
    covered.write("test_b.py", "import os\ndef test_dies(): os._exit(3)\n")
    outcome = covered.smol("--cov=pkg", plugins=COV)
    assert outcome.status == 1
    assert "what coverage measured in the VM is lost with it" in outcome.text
    assert "pkg/core.py" in outcome.text
    assert not [name for name in outcome.files if name.startswith(".coverage.")]
