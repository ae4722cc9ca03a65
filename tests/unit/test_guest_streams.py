"""The guest's standard streams lead to ports, which take a part of what is written to them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_smol.guest.streams import Whole


def test_all_is_written_whatever_a_port_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    path = tmp_path / "port"
    with path.open("wb", buffering=0) as port:
        assert Whole(port.fileno()).write(b"a line of text\n" * 3) == 45
        assert Whole(port.fileno()).write(memoryview(b"")) == 0
    assert path.read_bytes() == b"a line of text\n" * 3
