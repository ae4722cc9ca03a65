"""A host without a kernel package, as Fedora and Arch: guests boot the kernel that the host runs."""

from __future__ import annotations

import os
import shutil

import pytest

from pytest_smol.guest_os import boot_files
from pytest_smol.guest_os.kernel import open_kernel
from pytest_smol.host import cache_directory
from tests.vm.project import Project

pytestmark = pytest.mark.vm

#: A plugin for the host: no kernel package can be had, and /lib/modules and ``uname -r`` are others.
HOST = """
import os, platform
from pathlib import Path

if "RELEASE" in os.environ:
    from pytest_smol.errors import KernelUnavailable
    from pytest_smol.guest_os import boot_files

    def unavailable(*arguments):
        raise KernelUnavailable("no kernel package is known", remedy="name a kernel with smol_kernel")

    boot_files.unpack_default = unavailable
    boot_files.LIB_MODULES = Path(os.environ["LIB_MODULES"])
    platform.release = lambda: os.environ["RELEASE"]
"""

TEST = """
import os

def test_kernel(record_property):
    record_property("release", os.uname().release)
"""


def test_a_guest_boots_the_running_kernel(project: Project) -> None:
    """Its image is where Fedora and Arch have it: with the modules, in /lib/modules."""
    files = boot_files.prepare(cache_directory.directory(), None, lambda text: None)
    kernel = open_kernel(files.kernel)
    modules = project.home / "lib-modules" / kernel.release
    shutil.copytree(kernel.modules, modules, symlinks=True)
    shutil.copy(kernel.image, modules / "vmlinuz")
    project.write("other_host.py", HOST)
    project.write("test_it.py", TEST)
    environment = {
        "XDG_CACHE_HOME": str(project.home / "cache"),
        "LIB_MODULES": str(modules.parent),
        "RELEASE": kernel.release,
    }
    result = project.run("--smol", "-p", "other_host", **environment)
    assert result.outcomes() == {"test_kernel": "passed"}, result.output
    assert f"no kernel package can be had: using the running kernel, {modules}/vmlinuz" in result.output
    assert result.cases["test_kernel"].properties["release"] == kernel.release
    (stamp,) = (project.home / "cache/pytest-smol/boot").glob("*.json")
    assert str(modules / "vmlinuz") in stamp.read_text("utf-8")
    assert not os.path.exists(project.home / "cache/pytest-smol/boot/kernel")
    again = project.run("--smol", "-p", "other_host", **environment)
    assert again.outcomes() == {"test_kernel": "passed"}, again.output
    assert "using the running kernel" not in again.output
    assert project.left_behind() == []
