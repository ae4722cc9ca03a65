"""pytest and the plugin on PYTHONPATH alone, in no site-packages, as Bazel and its like have them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.vm.environment import copy_packages, make_bare_environment
from tests.vm.project import Project, share_boot_files

pytestmark = pytest.mark.vm

TEST = """
import os, sys
from pathlib import Path
import pytest

def test_where_it_is(record_property):
    record_property("pytest", pytest.__file__)
    assert Path("/proc/cmdline").read_text().split().count("smol.guest") == 1

def test_fails():
    assert {"a": 1} == {"a": 2}
"""


def test_packages_on_pythonpath_alone(tmp_path: Path) -> None:
    """One directory has pytest and what it needs, another the plugin."""
    cache, libraries = tmp_path / "cache", tmp_path / "libraries"
    share_boot_files(cache)
    copy_packages(libraries / "pytest")
    plugin = libraries / "plugin"
    plugin.mkdir()
    for path in list((libraries / "pytest").glob("pytest_smol*")):
        path.rename(plugin / path.name)
    python = make_bare_environment(tmp_path / "environment", sys.executable)
    project = Project(tmp_path / "home", str(python), env={"XDG_CACHE_HOME": str(cache)})
    project.write("test_it.py", TEST)
    path = os.pathsep.join([str(libraries / "pytest"), str(plugin)])
    result = project.run("--smol", PYTHONPATH=path)
    assert result.outcomes() == {"test_where_it_is": "passed", "test_fails": "failed"}, result.output
    where = result.cases["test_where_it_is"].properties["pytest"]
    assert Path(where).is_relative_to(libraries / "pytest")
    assert project.left_behind() == []
