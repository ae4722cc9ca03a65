"""What a guest is shown of its kernel's modules."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_smol.guest_os import boot_files
from pytest_smol.guest_os.kernel_view import kernel_entries
from pytest_smol.virtiofs.view import HostPath, View
from tests.unit.boot_samples import elf, fake_busybox, install


def test_modules_their_indexes_and_busybox_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_busybox(tmp_path / "bin", elf(1), monkeypatch)
    recipe = tmp_path / "kernel.json"
    recipe.write_text('{"modules": ["a"], "disks": [], "packages": {}}')
    monkeypatch.setattr(boot_files, "RECIPE", recipe)
    image = install(tmp_path / "tree")
    files = boot_files.prepare(tmp_path / "cache", str(image), lambda line: None)
    entries = kernel_entries(files)
    modules = tmp_path / "tree/lib/modules/6.1.0-test"
    place = "/var/lib/pytest-smol/modules/6.1.0-test"
    assert entries[f"{place}/kernel"] == HostPath(str(modules / "kernel"))
    assert entries[f"{place}/modules.builtin"] == HostPath(str(modules / "modules.builtin"))
    assert entries["/var/lib/pytest-smol/bin/busybox"] == HostPath(str(tmp_path / "bin/busybox"))
    index = entries[f"{place}/modules.dep"]
    assert isinstance(index, HostPath)
    assert "kernel/fs/a.ko:" in Path(index.path).read_text()
    assert View(entries).get(f"{place}/modules.order") is None


def test_lost_indexes_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_busybox(tmp_path / "bin", elf(1), monkeypatch)
    image = install(tmp_path / "tree")
    recipe = tmp_path / "kernel.json"
    recipe.write_text('{"modules": ["a"], "disks": [], "packages": {}}')
    monkeypatch.setattr(boot_files, "RECIPE", recipe)
    first = boot_files.prepare(tmp_path / "cache", str(image), lambda line: None)
    (first.index / "modules.dep").unlink()
    again = boot_files.prepare(tmp_path / "cache", str(image), lambda line: None)
    assert again == first
    assert (first.index / "modules.dep").is_file()
