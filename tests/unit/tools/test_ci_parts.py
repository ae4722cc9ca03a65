"""The parts of scripts/test: no test is left out or run twice, and how they are run at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.ci import run
from tests.ci.parts import FOLDERS, Folder, Part, parts_of, queue
from tests.kvm.l1 import QUICK, SKIPPED

ROOT = Path(__file__).resolve().parents[3]


def _files(part: Part) -> list[str]:
    paths = [ROOT / path for path in part.paths]
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("test_*.py"))]
    return [str(file.relative_to(ROOT)) for file in files]


def test_each_test_file_is_in_one_part() -> None:
    found = Counter(file for part in queue() for file in _files(part))
    all_files = [str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")]
    assert found == Counter(all_files)


def test_each_path_exists() -> None:
    assert [path for folder in FOLDERS for path in folder.paths if not (ROOT / path).exists()] == []


def _folder(tmp_path: Path, *sizes: int) -> None:
    (tmp_path / "tests" / "a").mkdir(parents=True)
    for number, size in enumerate(sizes):
        (tmp_path / "tests" / "a" / f"test_{number}.py").write_bytes(b"#" * size)


def test_pieces_are_of_about_one_size(tmp_path: Path) -> None:
    _folder(tmp_path, 100, 50, 40, 10)
    parts = parts_of(Folder(("tests/a",), 60, pieces=2), tmp_path)
    assert parts == [
        Part("a 1/2", ("tests/a/test_0.py",), 30),
        Part("a 2/2", ("tests/a/test_1.py", "tests/a/test_2.py", "tests/a/test_3.py"), 30),
    ]


@pytest.mark.parametrize(("files", "pieces"), [(2, 2), (5, 3)])
def test_no_piece_is_empty(tmp_path: Path, files: int, pieces: int) -> None:
    _folder(tmp_path, *[7] * files)
    parts = parts_of(Folder(("tests/a",), 60, pieces=3), tmp_path)
    assert len(parts) == pieces
    assert all(part.paths for part in parts)


def test_the_first_folder_comes_first_and_then_the_longest_part(tmp_path: Path) -> None:
    rows = [Folder((f"tests/{name}",), seconds) for name, seconds in (("a", 1), ("b", 2), ("c", 3))]
    assert [part.name for part in queue(rows, tmp_path)] == ["a", "c", "b"]


def _script(text: str) -> Part:
    """A part that runs ``text`` as a program, by means of :func:`_python`."""
    return Part(text.rsplit("#", maxsplit=1)[-1], (text,), 1)


def _python(part: Part) -> list[str]:
    return [sys.executable, "-c", *part.paths]


def test_all_output_is_printed_and_one_failure_makes_the_status_1(capfd: pytest.CaptureFixture[str]) -> None:
    parts = [
        _script("print('out of one') #one"),
        _script("import sys; sys.exit('error of two') #two"),
        _script("print('out of three') #three"),
    ]
    assert run.main(parts, _python, slots=2) == 1
    out, err = capfd.readouterr()
    assert err == ""
    assert {"out of one", "error of two", "out of three"} < set(out.splitlines())
    verdicts = out.rpartition("where the time went")[2].splitlines()[1:]
    assert sorted(line.split("s  ")[1] for line in verdicts) == [
        "one: passed",
        "three: passed",
        "two: failed (status 1)",
    ]


def test_parts_that_all_pass_make_the_status_0() -> None:
    assert run.main([_script("pass #one"), _script("pass #two")], _python, slots=2) == 0


def test_a_part_that_is_skipped_is_no_failure(capfd: pytest.CaptureFixture[str]) -> None:
    assert run.main([_script(f"import sys; sys.exit({SKIPPED}) #one")], _python, slots=1) == 0
    assert "one: skipped, its output says why" in capfd.readouterr().out


def test_the_tests_of_kvm_run_where_kvm_works() -> None:
    command = run.pytest_command(Part("kvm", ("tests/kvm",), 1, kvm=True))
    assert command[1:4] == ["-m", "tests.kvm.l1.run", "--or-skip"]
    assert tuple(command[-len(QUICK) :]) == QUICK


def test_a_part_that_is_killed_has_failed(capfd: pytest.CaptureFixture[str]) -> None:
    assert run.main([_script("import os; os.kill(os.getpid(), 9) #one")], _python, slots=1) == 1
    assert "one: failed (status -9)" in capfd.readouterr().out


#: Two parts that can only end if they run at the same time: each opens one end of a named pipe.
MEET = """
import os, sys
os.close(os.open({pipe!r}, os.{flag}))
#{name}"""


def test_as_many_parts_run_at_once_as_there_are_slots(tmp_path: Path) -> None:
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    parts = [_script(MEET.format(pipe=pipe, flag=flag, name=flag)) for flag in ("O_RDONLY", "O_WRONLY")]
    assert run.main(parts, _python, slots=2) == 0


#: A run of parts of which each says that it runs, by its pid in a named pipe, and then waits for a signal.
RUN = """
import sys
from tests.ci import run
from tests.ci.parts import Part
part = {part!r}
command = lambda each: [sys.executable, "-c", part]
sys.exit(run.main([Part(str(n), (), 1) for n in range(3)], command, slots=2))
"""

WAITS = """
import os, signal, sys
signal.signal(signal.SIGINT, {on_interrupt})
with open({pipe!r}, "w") as pipe:
    pipe.write(f"{{os.getpid()}}\\n")
while True:
    signal.pause()
"""


def _interrupted(tmp_path: Path, on_interrupt: str, *signals: signal.Signals) -> tuple[int, str, list[int]]:
    """Start :data:`RUN`, and send it ``signals`` once two parts run; its status, output, and their pids."""
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    keep = os.open(pipe, os.O_RDWR)
    part = WAITS.format(on_interrupt=on_interrupt, pipe=pipe)
    process = subprocess.Popen(
        [sys.executable, "-c", RUN.format(part=part)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        with open(keep) as lines:
            pids = [int(lines.readline()) for _ in range(2)]
            for number in signals:
                process.send_signal(number)
                if number != signals[-1]:  # the parts tell that they were interrupted
                    assert [lines.readline() for _ in pids] == ["interrupted\n"] * 2
        out, _ = process.communicate(timeout=300)
    finally:
        process.kill()
        process.wait()
    return process.returncode, out, pids


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_interrupts_all_parts_and_starts_no_more(tmp_path: Path, number: signal.Signals) -> None:
    status, out, pids = _interrupted(tmp_path, "signal.default_int_handler", number)
    assert status == 130
    assert out.count("KeyboardInterrupt") == 2
    assert out.count(": started") == 2
    assert out.endswith("interrupted: not all tests were run\n")
    assert all(_gone(pid) for pid in pids)


def test_a_second_signal_kills_parts_that_do_not_end(tmp_path: Path) -> None:
    says = f"lambda *_: print('interrupted', file=open({str(tmp_path / 'pipe')!r}, 'w'))"
    status, out, pids = _interrupted(tmp_path, says, signal.SIGINT, signal.SIGTERM)
    assert status == 130
    assert out.count("failed (status -9)") == 2
    assert all(_gone(pid) for pid in pids)
