"""Whether KVM lets machines run machines, as its modules tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_smol.engines.qemu.nesting import require_nesting
from pytest_smol.errors import AcceleratorUnusable


def parameter(root: Path, module: str, value: str) -> Path:
    directory = root / module / "parameters"
    directory.mkdir(parents=True)
    (directory / "nested").write_text(f"{value}\n")
    return root


@pytest.mark.parametrize(("module", "value"), [("kvm_amd", "0"), ("kvm_intel", "N")])
def test_a_host_that_does_not_nest(tmp_path: Path, module: str, value: str) -> None:
    with pytest.raises(AcceleratorUnusable, match=f"{module}.nested is {value}") as caught:
        require_nesting(parameter(tmp_path, module, value))
    assert f"options {module} nested=1" in caught.value.remedy


@pytest.mark.parametrize(("module", "value"), [("kvm_amd", "1"), ("kvm_intel", "Y")])
def test_a_host_that_nests(tmp_path: Path, module: str, value: str) -> None:
    require_nesting(parameter(tmp_path, module, value))


def test_a_host_that_does_not_tell(tmp_path: Path) -> None:
    require_nesting(tmp_path)
