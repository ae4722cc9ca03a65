"""The initramfs, the kernel and its modules, the stamp in the cache and the kernel's command line."""

from __future__ import annotations

import gzip
import itertools
import lzma
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_smol import bootfiles, cpio, kernel, kernel_package
from pytest_smol.errors import HostError, KernelUnavailable, SettingError, ToolMissing
from pytest_smol.kernel import Module, load_order, modinfo, open_kernel, read_module, release_of
from pytest_smol.kernel_package import Recipe, choose_recipe, dependencies, to_download


def ignore(line: str) -> None:
    """A progress report that nobody reads."""


# --- cpio


def unpack(data: bytes) -> Iterator[tuple[str, dict[str, int], bytes]]:
    """An independent reader of the format."""
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        values = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        fields = dict(zip(cpio.FIELDS, values, strict=True))
        end = at + 110 + fields["namesize"]
        name = data[at + 110 : end - 1].decode()
        start = end + -end % 4
        if name == cpio.TRAILER:
            assert start == len(data)
            return
        yield name, fields, data[start : start + fields["filesize"]]
        at = start + fields["filesize"]
        at += -at % 4


@given(st.lists(st.tuples(st.from_regex(r"[a-z/é]{1,9}", fullmatch=True), st.binary(max_size=9)), max_size=4))
def test_an_archive_reads_back_as_written(members: list[tuple[str, bytes]]) -> None:
    found = list(unpack(cpio.archive(cpio.file(name, data) for name, data in members)))
    assert [(name, data) for name, _, data in found] == members


def test_kinds_of_members() -> None:
    members = [
        cpio.directory("d", 0o700),
        cpio.symlink("l", "target"),
        cpio.character_device("c", 5, 1),
        cpio.file("f", b"data", 0o755),
    ]
    found = {name: (fields, data) for name, fields, data in unpack(cpio.archive(members))}
    assert {name: fields["mode"] for name, (fields, _) in found.items()} == {
        "d": 0o040700,
        "l": 0o120777,
        "c": 0o020600,
        "f": 0o100755,
    }
    assert (found["c"][0]["rmaj"], found["c"][0]["rmin"]) == (5, 1)
    assert found["l"][1] == b"target"
    assert len({fields["ino"] for fields, _ in found.values()}) == len(members)
    assert all(fields["mtime"] == fields["uid"] == fields["gid"] == 0 for fields, _ in found.values())


def test_the_initramfs_lists_modules_in_the_order_given() -> None:
    modules = [Module("zeta", b"z"), Module("alpha", b"a")]
    found = {m.name: m for m in bootfiles.members(b"init", b"bb", modules)}
    assert found["modules.order"].data == b"zeta.ko\nalpha.ko\n"
    assert found["modules/zeta.ko"].data == b"z"
    assert found["init"].mode & 0o111


def test_every_command_of_init_is_in_the_initramfs() -> None:
    script = re.sub(r"#.*", "", bootfiles.INIT.read_text())
    for applet in ("mount", "insmod", "ifconfig", "switch_root", "poweroff"):
        assert re.search(rf"\b{applet}\b", script)
        assert applet in bootfiles.APPLETS


# --- the image's header


def bzimage(release: str = "6.1.0-test", *, magic: bytes = b"HdrS", version_at: int = 0x300) -> bytes:
    image = bytearray(0x1000)
    image[0x1F1] = 4
    struct.pack_into("<H", image, 0x1FE, 0xAA55)
    image[0x202:0x206] = magic
    struct.pack_into("<H", image, 0x20E, version_at - 0x200 if version_at else 0)
    text = f"{release} (builder@host) #1 SMP".encode() + b"\0"
    if version_at:
        image[version_at : version_at + len(text)] = text
    return bytes(image)


def test_the_release_is_the_first_word_of_the_version() -> None:
    assert release_of(bzimage("6.12.5-cloud-amd64")) == "6.12.5-cloud-amd64"


@pytest.mark.parametrize(
    "image",
    [
        b"",
        bzimage()[:0x20F],
        b"\x7fELF" + bytes(4096),
        bzimage(magic=b"XXXX"),
        bzimage(version_at=0),
        bzimage(version_at=0xF00),
        bzimage(release="../../etc"),
    ],
    ids=["empty", "cut", "elf", "magic", "no-version", "outside", "path"],
)
def test_what_is_no_bzimage_is_refused(image: bytes) -> None:
    with pytest.raises(KernelUnavailable):
        release_of(image)


# --- modules


def module(name: str, depends: str = "") -> bytes:
    return b"\x7fELF" + bytes(8) + f"license=GPL\0depends={depends}\0name={name}\0".encode() + b"tail"


def test_modinfo_wants_a_whole_key() -> None:
    data = b"\x7fELF\0xdepends=no\0depends=a,b\0depends=later\0"
    assert modinfo(data, "depends") == "a,b"
    assert modinfo(data, "alias") == ""


def test_a_modules_dependencies_are_names_with_underscores() -> None:
    assert Module("m", module("m", "virtio-ring,fuse")).depends == ("virtio_ring", "fuse")
    assert Module("m", module("m")).depends == ()


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [(".ko", bytes), (".ko.xz", lzma.compress), (".ko.gz", gzip.compress)],
)
def test_compressed_modules_are_read(tmp_path: Path, suffix: str, compress: type[bytes]) -> None:
    path = tmp_path / f"virtio-fs{suffix}"
    path.write_bytes(compress(module("x")))
    assert read_module(path) == Module("virtio_fs", module("x"))


@pytest.mark.skipif(not shutil.which("zstd"), reason="zstd is not installed")
def test_zstd_modules_are_read(tmp_path: Path) -> None:
    path = tmp_path / "fuse.ko.zst"
    path.write_bytes(
        subprocess.run(["zstd", "-qc"], input=module("x"), capture_output=True, check=True).stdout
    )
    assert read_module(path).data == module("x")


def test_a_missing_zstd_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "fuse.ko.zst").write_bytes(b"(\xb5/\xfd")
    with pytest.raises(ToolMissing, match="zstd"):
        read_module(tmp_path / "fuse.ko.zst")


@pytest.mark.parametrize("name", ["fuse.ko", "fuse.ko.xz", "fuse.ko.gz", "fuse.ko.zst"])
def test_a_damaged_module_is_named(tmp_path: Path, name: str) -> None:
    if name.endswith("zst") and not shutil.which("zstd"):
        pytest.skip("zstd is not installed")
    (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(KernelUnavailable, match=re.escape(name)):
        read_module(tmp_path / name)


def test_dependencies_are_loaded_first_and_once() -> None:
    table = {"c": "b,a", "b": "a", "a": "", "d": "c"}
    read = {name: Module(name, module(name, depends)) for name, depends in table.items()}
    for wanted in itertools.permutations("cd"):
        assert [m.name for m in load_order(wanted, (), read.get)] == ["a", "b", "c", "d"]


def test_builtin_modules_and_their_dependencies_are_left_out() -> None:
    read = {"b": Module("b", module("b", "a"))}
    assert [m.name for m in load_order(["a", "b"], ["a"], read.get)] == ["b"]


def test_modules_that_depend_on_each_other_do_not_hang() -> None:
    read = {"a": Module("a", module("a", "b")), "b": Module("b", module("b", "a"))}
    assert [m.name for m in load_order(["a"], (), read.get)] == ["b", "a"]


def test_a_missing_module_is_named_with_what_needs_it() -> None:
    read = {"virtiofs": Module("virtiofs", module("virtiofs", "fuse"))}
    with pytest.raises(KernelUnavailable, match="fuse, which virtiofs depends on"):
        load_order(["virtiofs"], (), read.get)


def install(root: Path, layout: str = "lib/modules", *, image: str = "boot/vmlinuz") -> Path:
    """A kernel tree with the modules a (depends on b), b, and the builtin c."""
    path = root / image
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bzimage())
    modules = root / layout.format("6.1.0-test") if "{" in layout else root / layout / "6.1.0-test"
    (modules / "kernel/fs").mkdir(parents=True)
    (modules / "modules.builtin").write_text("kernel/drivers/c.ko\n")
    (modules / "kernel/fs/a.ko").write_bytes(module("a", "b"))
    (modules / "kernel/fs/b.ko.xz").write_bytes(lzma.compress(module("b")))
    return path


@pytest.mark.parametrize("layout", ["lib/modules", "usr/lib/modules", "boot/lib/modules"])
def test_modules_are_found_beside_the_image(tmp_path: Path, layout: str) -> None:
    found = open_kernel(install(tmp_path, layout))
    assert found.release == "6.1.0-test"
    assert found.modules == tmp_path / layout / "6.1.0-test"
    assert found.builtin() == {"c"}
    assert set(found.files()) == {"a", "b"}


def test_modules_are_found_around_an_image_that_lies_among_them(tmp_path: Path) -> None:
    image = install(tmp_path, image="lib/modules/6.1.0-test/vmlinuz")
    assert open_kernel(image).modules == image.parent


def test_modules_are_found_through_a_link_to_the_image(tmp_path: Path) -> None:
    image = install(tmp_path / "tree")
    (tmp_path / "vmlinuz").symlink_to(image)
    assert open_kernel(tmp_path / "vmlinuz").modules == tmp_path / "tree/lib/modules/6.1.0-test"


def test_a_kernel_without_modules_or_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vmlinuz").write_bytes(bzimage())
    with pytest.raises(KernelUnavailable, match=r"no modules for its release 6\.1\.0-test"):
        open_kernel(tmp_path / "vmlinuz")
    with pytest.raises(KernelUnavailable, match="cannot be read"):
        open_kernel(tmp_path / "missing")


# --- the distribution's package

PACKAGES = {
    "debian": {"root": "root-d", "follow": ["l-"]},
    "ubuntu": {"root": "root-u", "follow": ["l-", "m-"]},
}


def test_the_recipe_is_chosen_by_id_then_by_likeness() -> None:
    assert choose_recipe(PACKAGES, {"ID": "debian"}) == Recipe("root-d", ("l-",))
    assert choose_recipe(PACKAGES, {"ID": "mint", "ID_LIKE": "ubuntu debian"}).root == "root-u"
    with pytest.raises(KernelUnavailable, match="plan9") as caught:
        choose_recipe(PACKAGES, {"ID": "plan9"})
    assert "smol_kernel" in caught.value.remedy


def test_dependencies_of_the_first_stanza_are_read() -> None:
    control = (
        "Package: p\nPre-Depends: no\nDepends: kmod, l-6.1 (= 6.1.1-2),\n"
        " linux-base (>= 4) | other, m-x:any\n"
        "Suggests: doc\n\nPackage: older\nDepends: l-5\n"
    )
    assert dependencies(control) == ["kmod", "l-6.1", "linux-base", "m-x"]
    assert dependencies("Package: p\n") == []
    assert dependencies("") == []


def test_dependencies_are_followed_by_prefix_and_once() -> None:
    table = {"root": "Depends: l-1, other", "l-1": "Depends: m-1, kmod", "m-1": "Depends: l-1"}
    assert to_download(Recipe("root", ("l-", "m-")), table.__getitem__) == ["l-1", "m-1"]


def test_without_package_lists_the_remedy_is_to_fetch_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "apt-cache").write_text("#!/bin/sh\necho 'E: No packages found' >&2; exit 100\n")
    (tmp_path / "apt-cache").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: {"ID": "debian"})
    with pytest.raises(KernelUnavailable, match="cannot be downloaded") as caught:
        kernel_package.unpack_default(tmp_path / "kernel", PACKAGES, print)
    assert "apt-get update" in caught.value.remedy
    assert "No packages found" in caught.value.evidence
    assert not (tmp_path / "kernel").exists()


def test_without_apt_the_remedy_is_to_name_a_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: {"ID": "debian"})
    with pytest.raises(KernelUnavailable, match="apt-cache is not installed") as caught:
        kernel_package.unpack_default(tmp_path / "kernel", PACKAGES, print)
    assert "smol_kernel" in caught.value.remedy


# --- busybox


def elf(*kinds: int) -> bytes:
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<Q", header, 0x20, 64)
    struct.pack_into("<HH", header, 0x36, 56, len(kinds))
    return bytes(header) + b"".join(struct.pack("<I", kind) + bytes(52) for kind in kinds)


@pytest.mark.parametrize(
    ("program", "static"),
    [
        (elf(1, 1), True),
        (elf(6, 3, 1), False),
        (elf(1, 1)[:-60], False),
        (b"#!/bin/sh\n", False),
        (b"", False),
        (b"\x7fELF\x02\x01", False),
    ],
)
def test_whether_a_program_is_static(program: bytes, static: bool) -> None:
    assert bootfiles.is_static(program) is static


def fake_busybox(directory: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / "busybox"
    path.write_bytes(content)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory))
    return path


def test_a_busybox_with_shared_libraries_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_busybox(tmp_path, elf(3), monkeypatch)
    with pytest.raises(ToolMissing, match="shared libraries") as caught:
        bootfiles.find_busybox()
    assert "busybox-static" in caught.value.remedy


# --- prepare


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel tree, a busybox and a recipe that wants the modules a and c."""
    fake_busybox(tmp_path / "bin", elf(1), monkeypatch)
    recipe = tmp_path / "kernel.json"
    recipe.write_text('{"modules": ["c", "a"], "packages": {}}')
    monkeypatch.setattr(bootfiles, "RECIPE", recipe)
    return install(tmp_path / "tree")


def test_boot_files_are_made_once(tmp_path: Path, host: Path) -> None:
    said: list[str] = []
    first = bootfiles.prepare(tmp_path / "cache", str(host), said.append)
    assert len(said) == 1
    assert "6.1.0-test" in said[0]
    assert first.kernel == host
    names = [name for name, _, _ in unpack(first.initramfs.read_bytes())]
    assert [n for n in names if n.endswith(".ko")] == ["modules/b.ko", "modules/a.ko"]
    again = bootfiles.prepare(tmp_path / "cache", str(host), said.append)
    assert again == first
    assert len(said) == 1


def test_equal_sources_give_equal_files_wherever_the_cache_is(tmp_path: Path, host: Path) -> None:
    one, two = (bootfiles.prepare(tmp_path / name, str(host), ignore) for name in ("one", "two"))
    assert one.digest == two.digest
    assert one.initramfs.read_bytes() == two.initramfs.read_bytes()


def test_a_changed_busybox_gives_other_files_and_leaves_the_old_ones(tmp_path: Path, host: Path) -> None:
    first = bootfiles.prepare(tmp_path / "cache", str(host), ignore)
    (tmp_path / "bin/busybox").write_bytes(elf(1, 1))
    second = bootfiles.prepare(tmp_path / "cache", str(host), ignore)
    assert second.digest != first.digest
    assert first.initramfs.exists()
    assert second.initramfs.exists()


def test_a_changed_kernel_gives_another_digest(tmp_path: Path, host: Path) -> None:
    first = bootfiles.prepare(tmp_path / "cache", str(host), ignore)
    host.write_bytes(bzimage() + b"patched")
    assert bootfiles.prepare(tmp_path / "cache", str(host), ignore).digest != first.digest


@pytest.mark.parametrize("stamp", [b"", b"{", b"[]", b"{}", b'{"initramfs": 3, "sources": 4}', b"\xff"])
def test_a_broken_stamp_is_no_stamp(tmp_path: Path, host: Path, stamp: bytes) -> None:
    first = bootfiles.prepare(tmp_path / "cache", str(host), ignore)
    (path,) = (tmp_path / "cache/boot").glob("*.json")
    path.write_bytes(stamp)
    assert bootfiles.prepare(tmp_path / "cache", str(host), ignore) == first


def test_a_lost_or_short_initramfs_is_made_again(tmp_path: Path, host: Path) -> None:
    first = bootfiles.prepare(tmp_path / "cache", str(host), ignore)
    whole = first.initramfs.read_bytes()
    first.initramfs.write_bytes(whole[:-1])
    assert bootfiles.prepare(tmp_path / "cache", str(host), ignore).initramfs.read_bytes() == whole
    first.initramfs.unlink()
    assert bootfiles.prepare(tmp_path / "cache", str(host), ignore).initramfs.read_bytes() == whole


def test_a_kernel_without_a_needed_module_leaves_nothing_behind(tmp_path: Path, host: Path) -> None:
    (tmp_path / "tree/lib/modules/6.1.0-test/kernel/fs/a.ko").unlink()
    with pytest.raises(KernelUnavailable, match="module a"):
        bootfiles.prepare(tmp_path / "cache", str(host), ignore)
    assert [path.name for path in (tmp_path / "cache/boot").iterdir()] == ["lock"]


def test_the_default_kernel_is_downloaded_once(
    tmp_path: Path, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []

    def download(into: Path, packages: object, progress: object) -> None:
        calls.append(into)
        install(into, image="boot/vmlinuz-6.1.0-test")

    monkeypatch.setattr(bootfiles, "unpack_default", download)
    first = bootfiles.prepare(tmp_path / "cache", None, ignore)
    assert bootfiles.prepare(tmp_path / "cache", None, str) == first
    first.initramfs.unlink()
    assert bootfiles.prepare(tmp_path / "cache", None, str) == first
    assert len(calls) == 1


# --- the kernel's command line


def init_decodes(word: str) -> str:
    """What guest/init makes of one word of ``smol.exec=``."""
    return re.sub("%([0-9A-F]{2})", lambda found: chr(int(found[1], 16)), word)


@given(
    st.lists(st.text(st.characters(min_codepoint=1, max_codepoint=127), max_size=12), min_size=1, max_size=4)
)
def test_words_survive_the_kernel_command_line(words: list[str]) -> None:
    line = bootfiles.command_line(1, words)
    (option,) = [part for part in line.split() if part.startswith("smol.exec=")]
    assert [init_decodes(word) for word in option.removeprefix("smol.exec=").split(",")] == words
    assert '"' not in line
    assert "\\" not in line


def test_bytes_that_are_no_utf8_are_kept() -> None:
    assert bootfiles.escape("\udcff") == "%FF"
    assert bootfiles.escape("é") == "%C3%A9"


def test_the_clock_is_given_only_where_it_is_known() -> None:
    assert "tsc_early_khz=2596120" in bootfiles.command_line(2596120, ["/x"]).split()
    assert "tsc_early_khz" not in bootfiles.command_line(0, ["/x"])


def test_the_guest_zeroes_its_pages() -> None:
    assert "init_on_alloc=1" in bootfiles.command_line(1, ["/x"]).split()


def test_a_line_that_the_kernel_would_cut_is_refused() -> None:
    with pytest.raises(SettingError, match="2047"):
        bootfiles.command_line(1, ["/" + "x" * 2000])
    with pytest.raises(ValueError, match="not a program"):
        bootfiles.command_line(1, [])
    with pytest.raises(ValueError, match="not a program"):
        bootfiles.command_line(1, ["a\0b"])


@pytest.mark.parametrize(
    ("cpuinfo", "khz"),
    [
        ("processor\t: 0\nbogomips\t: 5192.24\nflags: a\n\nprocessor: 1\nbogomips\t: 1\n", 2596120),
        ("bogomips : 4000\n", 2000000),
    ],
)
def test_the_frequency_is_read_from_cpuinfo(cpuinfo: str, khz: int) -> None:
    assert bootfiles.parse_tsc_khz(cpuinfo) == khz


@pytest.mark.parametrize("cpuinfo", ["", "bogomips : fast\n", "xbogomips : 1\n"])
def test_a_cpuinfo_without_frequency_is_reported(cpuinfo: str) -> None:
    with pytest.raises(HostError, match="frequency"):
        bootfiles.parse_tsc_khz(cpuinfo)


# --- guest/init with the host's busybox


@pytest.mark.skipif(not shutil.which("busybox"), reason="busybox is not installed")
@pytest.mark.parametrize("word", ["plain", "a b,c%", "line\nend\n", "back\\slash\\x41", "é'\"$(id)*", "%41"])
def test_init_decodes_what_command_line_encodes(word: str) -> None:
    decode = bootfiles.INIT.read_text().partition("decode() {")[2].partition("\n}\n")[0]
    script = f'set -f\ndecode() {{{decode}\n}}\ndecode "$1"; printf %s "$word"'
    done = subprocess.run(
        ["busybox", "sh", "-c", script, "sh", bootfiles.escape(word)], capture_output=True, check=True
    )
    assert done.stdout.decode() == word


@pytest.mark.skipif(not shutil.which("busybox"), reason="busybox is not installed")
def test_init_is_a_valid_script() -> None:
    subprocess.run(["busybox", "sh", "-n", str(bootfiles.INIT)], check=True)


def test_kernel_module_names() -> None:
    assert kernel.module_name("kernel/drivers/char/virtio-rng.ko.xz") == "virtio_rng"
