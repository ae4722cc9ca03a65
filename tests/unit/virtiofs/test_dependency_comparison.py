"""What counts as unchanged where inode numbers and times differ, and which device is which."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pytest_smol.virtiofs.dependencies import comparison
from pytest_smol.virtiofs.dependencies.comparison import NO_DEVICE, Comparison, Identity, changed, compare
from pytest_smol.virtiofs.dependencies.dependency import NOT_HASHED, FileDependency, hashed
from pytest_smol.virtiofs.dependencies.recorder import DependencyRecorder
from pytest_smol.virtiofs.filesystem.attributes import Devices
from pytest_smol.virtiofs.filesystem.state import TreeState

# --- files that were copied


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with a package, its compiled form, a link, and a file that is not read."""
    tree = tmp_path / "tree"
    (tree / "package" / "__pycache__").mkdir(parents=True)
    (tree / "package" / "__init__.py").write_text("one = 1")
    (tree / "package" / "__pycache__" / "__init__.pyc").write_bytes(b"compiled")
    (tree / "package" / "data").write_bytes(b"data")
    (tree / "package" / "unread").write_bytes(b"unread")
    (tree / "link").symlink_to("package")
    return tree


def record(tree: Path) -> tuple[FileDependency, ...]:
    """What a guest depends on that has listed all of ``tree`` and read its data and its compiled module."""
    recorder = DependencyRecorder()
    for directory, _, _ in os.walk(tree):
        names = os.listdir(directory)
        recorder.saw(os.fsencode(directory), os.lstat(directory))
        recorder.listed(os.fsencode(directory), os.lstat(directory), map(os.fsencode, names))
        for path in (Path(directory, name) for name in names):
            recorder.saw(os.fsencode(path), os.lstat(path))
    recorder.read(os.fsencode(tree / "package" / "data"))
    recorder.read(os.fsencode(tree / "package" / "__pycache__" / "__init__.pyc"))
    return hashed(recorder.freeze((), lambda st_dev: 0))


@pytest.fixture
def rows(tree: Path) -> tuple[FileDependency, ...]:
    return record(tree)


def copy_in_place(tree: Path) -> None:
    """As ``cp -r`` leaves it in another container: the same paths, other inode numbers and times."""
    old = tree.rename(tree.with_name("old"))
    shutil.copytree(old, tree, symlinks=True, copy_function=shutil.copy)
    for directory, _, files in os.walk(tree):
        for name in files:
            os.utime(Path(directory, name), ns=(1, 1), follow_symlinks=False)


def test_a_copied_tree_is_unchanged_but_moved(tree: Path, rows: tuple[FileDependency, ...]) -> None:
    assert compare(rows) == Comparison(None, identities(rows), (os.stat(tree).st_dev,), False)
    copy_in_place(tree)
    now = compare(rows)
    assert now == Comparison(None, identities(record(tree)), (NO_DEVICE,), True)
    assert now.identities != identities(rows)


def identities(rows: Sequence[FileDependency]) -> tuple[Identity, ...]:
    return tuple(Identity(row.ino, row.mtime_ns) for row in rows)


def test_known_identities_save_reading(
    tree: Path, rows: tuple[FileDependency, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_in_place(tree)
    known = compare(rows).identities

    def refuse(*_: object) -> str:
        raise AssertionError("nothing has to be read")

    monkeypatch.setattr(comparison, "content_digest", refuse)
    monkeypatch.setattr(comparison, "names_digest", refuse)
    assert compare(rows, known) == Comparison(None, known, (NO_DEVICE,), True)


def put(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda tree: (tree / name).write_bytes(content)


def link_elsewhere(tree: Path) -> None:
    (tree / "link").unlink()
    (tree / "link").symlink_to("nowhere")


CHANGES = [
    (put("package/data", b"DATA"), "package/data: was replaced"),
    (put("package/data", b"more data"), "package/data: size was 4, is 9"),
    (put("package/__init__.py", b"one = 2"), "package/__init__.py: was replaced"),
    (put("package/new", b""), "package: holds other names"),
    (link_elsewhere, "link: was replaced"),
    (lambda tree: (tree / "package" / "unread").chmod(0o640), "package/unread: mode was"),
]


@pytest.mark.parametrize(("change", "reason"), CHANGES, ids=[reason for _, reason in CHANGES])
def test_what_was_changed_in_a_copy_is_found(
    tree: Path, rows: tuple[FileDependency, ...], change: Callable[[Path], object], reason: str
) -> None:
    copy_in_place(tree)
    change(tree)
    assert (changed(rows) or "").startswith(f"{tree}/{reason}")


@pytest.mark.parametrize("name", ["package/unread", "package/__pycache__/__init__.pyc"])
def test_what_the_guest_does_not_depend_on_may_change(
    tree: Path, rows: tuple[FileDependency, ...], name: str
) -> None:
    copy_in_place(tree)
    put(name, bytes((tree / name).stat().st_size))(tree)
    assert changed(rows) is None


def test_a_link_with_another_target_of_the_same_length_is_found(tree: Path) -> None:
    rows = record(tree)
    (tree / "link").rename(tree.with_name("old"))
    (tree / "link").symlink_to("PACKAGE")
    assert changed(rows) == f"{tree}/link: was replaced"


def test_a_special_file_is_known_by_its_inode_number(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    recorder = DependencyRecorder()
    recorder.saw(os.fsencode(tmp_path / "fifo"), os.lstat(tmp_path / "fifo"))
    rows = hashed(recorder.freeze(()))
    assert changed(rows) is None
    (tmp_path / "fifo").rename(tmp_path / "old")
    os.mkfifo(tmp_path / "fifo")
    assert changed(rows) == f"{tmp_path / 'fifo'}: was replaced"


def test_a_file_that_changed_before_its_digest_was_taken_has_none(tmp_path: Path) -> None:
    path = tmp_path / "f.py"
    path.write_text("a")
    recorder = DependencyRecorder()
    recorder.saw(os.fsencode(path), os.lstat(path))
    path.write_text("b")
    os.utime(path, ns=(1, 1))
    (row,) = hashed(recorder.freeze(()))
    assert row.content == NOT_HASHED
    assert changed([row]) == f"{path}: was modified"
    path.unlink()
    assert [row.content for row in hashed([row])] == [NOT_HASHED]


def test_a_file_that_cannot_be_read_any_more_has_changed(
    tree: Path, rows: tuple[FileDependency, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_in_place(tree)

    def refuse(*_: object) -> str:
        raise PermissionError

    monkeypatch.setattr(comparison, "content_digest", refuse)
    assert "was replaced" in str(changed(rows))


# --- devices


FILE = stat.S_IFREG | 0o644


def row(path: str, device: int, ino: int) -> FileDependency:
    return FileDependency(path, FILE, ino, 0, 0, device=device)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """What the host has: st_dev and st_ino by path."""
    found: dict[str, tuple[int, int]] = {}

    def lstat(path: str) -> os.stat_result:
        if path not in found:
            raise FileNotFoundError(path)
        st_dev, st_ino = found[path]
        return os.stat_result((FILE, st_ino, st_dev, 1, *[0] * 12))  # times in seconds and in ns are 0

    monkeypatch.setattr(comparison, "lstat", lstat)
    return found


#: Two subvolumes or layers, whose inode numbers begin at the same one, and a path that is not there.
ROWS = [row("/a", 0, 257), row("/b", 1, 257), row("/b/c", 1, 258), FileDependency("/missing", 0, 0, 0, 0)]


def numbers(state: TreeState, host: dict[str, tuple[int, int]]) -> dict[str, int]:
    """The inode numbers that a guest sees which goes on from ``state``."""
    devices = Devices(state.devices)
    return {path: devices.ino(*found) for path, found in host.items()}


def test_devices_that_are_numbered_anew_change_nothing(
    host: dict[str, tuple[int, int]],
) -> None:
    host.update({"/a": (38, 257), "/b": (41, 257), "/b/c": (41, 258)})
    state = TreeState(devices=(38, 41))
    before = numbers(state, host)
    assert len(set(before.values())) == 3
    kept = TreeState.from_json(state.without_devices().to_json())
    host.update({"/a": (41, 257), "/b": (38, 257), "/b/c": (38, 258)})
    now = compare(ROWS)
    assert now == Comparison(None, now.identities, (41, 38), moved=False)
    assert numbers(kept.on_host(now), host) == before


MOVES = {
    "another inode number": {"/a": (38, 257), "/b": (41, 257), "/b/c": (41, 259)},
    "one device is two": {"/a": (38, 257), "/b": (41, 257), "/b/c": (42, 258)},
    "two devices are one": {"/a": (38, 257), "/b": (38, 257), "/b/c": (38, 258)},
    "all of it": {"/a": (38, 1), "/b": (38, 2), "/b/c": (38, 257)},
}


@pytest.mark.parametrize("found", MOVES.values(), ids=MOVES.keys())
def test_files_that_moved_never_get_a_number_that_another_had(
    host: dict[str, tuple[int, int]], found: dict[str, tuple[int, int]]
) -> None:
    host.update({"/a": (38, 257), "/b": (41, 257), "/b/c": (41, 258)})
    told = numbers(TreeState(devices=(38, 41)), host)
    host.update(found)
    now = compare(ROWS)
    assert now.reason is None
    assert now.moved
    state = TreeState(devices=(NO_DEVICE, NO_DEVICE)).on_host(now)
    assert state.moved
    for path, number in numbers(state, host).items():
        assert number not in {other for name, other in told.items() if name != path}


def test_a_device_without_files_is_forgotten_and_nothing_has_moved(host: dict[str, tuple[int, int]]) -> None:
    host.update({"/a": (38, 257), "/c": (41, 1)})
    now = compare([row("/a", 0, 257), row("/c", 2, 1)])
    assert now == Comparison(None, now.identities, (38, NO_DEVICE, 41), moved=False)
    state = TreeState(devices=(NO_DEVICE,) * 4).on_host(now)
    assert state.devices == (38, NO_DEVICE, 41, NO_DEVICE)
    devices = Devices(state.devices)
    assert devices.index(99) == 4
    assert devices.freeze() == (38, NO_DEVICE, 41, NO_DEVICE, 99)


def test_numbers_that_need_all_bits_stay_distinct() -> None:
    """overlayfs (xino) and others set the upper bits of inode numbers."""
    devices = Devices((7, 8))
    hosts = [5, 5 ^ 0x8000, 1 << 63 | 5, 1 << 62 | 5, 1 << 48 | 5, 5 << 48, (1 << 48) - 1]
    seen = {devices.ino(device, ino) for device in (7, 8, 9) for ino in hosts}
    assert len(seen) == 3 * len(hosts)
    assert devices.ino(7, 5) == 5
    assert max(seen) < 0xFFFF << 48
