"""Paths that are opened without following links, with openat2 and with the steps that replace it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_smol.host import beneath as module
from pytest_smol.host.beneath import Beneath


@pytest.fixture(params=["openat2", "steps"])
def beneath(request: pytest.FixtureRequest) -> Iterator[Beneath]:
    if request.param == "openat2" and module.opener() is module._walk:
        pytest.skip("this kernel has no openat2")
    made = Beneath(module._walk if request.param == "steps" else module._openat2)
    yield made
    made.close()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_text("content")
    (tmp_path / "a" / "link").symlink_to("b")
    (tmp_path / "a" / "out").symlink_to("/etc")
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


def fails(*numbers: int):
    known = "|".join(map(str, numbers))
    return pytest.raises(OSError, match=rf"^\[Errno ({known})\]")


@pytest.mark.parametrize("name", ["", "/a", "/a/b/file", "/a/link", "/fifo"])
def test_it_sees_what_lstat_sees(beneath: Beneath, tree: Path, name: str) -> None:
    path = os.fsencode(tree) + name.encode()
    assert beneath.lstat(path) == os.lstat(path)


def test_the_root_itself_can_be_looked_at(beneath: Beneath) -> None:
    assert beneath.lstat(b"/").st_ino == os.lstat("/").st_ino


@pytest.mark.parametrize("name", ["/a/link/file", "/a/out/passwd", "/a/b/file/x"])
def test_no_link_on_the_way_is_followed(beneath: Beneath, tree: Path, name: str) -> None:
    path = os.fsencode(tree) + name.encode()
    for look in (beneath.lstat, beneath.open_regular, beneath.readlink, beneath.statvfs):
        with fails(errno.ENOTDIR):
            look(path)
    with fails(errno.ENOTDIR), beneath.directory(path):
        pass


def test_a_magic_link_is_not_followed_either(beneath: Beneath) -> None:
    with fails(errno.ENOTDIR):
        beneath.lstat(b"/proc/self/root/etc")
    with fails(errno.ENOTDIR):
        beneath.lstat(b"/proc/%d/cwd/x" % os.getpid())


def test_a_link_at_the_end_is_not_followed(beneath: Beneath, tree: Path) -> None:
    link = os.fsencode(tree / "a" / "link")
    assert beneath.readlink(link) == b"b"
    with fails(errno.ENOTDIR, errno.ELOOP), beneath.directory(link):
        pass
    with fails(errno.ESTALE):
        beneath.open_regular(link)


@pytest.mark.parametrize("name", ["fifo", "a", "socket", "/dev/null", "/dev/tty"])
def test_only_regular_files_are_opened(beneath: Beneath, tree: Path, name: str) -> None:
    if name == "socket":
        os.mknod(tree / "socket", 0o140600)
    if name == "/dev/tty" and not os.path.exists(name):
        pytest.skip("no terminal here")
    with fails(errno.ESTALE):
        beneath.open_regular(os.fsencode(tree / name))


def test_a_file_is_read_without_the_right_to_write(beneath: Beneath, tree: Path) -> None:
    fd = beneath.open_regular(os.fsencode(tree / "a" / "b" / "file"))
    assert os.pread(fd, 100, 0) == b"content"
    with fails(errno.EBADF):
        os.write(fd, b"x")
    assert not os.get_inheritable(fd)
    os.close(fd)


@pytest.mark.parametrize("path", [b"/etc/../etc/passwd", b"/etc\0/passwd"])
def test_what_is_no_proper_path_is_refused(beneath: Beneath, path: bytes) -> None:
    with fails(errno.EINVAL):
        beneath.lstat(path)


def test_what_is_missing_is_told(beneath: Beneath, tree: Path) -> None:
    with fails(errno.ENOENT):
        beneath.lstat(os.fsencode(tree / "a" / "none"))
    with fails(errno.ENOENT):
        beneath.lstat(os.fsencode(tree / "none" / "none"))


def test_no_descriptor_is_left(beneath: Beneath, tree: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    for name in ("a/b/file", "a/link/file", "none/none", "a/b/none", "fifo"):
        path = os.fsencode(tree / name)
        for look in (beneath.lstat, beneath.readlink, beneath.statvfs):
            try:
                look(path)
            except OSError:
                continue
    beneath.close()
    beneath.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_kernel_without_openat2_takes_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (errno.ENOSYS, errno.EPERM):

        def refuse(root: int, path: bytes, flags: int, number: int = number) -> int:
            raise OSError(number, "refused")

        module.opener.cache_clear()
        monkeypatch.setattr(module, "_openat2", refuse)
        assert module.opener() is module._walk
    module.opener.cache_clear()
