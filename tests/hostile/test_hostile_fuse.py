"""Guests that send any FUSE message: they read what their view shows, change nothing and keep no more."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import stat
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_smol.host import beneath
from pytest_smol.host.beneath import Beneath
from pytest_smol.virtiofs import fuse
from pytest_smol.virtiofs.filesystem.node_table import FrozenNodes, NodeTable
from pytest_smol.virtiofs.filesystem.tree import MAX_LISTED, Tree
from pytest_smol.virtiofs.fuse import Opcode
from pytest_smol.virtiofs.view import Content, HostPath, View
from tests.unit.virtiofs.fake_guest import request
from tests.unit.virtiofs.fuse_client import Client, fails

LOOKUPS = 100_000
DESCRIPTORS = 256
SWAPS = 10_000


@pytest.fixture
def project(tmp_path: Path) -> Path:
    made = tmp_path / "project"
    (made / "d").mkdir(parents=True)
    (made / "d" / "file").write_text("inside")
    (made / "top").write_text("top")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("outside")
    return made


@pytest.fixture
def client(project: Path) -> Iterator[Client]:
    """The hostile guest's tree; its sibling's must be served afterwards."""
    view = View({"/p": HostPath(str(project)), "/etc/motd": Content(b"hello")})
    hostile, sibling = Client(Tree(view, final=True)), Client(Tree(view, final=True))
    node = sibling.walk("/p/top")
    yield hostile
    assert sibling.read(node) == b"top"
    for each in (hostile, sibling):
        each.tree.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# Names


BAD_NAMES = [
    *(b"", b"\0", b".\0", b"..\0", b"/\0", b"../outside\0", b"d/file\0", b"/etc/passwd\0", b"d\0file\0"),
    *(b"top", b"d\0\0", b"..\0..\0", b"\0top\0"),
]


@pytest.mark.parametrize("body", BAD_NAMES)
def test_a_name_is_one_component(client: Client, body: bytes) -> None:
    for parent in (1, client.walk("/p"), client.walk("/p/d"), client.walk("/etc")):
        with fails(errno.EINVAL):
            client.call(Opcode.LOOKUP, parent, body)


@pytest.mark.parametrize("length", [256, 4096, 65536])
def test_a_name_that_is_too_long(client: Client, length: int) -> None:
    with fails(errno.ENAMETOOLONG):
        client.lookup(client.walk("/p"), b"x" * length)


# The host's tree changes meanwhile


_SWAP = """
import os, sys
place, outside = sys.argv[1:]
os.symlink(outside, place + ".link")
print("ready", flush=True)
while True:
    os.rename(place, place + ".real")
    os.rename(place + ".link", place)
    os.rename(place, place + ".link")
    os.rename(place + ".real", place)
"""


@contextmanager
def swapped(place: Path, outside: Path) -> Iterator[None]:
    """Another process puts a link to ``outside`` in the place of a directory, and back, without end."""
    argv = [sys.executable, "-S", "-c", _SWAP, str(place), str(outside)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def attempt(action: Callable[[], bytes]) -> bytes:
    try:
        return action()
    except OSError as error:
        return b"%d" % (error.errno or 0)


@pytest.mark.parametrize(("way", "loops"), [(beneath.opener(), SWAPS), (beneath._walk, SWAPS // 4)])
def test_a_directory_that_is_swapped_for_a_link(
    client: Client, project: Path, way: beneath.Opener, loops: int
) -> None:
    client.tree._beneath._open_below = way
    directory = client.walk("/p/d")
    file = client.walk("/p/d/file")
    (project.parent / "outside" / "only-outside").touch()
    seen: set[bytes] = set()
    with swapped(project / "d", project.parent / "outside"):
        for _ in range(loops):
            seen.add(attempt(lambda: client.read(file)))
            client.tree._files.close()  # or what was opened once would be read for ever
            seen.add(attempt(lambda: b"%d" % client.lookup(directory, b"file")["size"]))
            seen.add(attempt(lambda: b" ".join(sorted(row[2] for row in client.list(directory)))))
            seen.add(attempt(lambda: client.call(Opcode.STATFS, file)[:0]))
    assert b"outside" not in seen
    assert b"7" not in seen  # the size of the file outside
    assert not any(b"only-outside" in text for text in seen)
    assert {b"inside", b". .. file"} <= seen
    assert b"%d" % errno.ENOTDIR in seen or b"%d" % errno.ENOENT in seen


def test_the_swap_leads_out_where_links_are_followed(project: Path) -> None:
    """So what the test above holds is owed to how paths are opened, not to luck."""
    (project / "d").rename(project / "old")
    (project / "d").symlink_to(project.parent / "outside")
    path = os.fsencode(project / "d" / "file")
    follows = Beneath(lambda root, name, flags: os.open(b"/" + name, flags))
    assert follows.lstat(path).st_size == len("outside")
    follows.close()
    careful = Beneath()
    with fails(errno.ENOTDIR):
        careful.lstat(path)
    careful.close()


def test_a_file_that_is_cut_while_it_is_read(client: Client, project: Path) -> None:
    (project / "large").write_bytes(b"x" * 100_000)
    node = client.walk("/p/large")
    assert len(client.read(node, 0, 65536)) == 65536
    os.truncate(project / "large", 10)
    assert client.read(node, 65536, 4096) == b""
    assert client.read(node, 0, 4096) == b"x" * 10


# Special files


def test_special_files_are_seen_but_never_opened(client: Client, project: Path) -> None:
    os.mkfifo(project / "fifo")
    os.mknod(project / "socket", stat.S_IFSOCK | 0o600)
    names = ["fifo", "socket"]
    if os.getuid() == 0:
        os.mknod(project / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        names.append("null")
    client.walk("/p")
    before = descriptors()
    for name in names:
        node = client.walk(f"/p/{name}")
        for opcode in (Opcode.READ, Opcode.LSEEK, Opcode.READDIR, Opcode.READLINK):
            with fails(errno.EINVAL, errno.ENOTDIR):
                client.call(opcode, node, fuse.READ_IN.pack({"size": 4096}))
    assert descriptors() == before
    with fails(errno.ENXIO):  # no process has it open
        os.open(project / "fifo", os.O_WRONLY | os.O_NONBLOCK)


def test_a_file_that_becomes_a_pipe_is_not_opened(client: Client, project: Path) -> None:
    node = client.walk("/p/top")
    (project / "top").unlink()
    os.mkfifo(project / "top")
    with fails(errno.ESTALE):
        client.read(node)
    (project / "top").unlink()
    (project / "top").write_text("top")


# Node ids and handles


def test_nodes_that_were_never_given_out(client: Client) -> None:
    known = client.walk("/p/d/file")
    bodies = {Opcode.LOOKUP: b"d\0", Opcode.STATFS: b""}
    for node in (0, known + 1, known + 1000, 1 << 32, (1 << 64) - 1):
        for opcode in (
            *(Opcode.LOOKUP, Opcode.GETATTR, Opcode.READ, Opcode.READDIR, Opcode.READDIRPLUS),
            *(Opcode.READLINK, Opcode.STATFS),
        ):
            with fails(errno.ESTALE):
                client.call(opcode, node, bodies.get(opcode, fuse.READ_IN.pack({"size": 10})))


def test_nodes_of_another_guest_mean_nothing(client: Client, project: Path) -> None:
    other = Client(Tree(View({"/q": HostPath(str(project.parent / "outside"))})))
    foreign = max(other.walk("/q/file"), *(other.lookup(1, b"q")["nodeid"] for _ in range(3)))
    with fails(errno.ESTALE):
        client.read(foreign)
    other.tree.close()


def test_handles_mean_nothing_whatever_their_number(client: Client) -> None:
    node = client.walk("/p/top")
    for handle in (0, 1, 3, 1 << 63, (1 << 64) - 1):
        body = fuse.READ_IN.pack({"fh": handle, "size": 100})
        for _ in range(2):  # the second time it is a closed one
            assert client.call(Opcode.READ, node, body) == b"top"
            assert client.call(Opcode.RELEASE, node, body) == b""


# Storms


def traced(storm: Callable[[], None]) -> int:
    """By how many bytes memory grew, once it ran a second time."""
    storm()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    storm()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return after - before


def test_lookups_that_are_forgotten_leave_nothing(client: Client) -> None:
    parent = client.walk("/p")

    def storm() -> None:
        for _ in range(5000):
            client.forget(client.lookup(parent, b"top")["nodeid"])

    assert traced(storm) < 64 << 10


def test_names_that_are_not_there_leave_nothing(client: Client) -> None:
    places = [client.walk("/p"), client.walk("/etc")]

    def storm() -> None:
        for n in range(5000):
            for place in places:
                attempt(lambda place=place, n=n: b"%d" % client.lookup(place, b"none-%d" % n)["nodeid"])

    assert traced(storm) < 64 << 10


def test_forgetting_too_much(client: Client) -> None:
    node = client.walk("/p/top")
    for forgotten in (0, 1, node + 5, (1 << 64) - 1):
        client.forget(forgotten, (1 << 64) - 1)
    assert client.read(node) == b"top"
    for _ in range(3):
        client.forget(node, (1 << 64) - 1)
    with fails(errno.ESTALE):
        client.read(node)
    assert client.read(client.walk("/p/top")) == b"top"
    rows = b"".join(struct.pack("<QQ", n, (1 << 64) - 1) for n in range(200))
    for count in (0, 1, 200, 201, 0xFFFFFFFF):
        client.tree.dispatch(request(Opcode.BATCH_FORGET, 0, struct.pack("<II", count, 0) + rows), 0)
        client.tree.dispatch(request(Opcode.BATCH_FORGET, 0, struct.pack("<II", count, 0) + rows[:-1]), 0)
    assert client.read(client.walk("/p/top")) == b"top"


@contextmanager
def few_descriptors(limit: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_many_lookups_and_reads_with_few_descriptors(client: Client, project: Path) -> None:
    for n in range(500):
        (project / f"file-{n}").write_text(f"{n}")
    parent = client.walk("/p")
    before = descriptors()
    with few_descriptors(DESCRIPTORS):
        for n in range(LOOKUPS):
            node = client.lookup(parent, b"file-%d" % (n % 500))["nodeid"]
            if n % 50 == 0:
                assert client.read(node) == b"%d" % (n % 500)
    assert descriptors() <= before + 65
    client.tree.close()
    assert descriptors() < before


def test_files_are_let_go_when_descriptors_run_out(client: Client, project: Path) -> None:
    nodes = []
    for n in range(50):
        (project / f"file-{n}").write_text(f"{n}")
        nodes.append(client.walk(f"/p/file-{n}"))
    taken: list[int] = []
    for node in nodes[:40]:
        client.read(node)
    with few_descriptors(DESCRIPTORS):
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            os.close(taken.pop())  # a lookup needs one for a moment, and so does opening
            assert client.read(nodes[45]) == b"45"
        finally:
            for fd in taken:
                os.close(fd)
    assert client.read(nodes[46]) == b"46"


def test_a_guest_that_holds_all_nodes_it_may(client: Client, project: Path) -> None:
    client.tree._nodes = NodeTable(FrozenNodes(), limit=100)
    for n in range(200):
        (project / f"file-{n}").touch()
    parent = client.walk("/p")
    held = []
    with fails(errno.ENFILE):
        for n in range(200):
            held.append(client.lookup(parent, b"file-%d" % n)["nodeid"])  # noqa: PERF401
    assert len(held) == 99
    assert client.lookup(parent, b"file-0")["nodeid"] == held[0]
    plus = client.list(parent, plus=True)
    assert len(plus) == 204
    assert sum(1 for nodeid, _, _ in plus if nodeid) == 99
    client.forget(held[0], 1000)
    assert client.lookup(parent, b"file-150")["nodeid"] > 0


# Listings


@pytest.mark.parametrize("plus", [False, True])
def test_listings_of_any_size_and_from_anywhere(client: Client, project: Path, plus: bool) -> None:
    for n in range(2000):
        (project / "d" / f"{n:04}-{'x' * 60}").touch()
    node = client.walk("/p/d")
    opcode = Opcode.READDIRPLUS if plus else Opcode.READDIR
    for size in (0, 1, 23, 24, 31, 0xFFFFFFFF):
        for offset in (0, 1, 1999, 5000, 1 << 63, (1 << 64) - 1):
            body = fuse.READ_IN.pack({"offset": offset, "size": size})
            assert len(client.call(opcode, node, body, 2 << 20)) <= min(size, MAX_LISTED)
            reply = client.tree.dispatch(request(opcode, node, body), 20)
            assert reply is not None
            assert len(reply) <= 20
    assert len(client.list(node, plus=plus)) == 2003


def test_listings_that_are_kept_have_a_bound(
    client: Client, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_smol.virtiofs.filesystem.listing.MAX_ENTRIES", 100)
    for n in range(30):
        (project / f"dir-{n}").mkdir()
        for m in range(20):
            (project / f"dir-{n}" / f"{m}").touch()
    for n in range(30):
        assert len(client.list(client.walk(f"/p/dir-{n}"))) == 22
    assert sum(len(kept.entries) for kept in client.tree._listings._kept.values()) <= 100


def test_a_directory_that_changes_all_the_time(client: Client, project: Path) -> None:
    node = client.walk("/p/d")
    for n in range(3000):
        (project / "d" / f"{n}").touch()
        assert f"{n}".encode() in {row[2] for row in client.list(node)}
        (project / "d" / f"{n}").unlink()
    assert len(client.tree._listings.get(node)[0].entries) < 2000


# Nothing is written


def fingerprint(top: Path) -> str:
    digest = hashlib.sha256()
    for place, directories, files in os.walk(top):
        directories.sort()
        for name in [".", *sorted(directories), *sorted(files)]:
            path = os.path.join(place, name)
            st = os.lstat(path)
            facts = (path, st.st_mode, st.st_uid, st.st_gid, st.st_size, st.st_mtime_ns, st.st_ctime_ns)
            digest.update(repr((facts, st.st_nlink, st.st_ino, os.listxattr(path))).encode())
            if stat.S_ISREG(st.st_mode):
                digest.update(Path(path).read_bytes())
    return digest.hexdigest()


READING = {
    *(Opcode.LOOKUP, Opcode.GETATTR, Opcode.READLINK, Opcode.READ, Opcode.STATFS, Opcode.OPEN),
    *(Opcode.OPENDIR, Opcode.READDIR, Opcode.READDIRPLUS, Opcode.LSEEK, Opcode.INIT, Opcode.DESTROY),
    *(Opcode.RELEASE, Opcode.RELEASEDIR, *fuse.SILENT),
}
BODIES = [
    b"",
    bytes(16) + b"new\0",
    b"top\0",
    b"top\0other\0",
    struct.pack("<QQ", 1, 0) + b"top\0moved\0",
    struct.pack("<II", 0o777, 0) + b"new\0",
    struct.pack("<IIII", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o777, 0, 0) + b"top\0",
    struct.pack("<QQII", 0, 0, 3, 0) + bytes(16) + b"abc",
    struct.pack("<II", 0xFFFF, 0) + bytes(80),
    struct.pack("<II", 3, 0) + b"user.x\0abc",
]


@pytest.mark.parametrize(
    "opcode", [opcode for opcode in Opcode if opcode not in READING], ids=lambda opcode: opcode.name
)
def test_whatever_would_write_is_refused(client: Client, project: Path, opcode: Opcode) -> None:
    nodes = [1, client.walk("/p"), client.walk("/p/d"), client.walk("/p/top"), client.walk("/etc/motd")]
    before = fingerprint(project)
    for node in nodes:
        for body in BODIES:
            with fails(errno.EROFS, errno.ENOSYS, errno.ENOTTY):
                client.call(opcode, node, body)
    assert fingerprint(project) == before


def test_opcodes_that_are_none_are_refused(client: Client, project: Path) -> None:
    node = client.walk("/p/top")
    before = fingerprint(project)
    for opcode in (0, 7, 19, *range(53, 300), 4096, 1 << 31, (1 << 32) - 1):
        with fails(errno.ENOSYS):
            client.call(opcode, node, BODIES[1])
    assert fingerprint(project) == before


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC | os.O_CREAT, 3])
def test_files_are_opened_for_reading_only(client: Client, project: Path, flags: int) -> None:
    client.init(flags=0)
    node = client.walk("/p/top")
    before = fingerprint(project)
    with fails(errno.EROFS):
        client.call(Opcode.OPEN, node, struct.pack("<II", flags, 0))
    assert fingerprint(project) == before
