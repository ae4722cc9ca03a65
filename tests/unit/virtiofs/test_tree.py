from __future__ import annotations

import errno
import json
import os
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_smol.host.beneath import Beneath
from pytest_smol.virtiofs import fuse
from pytest_smol.virtiofs.dependencies.comparison import changed
from pytest_smol.virtiofs.dependencies.dependency import NOT_HASHED
from pytest_smol.virtiofs.filesystem.host_files import Files
from pytest_smol.virtiofs.filesystem.state import TreeState
from pytest_smol.virtiofs.filesystem.tree import FLAGS, VALID, Tree
from pytest_smol.virtiofs.fuse import InitFlag, Opcode
from pytest_smol.virtiofs.hiding.rules import Hiding
from pytest_smol.virtiofs.hiding.secrets import Secrets
from pytest_smol.virtiofs.view import Content, Directory, HostPath, Link, View
from tests.unit.virtiofs.fake_guest import request
from tests.unit.virtiofs.fuse_client import ALL, ROOM, Client, fails


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    entries = {
        "/host": HostPath(str(tmp_path)),
        "/etc/motd": Content(b"hello", mode=0o600, uid=3, gid=4),
        "/etc/link": Link("motd"),
        "/tmp": Directory(mode=0o1777),
        "/gone": HostPath(str(tmp_path / "no such")),
    }
    tree = Tree(View(entries))
    yield Client(tree)
    tree.close()


# INIT


def test_init_agrees_on_what_both_can(client: Client) -> None:
    reply = client.init(minor=36, flags=int(InitFlag.ASYNC_READ | InitFlag.MAX_PAGES) | 1 << 1)
    assert (reply["major"], reply["minor"], reply["max_pages"], reply["time_gran"]) == (7, 36, 256, 1)
    assert reply["flags"] == InitFlag.ASYNC_READ | InitFlag.MAX_PAGES
    assert client.init(minor=45)["minor"] == 38
    assert client.init()["flags"] == FLAGS


def test_init_refuses_kernels_that_are_too_old_and_lets_newer_majors_try_again(client: Client) -> None:
    for major, minor in ((7, 30), (6, 38)):
        with fails(errno.EPROTO):
            client.init(minor=minor, major=major)
    assert client.init(major=8)["major"] == 7


def test_opens_need_no_message_where_the_kernel_can_do_without(client: Client, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    client.init()
    for opcode in (Opcode.OPEN, Opcode.OPENDIR):
        with fails(errno.ENOSYS):
            client.call(opcode, client.walk("/host"), bytes(8))


def test_opens_have_no_handle_where_the_kernel_wants_one(client: Client, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    client.init(flags=0)
    file, directory = client.walk("/host/f"), client.walk("/host")
    assert fuse.OPEN_OUT.unpack(client.call(Opcode.OPEN, file, bytes(8)))["fh"] == 0
    assert fuse.OPEN_OUT.unpack(client.call(Opcode.OPENDIR, directory, bytes(8)))["fh"] == 0
    assert (
        client.call(Opcode.RELEASE, file, bytes(24))
        == client.call(Opcode.RELEASEDIR, directory, bytes(24))
        == b""
    )
    with fails(errno.EROFS):
        client.call(Opcode.OPEN, file, struct.pack("<II", os.O_RDWR, 0))
    with fails(errno.EINVAL):
        client.call(Opcode.OPEN, directory, bytes(8))
    with fails(errno.ENOTDIR):
        client.call(Opcode.OPENDIR, file, bytes(8))


# Attributes and lookups


def test_host_attributes_pass_through(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 5000)
    os.link(path, tmp_path / "g")
    path.chmod(0o4751)
    os.utime(path, ns=(-1_000_000_000 + 9, -5_000_000_000 + 7))
    host = path.lstat()
    entry = client.lookup(client.walk("/host"), b"f")
    assert (entry["entry_valid"], entry["attr_valid"]) == (VALID, VALID)
    for field in ("ino", "size", "blocks", "mode", "nlink", "uid", "gid", "rdev", "blksize"):
        assert entry[field] == getattr(host, f"st_{field}"), field
    assert (entry["atime"], entry["atimensec"]) == ((1 << 64) - 1, 9)
    assert (entry["mtime"], entry["mtimensec"]) == ((1 << 64) - 5, 7)
    attr = client.getattr(entry["nodeid"])
    assert {k: attr[k] for k in fuse.ATTR.fields} == {k: entry[k] for k in fuse.ATTR.fields}
    other = client.lookup(client.walk("/host"), b"g")
    assert other["ino"] == entry["ino"]
    assert other["nodeid"] != entry["nodeid"]


def test_special_files_are_shown_and_never_opened(client: Client, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        for name, kind in ((b"fifo", stat.S_IFIFO), (b"s", stat.S_IFSOCK)):
            entry = client.lookup(client.walk("/host"), name)
            assert stat.S_IFMT(entry["mode"]) == kind
            with fails(errno.EINVAL):
                client.read(entry["nodeid"])


def test_device_numbers_are_in_the_kernels_form(tmp_path: Path) -> None:
    entry = Client(Tree(View({"/null": HostPath("/dev/null")}))).lookup(1, b"null")
    assert entry["rdev"] == 1 << 8 | 3
    assert stat.S_ISCHR(entry["mode"])


def test_a_missing_name_is_remembered_on_the_host_but_not_in_the_view(client: Client) -> None:
    entry = client.lookup(client.walk("/host"), b"missing")
    assert (entry["nodeid"], entry["entry_valid"]) == (0, VALID)
    for parent, name in ((1, b"missing"), (client.walk("/etc"), b"shadow"), (1, b"gone")):
        with fails(errno.ENOENT):
            client.lookup(parent, name)
    assert client.tree.composed_misses == {"/missing", "/etc/shadow"}
    assert client.tree.freeze().composed_misses == {"/missing", "/etc/shadow"}


def test_what_the_view_composes(client: Client) -> None:
    motd, etc = client.lookup(client.walk("/etc"), b"motd"), client.lookup(1, b"etc")
    assert (motd["mode"], motd["uid"], motd["gid"], motd["size"]) == (stat.S_IFREG | 0o600, 3, 4, 5)
    assert client.read(motd["nodeid"]) == b"hello"
    assert client.read(motd["nodeid"], 3, 1) == b"l"
    assert client.read(motd["nodeid"], 1 << 63) == b""
    assert client.call(Opcode.READLINK, client.walk("/etc/link")) == b"motd"
    assert etc["mode"] == stat.S_IFDIR | 0o755
    assert client.lookup(1, b"tmp")["mode"] == stat.S_IFDIR | 0o1777
    assert client.getattr(1)["mode"] == stat.S_IFDIR | 0o755
    inos = {client.getattr(n)["ino"] for n in (1, etc["nodeid"], motd["nodeid"], client.walk("/host"))}
    assert len(inos) == 4


def test_what_is_there_is_remembered_and_what_the_view_lacks_is_not() -> None:
    client = Client(Tree(View({"/a/b": Content(b"")})))
    entry = client.lookup(1, b"a")
    assert entry["entry_valid"] == entry["attr_valid"] == client.getattr(1)["attr_valid"] == VALID
    with fails(errno.ENOENT):
        client.lookup(1, b"c")


def test_a_larger_view_has_other_times_and_the_same_nodes() -> None:
    small = View({"/a/b": Content(b"")})
    first = Client(Tree(small))
    a, root = first.lookup(1, b"a"), first.getattr(1)
    larger = Client(Tree(small.union({"/a/c": Content(b"new"), "/z": Directory()}), first.tree.freeze()))
    assert larger.getattr(a["nodeid"])["ino"] == a["ino"]
    assert larger.getattr(a["nodeid"])["mtime"] != a["mtime"]
    assert larger.getattr(1)["mtime"] != root["mtime"]
    assert larger.read(larger.lookup(a["nodeid"], b"c")["nodeid"]) == b"new"


def test_an_implied_directory_may_become_a_host_directory(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "other").touch()
    first = Client(Tree(View({"/p/src": HostPath(str(tmp_path / "src"))})))
    p, src = first.walk("/p"), first.walk("/p/src")
    second = Client(Tree(View({}).union({"/p": HostPath(str(tmp_path))}), first.tree.freeze()))
    assert second.getattr(p)["ino"] == tmp_path.stat().st_ino
    assert second.getattr(src)["ino"] == (tmp_path / "src").stat().st_ino
    assert second.lookup(p, b"src")["nodeid"] == src
    assert second.lookup(p, b"other")["nodeid"] > src


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/etc", b"a\0b"])
def test_a_lookup_is_of_one_component(client: Client, name: bytes) -> None:
    with fails(errno.EINVAL):
        client.lookup(client.walk("/host"), name)


def test_names_are_raw_bytes(client: Client, tmp_path: Path) -> None:
    name = b"\xff\xfe caf\xe9\n"
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_text("x")
    entry = client.lookup(client.walk("/host"), name)
    assert client.read(entry["nodeid"]) == b"x"
    assert name in [row[2] for row in client.list(client.walk("/host"))]
    with fails(errno.ENAMETOOLONG):
        client.lookup(client.walk("/host"), b"n" * 256)


def test_a_link_is_no_way_out(client: Client, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/")
    node = client.walk("/host/out")
    assert client.call(Opcode.READLINK, node) == b"/"
    with fails(errno.ENOTDIR):
        client.lookup(node, b"etc")
    for opcode in (Opcode.READDIR, Opcode.READDIRPLUS):
        with fails(errno.ENOTDIR):
            client.call(opcode, node, bytes(40))
    with fails(errno.EINVAL):
        client.read(node)


def test_a_directory_that_became_a_link_is_stale(client: Client, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    node = client.walk("/host/d")
    (tmp_path / "d").rmdir()
    (tmp_path / "d").symlink_to("/")
    with fails(errno.ESTALE):
        client.getattr(node)
    with fails(errno.ESTALE):
        client.lookup(node, b"etc")
    assert client.walk("/host/d") != node


def test_a_file_that_became_something_else_is_not_opened(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").touch()
    node = client.walk("/host/f")
    (tmp_path / "f").unlink()
    os.mkfifo(tmp_path / "f")
    opened: list[object] = []
    monkeypatch.setattr(os, "open", lambda *args: opened.append(args))
    with fails(errno.ESTALE):
        client.read(node)
    assert not opened


# Reading


def test_reads_are_cut_to_their_size_their_room_and_the_files_end(client: Client, tmp_path: Path) -> None:
    data = os.urandom(10_000)
    (tmp_path / "f").write_bytes(data)
    node = client.walk("/host/f")
    assert client.read(node) == data
    assert client.read(node, 5_000, 100) == data[5_000:5_100]
    assert client.read(node, 0, 1 << 31, room=16 + 700) == data[:700]
    assert client.read(node, 9_990, 100) == data[9_990:]
    assert client.read(node, 20_000) == b""
    assert client.read(node, room=16) == b""
    with fails(errno.EINVAL):
        client.read(node, (1 << 64) - 1)


def test_files_beyond_four_gigabytes(client: Client, tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.seek((4 << 30) + 5)
        file.write(b"end")
    entry = client.lookup(client.walk("/host"), b"big")
    assert entry["size"] == (4 << 30) + 8
    assert client.read(entry["nodeid"], (4 << 30) + 5) == b"end"


def test_seeks_for_data_and_holes(client: Client, tmp_path: Path) -> None:
    def seek(node: int, offset: int, whence: int) -> int:
        return fuse.LSEEK_OUT.unpack(
            client.call(Opcode.LSEEK, node, struct.pack("<QQII", 0, offset, whence, 0))
        )["offset"]

    (tmp_path / "f").write_bytes(b"data")
    with (tmp_path / "f").open("rb") as file:
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            assert seek(client.walk("/host/f"), 1, whence) == os.lseek(file.fileno(), 1, whence)
    assert (
        seek(client.walk("/etc/motd"), 2, os.SEEK_DATA),
        seek(client.walk("/etc/motd"), 2, os.SEEK_HOLE),
    ) == (2, 5)
    for node in (client.walk("/host/f"), client.walk("/etc/motd")):
        with fails(errno.ENXIO):
            seek(node, 99, os.SEEK_DATA)
        with fails(errno.EINVAL):
            seek(node, 0, os.SEEK_SET)


def test_a_file_that_is_replaced_is_read_anew_once_it_was_looked_at(client: Client, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    node = client.walk("/host/f")
    assert client.read(node) == b"old"
    (tmp_path / "g").write_bytes(b"new!")
    os.replace(tmp_path / "g", tmp_path / "f")
    assert client.read(node) == b"old"
    assert client.getattr(node)["size"] == 4
    assert client.read(node) == b"new!"
    (tmp_path / "f").unlink()
    assert client.read(node) == b"new!"
    with fails(errno.ENOENT):
        client.getattr(node)


def test_only_so_many_files_stay_open(client: Client, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for n in range(200):
        (tmp_path / f"{n}").write_text(f"{n}")
        assert client.read(client.walk(f"/host/{n}")) == b"%d" % n
    assert len(os.listdir("/proc/self/fd")) == before + 64 + 1  # and the root
    client.forget(client.walk("/host/199"), 2)
    assert len(os.listdir("/proc/self/fd")) == before + 63 + 1
    client.tree.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_file_that_was_read_last_stays_open_longest(tmp_path: Path) -> None:
    beneath = Beneath()
    files = Files(beneath, Secrets(Hiding(), (), beneath), limit=2)
    for name in ("a", "b", "c"):
        (tmp_path / name).touch()
    paths = [os.fsencode(tmp_path / name) for name in ("a", "b", "c")]
    first = files.get(1, paths[0])
    second = files.get(2, paths[1])
    assert files.get(1, paths[0]) == first
    files.get(3, paths[2])
    with fails(errno.EBADF):
        os.fstat(second)
    assert files.get(1, b"/not/looked/at") == first
    files.close()
    beneath.close()


# Directories


def test_a_listing_has_all_names_with_types_and_inode_numbers(client: Client, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "d").mkdir()
    (tmp_path / "l").symlink_to("f")
    rows = client.list(client.walk("/host"))
    assert [row[2] for row in rows] == [b".", b"..", b"d", b"f", b"l"]
    assert [row[1]["type"] for row in rows] == [4, 4, 4, 8, 10]
    assert [row[1]["ino"] for row in rows[2:]] == [(tmp_path / n).lstat().st_ino for n in "dfl"]
    assert rows[0][1]["ino"] == tmp_path.stat().st_ino
    assert rows[1][1]["ino"] == client.getattr(1)["ino"]


def test_a_composed_listing_leaves_out_what_the_host_lacks(client: Client) -> None:
    assert [row[2] for row in client.list(1)] == [b".", b"..", b"etc", b"host", b"tmp"]
    rows = client.list(client.walk("/etc"), plus=True)
    assert [(row[2], row[1]["type"]) for row in rows[2:]] == [(b"link", 10), (b"motd", 8)]
    assert rows[3][0] == client.walk("/etc/motd")


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("size", [300, 4096, 1 << 16])
def test_listings_of_any_page_size_are_whole(client: Client, tmp_path: Path, plus: bool, size: int) -> None:
    names = [b"%03d" % n + b"x" * (n % 50) for n in range(300)]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).touch()
    assert [row[2] for row in client.list(client.walk("/host"), size, plus)][2:] == names


def test_a_page_too_small_for_one_entry_is_empty(client: Client) -> None:
    assert client.page(1, size=0) == client.page(1, size=31) == client.page(1, size=150, plus=True) == []
    assert len(client.page(1, size=32)) == 1
    assert client.page(1, offset=(1 << 64) - 1) == []


def test_a_pass_that_is_under_way_is_not_disturbed(client: Client, tmp_path: Path) -> None:
    for name in "bcd":
        (tmp_path / name).touch()
    node = client.walk("/host")
    first = client.page(node, size=3 * 32)
    assert [row[2] for row in first] == [b".", b"..", b"b"]
    (tmp_path / "a").touch()
    (tmp_path / "c").unlink()
    assert [row[2] for row in client.page(node)] == [b".", b"..", b"b", b"d", b"a"]
    assert [row[2] for row in client.page(node, first[-1][1]["off"])] == [b"d", b"a"]


def test_readdirplus_counts_lookups_of_what_it_hands_out_only(client: Client, tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).touch()
    node = client.walk("/host")
    rows = client.page(node, size=4 * 160, plus=True)
    assert [(row[0] != 0, row[2]) for row in rows] == [
        (False, b"."),
        (False, b".."),
        (True, b"a"),
        (True, b"b"),
    ]
    state = client.tree.freeze()
    assert {n.path: n.nlookup for n in state.nodes.nodes.values() if n.path} == {
        b"/host": 1,
        b"/host/a": 1,
        b"/host/b": 1,
    }
    client.page(node, size=1 << 16, plus=True)
    assert client.tree.freeze().nodes.nodes[rows[2][0]].nlookup == 2


def test_readdirplus_of_an_entry_that_vanished_is_no_node(client: Client, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    node = client.walk("/host")
    client.page(node)
    (tmp_path / "a").unlink()
    assert [(row[0], row[2]) for row in client.page(node, offset=2, plus=True)] == [(0, b"a")]


# Forgetting


def test_a_forgotten_node_is_unknown(client: Client, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    node = client.walk("/host/f")
    client.walk("/host/f")
    client.forget(node)
    client.getattr(node)
    client.forget(node)
    for opcode in (Opcode.GETATTR, Opcode.READ, Opcode.READLINK, Opcode.STATFS):
        with fails(errno.ESTALE):
            client.call(opcode, node, bytes(40))
    client.forget(1, 1 << 60)
    client.getattr(1)


def test_many_are_forgotten_at_once(client: Client, tmp_path: Path) -> None:
    nodes = []
    for name in "abc":
        (tmp_path / name).touch()
        nodes.append(client.walk(f"/host/{name}"))
    rows = b"".join(struct.pack("<QQ", node, 1) for node in nodes)
    # The count says two; a third row, and half a row, are not looked at.
    body = struct.pack("<II", 2, 0) + rows + b"half"
    assert client.tree.dispatch(request(Opcode.BATCH_FORGET, 0, body), 0) is None
    left = client.tree.freeze().nodes.nodes
    assert [node in left for node in nodes] == [False, False, True]


def test_requests_without_reply_have_none_however_broken(client: Client) -> None:
    for opcode in (Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT):
        for body in (b"", b"x", bytes(7), bytes(9), struct.pack("<II", ALL, 0)):
            assert client.tree.dispatch(request(opcode, 1, body), ROOM) is None


# Refusals

EROFS = (
    "SETATTR SYMLINK MKNOD MKDIR UNLINK RMDIR RENAME LINK WRITE SETXATTR REMOVEXATTR CREATE "
    "FALLOCATE RENAME2 COPY_FILE_RANGE TMPFILE"
)
ENOSYS = (
    "FSYNC GETXATTR LISTXATTR FLUSH FSYNCDIR GETLK SETLK SETLKW ACCESS BMAP POLL SETUPMAPPING "
    "REMOVEMAPPING SYNCFS STATX"
)


@pytest.mark.parametrize(
    ("opcode", "number"),
    [
        *((Opcode[name], errno.EROFS) for name in EROFS.split()),
        *((Opcode[name], errno.ENOSYS) for name in ENOSYS.split()),
        (Opcode.IOCTL, errno.ENOTTY),
        (4096, errno.ENOSYS),
        (ALL, errno.ENOSYS),
        (0, errno.ENOSYS),
    ],
)
def test_what_is_not_served_is_refused_with_the_right_error(client: Client, opcode: int, number: int) -> None:
    with fails(number):
        client.call(opcode, 1, bytes(64))


@pytest.mark.parametrize(
    "opcode", [Opcode.INIT, Opcode.LOOKUP, Opcode.READ, Opcode.READDIR, Opcode.READDIRPLUS, Opcode.LSEEK]
)
def test_a_body_cut_short_is_invalid(client: Client, opcode: Opcode) -> None:
    with fails(errno.EINVAL):
        client.call(opcode, 1, b"\1")


def test_a_request_of_another_length_than_it_says_is_invalid(client: Client) -> None:
    for data in (request(3) + b"x", request(3)[:30]):
        assert client.tree.dispatch(data, 104) == fuse.encode_error(7, errno.EINVAL)
    assert client.tree.dispatch(request(3)[:15], 104) is None
    assert client.tree.dispatch(request(3) + b"x", 15) is None


def test_a_reply_that_does_not_fit_is_an_error_or_nothing(client: Client) -> None:
    assert client.tree.dispatch(request(Opcode.GETATTR), 119) == fuse.encode_error(7, errno.EIO)
    assert client.tree.dispatch(request(Opcode.GETATTR), 15) is None


@given(st.integers(0, 60), st.integers(0, 5), st.binary(max_size=64), st.integers(0, 300))
def test_nothing_a_guest_sends_raises(opcode: int, nodeid: int, body: bytes, room: int) -> None:
    tree = Tree(View({"/bin": HostPath("/bin"), "/etc/x": Content(b"x")}))
    for name in (b"bin", b"etc"):
        tree.dispatch(request(Opcode.LOOKUP, 1, name + b"\0"), ROOM)
    reply = tree.dispatch(request(opcode, nodeid, body), room)
    tree.close()
    assert reply is None or 16 <= len(reply) <= room


def test_statfs_and_destroy(client: Client, tmp_path: Path) -> None:
    host = os.statvfs(tmp_path)
    got = fuse.KSTATFS.unpack(client.call(Opcode.STATFS, client.walk("/host")))
    assert (got["blocks"], got["bsize"], got["namelen"]) == (host.f_blocks, host.f_bsize, host.f_namemax)
    assert fuse.KSTATFS.unpack(client.call(Opcode.STATFS))["namelen"] == 255
    assert client.call(Opcode.DESTROY) == b""


# Snapshots


def test_a_tree_goes_on_where_a_frozen_one_stopped(client: Client, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    client.init()
    node = client.walk("/host/f")
    state = TreeState.from_json(json.loads(json.dumps(client.tree.freeze().to_json())))
    assert state == client.tree.freeze()
    view = View({"/host": HostPath(str(tmp_path))})
    one, two = Client(Tree(view, state)), Client(Tree(view, state))
    for fork in (one, two):
        assert fork.read(node) == b"x"
        assert fork.walk("/host/f") == node
        with fails(errno.ENOSYS):
            fork.call(Opcode.OPEN, node, bytes(8))
    (tmp_path / "new").touch()
    assert one.walk("/host/new") == two.walk("/host/new") == state.nodes.next_id
    one.forget(node, 2)
    assert two.read(node) == b"x"


@pytest.mark.parametrize(
    "broken", [{}, {"nodes": None}, {"devices": ["x"]}, {"dependencies": [[]]}, {"flags": None}]
)
def test_a_state_that_is_none_is_refused(broken: dict[str, object]) -> None:
    table = {**TreeState().to_json(), **broken} if broken else {}
    with pytest.raises(ValueError, match=r"state|nodes|unpack|int\(\)"):
        TreeState.from_json(table)


def test_the_content_of_what_was_read_matters(client: Client, tmp_path: Path) -> None:
    for name in ("read", "seen", "module.py", "searched"):
        (tmp_path / name).write_text("x")
    (tmp_path / "link").symlink_to("read")
    client.read(client.walk("/host/read"))
    client.call(Opcode.LSEEK, client.walk("/host/searched"), struct.pack("<QQII", 0, 0, os.SEEK_DATA, 0))
    for name in ("seen", "module.py", "link"):
        client.walk(f"/host/{name}")
    rows = {Path(row.path).name: row for row in client.tree.freeze().dependencies if not row.names}
    matters = {name for name, row in rows.items() if row.content == NOT_HASHED}
    assert matters == {"read", "searched", "module.py", "link"}
    assert {row.device for row in rows.values()} == {0}


def test_what_was_looked_up_listed_or_missed_is_observed(client: Client, tmp_path: Path) -> None:
    for name in ("seen", "plain"):
        (tmp_path / name).mkdir()
    (tmp_path / "seen" / "f").touch()
    client.walk("/host/seen/f")
    client.lookup(client.walk("/host"), b"missing")
    client.list(client.walk("/host/plain"))
    rows = client.tree.freeze().dependencies
    got = {(row.path[len(str(tmp_path)) :], bool(row.mode), bool(row.names)) for row in rows}
    assert got == {
        ("", True, False),
        ("/seen", True, False),
        ("/seen/f", True, False),
        ("/missing", False, False),
        ("/plain", True, False),
        ("/plain", True, True),
    }
    assert changed(rows) is None
    (tmp_path / "plain" / "x").touch()
    assert changed(rows) == f"{tmp_path}/plain: holds other names"


def test_a_host_path_of_the_view_that_is_missing_is_observed(client: Client, tmp_path: Path) -> None:
    with fails(errno.ENOENT):
        client.lookup(1, b"gone")
    rows = client.tree.freeze().dependencies
    assert changed(rows) is None
    (tmp_path / "no such").touch()
    assert changed(rows) == f"{tmp_path}/no such: was not there before"


def test_file_systems_keep_their_inode_numbers_apart(tmp_path: Path) -> None:
    view = View({"/a": HostPath(str(tmp_path)), "/proc": HostPath("/proc/self"), "/sys": HostPath("/sys")})
    client = Client(Tree(view))
    inos = [client.lookup(1, name)["ino"] for name in (b"a", b"proc", b"sys")]
    assert inos[0] == tmp_path.stat().st_ino
    assert [ino >> 48 for ino in inos] == [0, 1, 2]
    fork = Client(Tree(view, client.tree.freeze()))
    assert fork.lookup(1, b"sys")["ino"] == inos[2]


def test_the_hosts_whole_root_may_be_a_view() -> None:
    client = Client(Tree(View({"/": HostPath("/")})))
    assert client.getattr(1)["ino"] == os.stat("/").st_ino
    assert client.lookup(client.walk("/usr"), b"bin")["ino"] == os.lstat("/usr/bin").st_ino
    assert {row[2] for row in client.list(1)} >= {b".", b"..", b"usr", b"etc"}
    paths = {row.path for row in client.tree.freeze().dependencies}
    assert {"/", "/usr", "/usr/bin"} <= paths
    assert not any(path.startswith("//") for path in paths)
