"""Changes that a guest finds in the layer of its writes, a directory of this host here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_smol.guest.artifacts.written_files import Changes, Layer


@pytest.fixture
def layer(tmp_path: Path) -> Iterator[Layer]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield Layer(fd, "/guest")
    os.close(fd)


def next_changes(changes: Changes) -> dict[str, str]:
    return changes.next()[0]


def test_what_was_there_before_is_no_change(layer: Layer, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    changes = Changes(layer, "/guest")
    assert next_changes(changes) == {}
    assert changes.known() == ["/guest/a"]


def test_new_changed_and_deleted_files(layer: Layer, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("x")
    (tmp_path / "gone").write_text("x")
    changes = Changes(layer, "/guest")
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/e/new").write_text("x")
    (tmp_path / "old").write_text("longer")
    (tmp_path / "gone").unlink()
    expected = {"/guest/d/e/new": "new", "/guest/old": "changed", "/guest/gone": "deleted"}
    assert next_changes(changes) == expected
    assert next_changes(changes) == {}


def test_empty_directories_count_as_long_as_they_are_empty(layer: Layer, tmp_path: Path) -> None:
    (tmp_path / "filled").mkdir()
    changes = Changes(layer, "/guest")
    (tmp_path / "empty").mkdir()
    (tmp_path / "filled/d").mkdir()
    (tmp_path / "filled/d/a").write_text("x")
    assert next_changes(changes) == {"/guest/empty": "new", "/guest/filled/d/a": "new"}


def test_only_what_is_below_the_top_is_looked_at(layer: Layer, tmp_path: Path) -> None:
    changes = Changes(layer, "/guest/project")
    assert next_changes(changes) == {}  # nothing was written there: it is not in the layer
    (tmp_path / "project").mkdir()
    (tmp_path / "project/a").write_text("x")
    (tmp_path / "b").write_text("x")
    assert next_changes(changes) == {"/guest/project/a": "new"}


@pytest.mark.skipif(os.getuid() != 0, reason="only root makes device files")
def test_a_whiteout_is_a_deletion(layer: Layer, tmp_path: Path) -> None:
    changes = Changes(layer, "/guest")
    os.mknod(tmp_path / "a", 0o020000, os.makedev(0, 0))
    assert next_changes(changes) == {"/guest/a": "deleted"}


def test_a_file_that_may_change_again_unseen_is_told(layer: Layer, tmp_path: Path) -> None:
    changes = Changes(layer, "/guest")
    (tmp_path / "a").write_text("x")
    assert changes.next() == ({"/guest/a": "new"}, set())
    assert changes.next() == ({}, {"/guest/a"})


def test_links_are_not_followed(layer: Layer, tmp_path: Path) -> None:
    changes = Changes(layer, "/guest")
    (tmp_path / "link").symlink_to("/")
    assert next_changes(changes) == {"/guest/link": "new"}
    with pytest.raises(OSError, match="no regular file"):
        layer.open("/guest/link")


def test_only_regular_files_are_opened(layer: Layer, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "a").write_text("x")
    with pytest.raises(OSError, match="no regular file"):
        layer.open("/guest/fifo")
    os.close(layer.open("/guest/a"))
