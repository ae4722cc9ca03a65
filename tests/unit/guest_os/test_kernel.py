"""The archive format of an initramfs, kernel images, their modules and the distribution's packages."""

from __future__ import annotations

import gzip
import itertools
import lzma
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_smol.errors import KernelUnavailable, ToolMissing
from pytest_smol.guest_os import boot_files, cpio, initramfs, kernel, kernel_package
from pytest_smol.guest_os.kernel import Module, load_order, modinfo, open_kernel, read_module, release_of
from pytest_smol.guest_os.kernel_package import Recipe, choose_recipe, dependencies, to_download
from tests.unit.boot_samples import bzimage, install, module, unpack

# --- cpio


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
    found = {m.name: m for m in initramfs.members(b"init", b"bb", modules)}
    assert found["modules.order"].data == b"zeta.ko\nalpha.ko\n"
    assert found["modules/zeta.ko"].data == b"z"
    assert found["init"].mode & 0o111


def test_the_modules_of_kvm_are_an_archive_of_their_own() -> None:
    shared = Module("kvm", b"k")
    orders = [[shared, Module("kvm-amd", b"a")], [shared, Module("kvm-intel", b"i")]]
    found = {name: data for name, _, data in unpack(initramfs.kvm_archive(orders))}
    assert found["modules.kvm"] == b"kvm.ko\nkvm-amd.ko\nkvm-intel.ko\n"
    assert found["modules/kvm.ko"] == b"k"
    assert len(found) == 4


def test_every_command_of_init_is_in_the_initramfs() -> None:
    script = re.sub(r"#.*", "", boot_files.INIT.read_text())
    for applet in ("mount", "insmod", "ifconfig", "switch_root", "poweroff"):
        assert re.search(rf"\b{applet}\b", script)
        assert applet in initramfs.APPLETS


# --- the image's header


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


def test_kernel_module_names() -> None:
    assert kernel.module_name("kernel/drivers/char/virtio-rng.ko.xz") == "virtio_rng"


# --- the kernel that the host runs, where there is no package


def running_kernel_tree(root: Path) -> Path:
    """A tree as Fedora and Arch have it: the image among its modules, which are compressed or built in."""
    modules = root / "lib/modules/6.1.0-test"
    (modules / "kernel/fs").mkdir(parents=True)
    (modules / "vmlinuz").write_bytes(bzimage())
    (modules / "modules.builtin").write_text("kernel/drivers/virtio/virtio.ko\nkernel/fs/fuse/fuse.ko\n")
    (modules / "kernel/fs/virtiofs.ko.xz").write_bytes(lzma.compress(module("virtiofs", "fuse,virtio")))
    (modules / "kernel/fs/overlay.ko.gz").write_bytes(gzip.compress(module("overlay")))
    return modules


def no_package(into: Path, packages: object, progress: object) -> None:
    raise KernelUnavailable("no kernel package is known for the distribution arch", remedy="set smol_kernel")


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A distribution without a known package, and modules that are wanted."""
    monkeypatch.setattr("platform.release", lambda: "6.1.0-test")
    monkeypatch.setattr(boot_files, "unpack_default", no_package)
    monkeypatch.setattr(boot_files, "LIB_MODULES", tmp_path / "lib/modules")


@pytest.mark.usefixtures("recipe")
def test_the_running_kernel_is_used_where_there_is_no_package(tmp_path: Path) -> None:
    modules = running_kernel_tree(tmp_path)
    said: list[str] = []
    (tmp_path / "cache").mkdir()
    image = boot_files._default_image(tmp_path / "cache", {}, said.append)
    assert image == modules / "vmlinuz"
    assert "6.1.0-test" in said[0]
    found = boot_files._modules(open_kernel(image), ["virtio", "fuse", "virtiofs", "overlay"])
    assert [(each.name, each.data) for each in found] == [
        ("virtiofs", module("virtiofs", "fuse,virtio")),
        ("overlay", module("overlay")),
    ]


@pytest.mark.usefixtures("recipe")
@pytest.mark.parametrize("content", [None, b"no kernel"])
def test_without_a_usable_running_kernel_the_error_is_that_of_the_package(
    tmp_path: Path, content: bytes | None
) -> None:
    image = running_kernel_tree(tmp_path) / "vmlinuz"
    image.unlink() if content is None else image.write_bytes(content)
    (tmp_path / "cache").mkdir()
    with pytest.raises(KernelUnavailable, match="distribution arch") as caught:
        boot_files._default_image(tmp_path / "cache", {}, print)
    assert "smol_kernel" in caught.value.remedy
