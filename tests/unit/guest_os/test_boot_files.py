"""The boot files in the cache: when they are made, and when they are used again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pytest_smol.errors import KernelUnavailable
from pytest_smol.guest_os import boot_files
from pytest_smol.virtiofs.dependencies import comparison
from tests.unit.boot_samples import bzimage, elf, fake_busybox, install, unpack


def ignore(line: str) -> None:
    """Drop a line of progress."""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel tree, a busybox and a recipe that wants the modules a and c."""
    fake_busybox(tmp_path / "bin", elf(1), monkeypatch)
    recipe = tmp_path / "kernel.json"
    recipe.write_text('{"modules": ["c", "a"], "disks": [], "packages": {}}')
    monkeypatch.setattr(boot_files, "RECIPE", recipe)
    return install(tmp_path / "tree")


def test_boot_files_are_made_once(tmp_path: Path, host: Path) -> None:
    said: list[str] = []
    first = boot_files.prepare(tmp_path / "cache", str(host), said.append)
    assert len(said) == 1
    assert "6.1.0-test" in said[0]
    assert first.kernel == host
    names = [name for name, _, _ in unpack(first.initramfs.read_bytes())]
    assert [n for n in names if n.endswith(".ko")] == ["modules/b.ko", "modules/a.ko"]
    again = boot_files.prepare(tmp_path / "cache", str(host), said.append)
    assert again == first
    assert len(said) == 1


def test_equal_sources_give_equal_files_wherever_the_cache_is(tmp_path: Path, host: Path) -> None:
    one, two = (boot_files.prepare(tmp_path / name, str(host), ignore) for name in ("one", "two"))
    assert one.digest == two.digest
    assert one.initramfs.read_bytes() == two.initramfs.read_bytes()


def test_a_changed_busybox_gives_other_files_and_leaves_the_old_ones(tmp_path: Path, host: Path) -> None:
    first = boot_files.prepare(tmp_path / "cache", str(host), ignore)
    (tmp_path / "bin/busybox").write_bytes(elf(1, 1))
    second = boot_files.prepare(tmp_path / "cache", str(host), ignore)
    assert second.digest != first.digest
    assert first.initramfs.exists()
    assert second.initramfs.exists()


def test_a_second_installation_does_not_replace_what_guests_of_the_first_depend_on(
    tmp_path: Path, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = boot_files.prepare(tmp_path / "cache", str(host), ignore)
    files = [first.initramfs, *first.index.iterdir()]
    before = [path.stat() for path in files]
    other = tmp_path / "other" / "init"
    other.parent.mkdir()
    shutil.copy(boot_files.INIT, other)
    stamp = boot_files._name(str(host))
    with monkeypatch.context() as patched:
        patched.setattr(boot_files, "INIT", other)
        patched.setattr(boot_files, "PACKAGE", other.parent)
        said: list[str] = []
        assert boot_files.prepare(tmp_path / "cache", str(host), said.append) == first
        assert said != []
        assert boot_files._name(str(host)) != stamp
    assert [path.stat() for path in files] == before
    assert boot_files.prepare(tmp_path / "cache", str(host), pytest.fail) == first


def test_a_changed_kernel_gives_another_digest(tmp_path: Path, host: Path) -> None:
    first = boot_files.prepare(tmp_path / "cache", str(host), ignore)
    host.write_bytes(bzimage() + b"patched")
    assert boot_files.prepare(tmp_path / "cache", str(host), ignore).digest != first.digest


def copy_in_place(directory: Path) -> None:
    """As a restored cache or a fresh container has it: the same path, other inode numbers and times."""
    old = directory.rename(directory.with_name(f"{directory.name}.old"))
    shutil.copytree(old, directory, symlinks=True, copy_function=shutil.copy)


@pytest.mark.parametrize("copied", [("tree", "bin", "cache"), ("cache",), ("tree",)])
def test_copies_of_the_sources_and_the_cache_are_as_good(
    tmp_path: Path, host: Path, copied: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = boot_files.prepare(tmp_path / "cache", str(host), ignore)
    for name in copied:
        copy_in_place(tmp_path / name)
    said: list[str] = []
    assert boot_files.prepare(tmp_path / "cache", str(host), said.append) == first
    assert said == []
    # The new inode numbers and times are kept, so no content is compared again.
    monkeypatch.setattr(comparison, "content_digest", lambda path, mode: pytest.fail(path))
    assert boot_files.prepare(tmp_path / "cache", str(host), said.append) == first
    assert said == []


def test_a_change_in_a_copy_is_found(tmp_path: Path, host: Path) -> None:
    """Of the same size, and with the old time: only the content tells."""
    first = boot_files.prepare(tmp_path / "cache", str(host), ignore)
    before = host.stat()
    copy_in_place(tmp_path / "tree")
    content = host.read_bytes()
    host.write_bytes(content[:-1] + b"!")
    os.utime(host, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert host.stat().st_size == before.st_size
    assert boot_files.prepare(tmp_path / "cache", str(host), ignore).digest != first.digest


def test_a_link_to_another_kernel_is_found(tmp_path: Path, host: Path) -> None:
    other = host.with_name("vmlinuz-patched")
    other.write_bytes(bzimage()[:-1] + b"!")
    link = host.with_name("vmlinuz-default")
    link.symlink_to(host)
    first = boot_files.prepare(tmp_path / "cache", str(link), ignore)
    assert boot_files.prepare(tmp_path / "cache", str(link), ignore) == first
    link.unlink()
    link.symlink_to(other)
    assert boot_files.prepare(tmp_path / "cache", str(link), ignore).digest != first.digest


@pytest.mark.parametrize("stamp", [b"", b"{", b"[]", b"{}", b'{"initramfs": 3, "sources": 4}', b"\xff"])
def test_a_broken_stamp_is_no_stamp(tmp_path: Path, host: Path, stamp: bytes) -> None:
    first = boot_files.prepare(tmp_path / "cache", str(host), ignore)
    (path,) = (tmp_path / "cache/boot").glob("*.json")
    path.write_bytes(stamp)
    assert boot_files.prepare(tmp_path / "cache", str(host), ignore) == first


def test_a_lost_or_short_initramfs_is_made_again(tmp_path: Path, host: Path) -> None:
    first = boot_files.prepare(tmp_path / "cache", str(host), ignore)
    whole = first.initramfs.read_bytes()
    first.initramfs.write_bytes(whole[:-1])
    assert boot_files.prepare(tmp_path / "cache", str(host), ignore).initramfs.read_bytes() == whole
    first.initramfs.unlink()
    assert boot_files.prepare(tmp_path / "cache", str(host), ignore).initramfs.read_bytes() == whole


def test_a_kernel_without_a_needed_module_leaves_nothing_behind(tmp_path: Path, host: Path) -> None:
    (tmp_path / "tree/lib/modules/6.1.0-test/kernel/fs/a.ko").unlink()
    with pytest.raises(KernelUnavailable, match="module a"):
        boot_files.prepare(tmp_path / "cache", str(host), ignore)
    assert [path.name for path in (tmp_path / "cache/boot").iterdir()] == ["lock"]


def test_the_default_kernel_is_downloaded_once(
    tmp_path: Path, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []

    def download(into: Path, packages: object, progress: object) -> None:
        calls.append(into)
        install(into, image="boot/vmlinuz-6.1.0-test")

    monkeypatch.setattr(boot_files, "unpack_default", download)
    first = boot_files.prepare(tmp_path / "cache", None, ignore)
    assert boot_files.prepare(tmp_path / "cache", None, ignore) == first
    first.initramfs.unlink()
    assert boot_files.prepare(tmp_path / "cache", None, ignore) == first
    assert len(calls) == 1
