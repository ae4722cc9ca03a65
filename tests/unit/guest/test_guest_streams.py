"""The guest's standard streams lead to ports, which take a part of what is written to them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_smol.guest.terminal.streams import Whole


def test_all_is_written_whatever_a_port_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    path = tmp_path / "port"
    with path.open("wb", buffering=0) as port:
        assert Whole(port.fileno()).write(b"a line of text\n" * 3) == 45
        assert Whole(port.fileno()).write(memoryview(b"")) == 0
    assert path.read_bytes() == b"a line of text\n" * 3


SHOW = """
import os, sys
from types import SimpleNamespace
from pytest_smol.guest.terminal.streams import mark_output

taken = []

def port(fd, data, write=os.write):
    taken.append(fd)
    return write(fd, data[:32768])

os.write = port
mark_output(SimpleNamespace(before_message=None), uncaptured=True)
sys.stdout.write("x" * 100_000)
sys.stderr.write("y" * 100_000)
assert taken == [1] * 4 + [2] * 4, taken
assert (sys.stdout.name, sys.stdout.mode, sys.__stdout__) == ("<stdout>", "w", sys.stdout)
"""


def test_python_without_buffers_loses_nothing() -> None:
    done = subprocess.run([sys.executable, "-u", "-c", SHOW], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (done.stdout, done.stderr) == ("x" * 100_000, "y" * 100_000)
