"""System tests in machines, as root of the guest, and what a test finds there compared with the host."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.vm.project import Project, Result

pytestmark = pytest.mark.vm

SOURCES = Path(__file__).with_name("project")

#: The facts that differ between host and guest. docs/fidelity.md has the reason for each.
DIFFERENT = {
    *("kernel", "kernel/osrelease", "host name", "machine-id", "network cards", "kernel/threads-max"),
    *("leads its session", "leads its group", "has a controlling terminal"),
    *("user xattr on /tmp", "user xattr on /dev/shm", "capabilities", "no new privileges"),
    *("host name resolves", "kernel/yama/ptrace_scope", "kernel/unprivileged_userns_clone"),
    *("localhost IPv6", "net/ipv6/conf/all/disable_ipv6", "vm/overcommit_memory", "fs/nr_open"),
}


def make_project(home: Path) -> Project:
    made = Project(home)
    shutil.copytree(SOURCES, made.root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    return made


@pytest.fixture(scope="module")
def system_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("system"))


def host_state() -> dict[str, Any]:
    """What tests must not change on the host."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return {
        "loop devices": sorted(
            path.name for path in Path("/sys/block").glob("loop*") if (path / "loop").exists()
        ),
        "interfaces": sorted(os.listdir("/sys/class/net")),
        "mounts": sorted(line.split(" - ")[0].split()[4] for line in mounts),
        "modules": Path("/proc/modules").read_text() if Path("/proc/modules").exists() else "",
        "core pattern": Path("/proc/sys/kernel/core_pattern").read_text(),
    }


@pytest.mark.parametrize("module", ["test_modules", "test_disks", "test_kernel", "test_names"])
def test_everything_works_and_the_host_stays_as_it_is(system_project: Project, module: str) -> None:
    before = host_state()
    result = system_project.run("--smol", "--smol-scope=test", f"{module}.py")
    assert set(result.outcomes().values()) <= {"passed", "skipped"}, result.output
    assert len(result.outcomes()) >= 8, result.output
    assert host_state() == before
    assert system_project.left_behind() == []


def facts_of(result: Result) -> dict[str, Any]:
    assert result.outcomes() == {"test_facts": "passed"}, result.output
    facts: dict[str, Any] = json.loads(result.cases["test_facts"].properties["facts"])
    return facts


def test_a_test_finds_what_it_finds_on_the_host(system_project: Project) -> None:
    on_host = facts_of(system_project.run("test_facts.py"))
    in_guest = facts_of(system_project.run("--smol", "test_facts.py"))
    assert len(on_host) >= 80
    different = {name: (on_host[name], in_guest[name]) for name in on_host if on_host[name] != in_guest[name]}
    assert different.keys() <= DIFFERENT, different
