"""Consoles that are kept as files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_smol.errors import SettingError
from pytest_smol.machine import consoles
from pytest_smol.machine.consoles import ConsoleFile, Consoles, safe_name


def opened(kept: Consoles, title: str) -> ConsoleFile:
    file = kept.open(title)
    assert file is not None
    return file


def test_without_a_directory_nothing_is_kept() -> None:
    assert Consoles(None).open("base 256") is None


def test_what_a_console_shows_is_in_its_file_at_once_and_raw(tmp_path: Path) -> None:
    with opened(Consoles(tmp_path / "a" / "b"), "tests/test_a.py::test_b[1/2]") as file:
        file.write(b"\x1b[31mred\r\n")
        file.write(b"\x00\xff")
        (path,) = (tmp_path / "a" / "b").iterdir()
        assert path.name == "tests-test_a.py-test_b-1-2.log"
        assert path.read_bytes() == b"\x1b[31mred\r\n\x00\xff"


def test_machines_of_one_run_have_files_of_their_own(tmp_path: Path) -> None:
    kept = Consoles(tmp_path)
    for title in ("test_a.py::test", "test_a.py: test", "other"):
        with opened(kept, title) as file:
            file.write(title.encode())
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "test_a.py-test.log": "test_a.py::test",
        "test_a.py-test-2.log": "test_a.py: test",
        "other.log": "other",
    }


def test_workers_have_files_of_their_own(tmp_path: Path) -> None:
    for worker in ("gw0", "gw1"):
        opened(Consoles(tmp_path, worker), "base").__exit__()
    assert {path.name for path in tmp_path.iterdir()} == {"gw0-base.log", "gw1-base.log"}


def test_a_later_run_begins_its_files_anew(tmp_path: Path) -> None:
    for text in (b"first run", b"second"):
        with opened(Consoles(tmp_path), "base") as file:
            file.write(text)
    assert (tmp_path / "base.log").read_bytes() == b"second"


def test_no_more_is_kept_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consoles, "MOST_KEPT", 10)
    with opened(Consoles(tmp_path), "base") as file:
        for _ in range(5):
            file.write(b"1234")
    text = (tmp_path / "base.log").read_bytes()
    assert text.startswith(b"1234123412\n[pytest-smol keeps no more than")
    assert text.endswith(b"]\n")
    assert text.count(b"pytest-smol") == 1


@given(st.text())
def test_no_title_makes_a_name_that_is_none_or_leads_elsewhere(title: str) -> None:
    name = safe_name(title)
    assert 0 < len(name) <= 200
    assert name.isascii()
    assert "/" not in name
    assert name.isprintable()
    assert name[0] not in "-."


def test_a_link_in_the_directory_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "base.log").symlink_to(tmp_path / "precious")
    with pytest.raises(SettingError, match=r"base\.log cannot be written"):
        Consoles(tmp_path).open("base")
    assert (tmp_path / "precious").read_text() == "kept"


def test_a_directory_that_cannot_be_made_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match="smol_keep_console"):
        Consoles(tmp_path / "file" / "below")
