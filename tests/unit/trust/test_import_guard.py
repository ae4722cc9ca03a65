"""Modules of the project are found, but not executed, and nothing of what is installed is touched."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_smol.trust.import_guard import ImportGuard, ProjectCodeRefused, imported_from
from pytest_smol.trust.project_paths import ProjectPaths


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProjectPaths]:
    """A project whose modules leave a trace, with its ``src`` first on sys.path and the current directory."""
    root = tmp_path / "project"
    for name in (
        "src/trap_module.py",
        "src/trap_package/__init__.py",
        "src/trap_package/inner.py",
        "cwd_trap.py",
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"open({str(tmp_path / 'trace')!r}, 'a').close()\n")
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "path", [str(root / "src"), "", *sys.path])
    before = set(sys.modules)
    yield ProjectPaths([root])
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["trap_module", "trap_package", "cwd_trap"])
def test_the_projects_directories_are_not_searched(project: ProjectPaths, tmp_path: Path, name: str) -> None:
    with ImportGuard(project, imported_from(project)), pytest.raises(ModuleNotFoundError):
        importlib.import_module(name)
    assert not (tmp_path / "trace").exists()


def test_sys_path_is_as_before_afterwards(project: ProjectPaths) -> None:
    before = list(sys.path)
    with ImportGuard(project, imported_from(project)):
        assert len(sys.path) == len(before) - 2
    assert sys.path == before
    importlib.import_module("trap_module")


def test_what_another_path_leads_to_is_found_but_not_executed(project: ProjectPaths, tmp_path: Path) -> None:
    with ImportGuard(project, imported_from(project)):
        sys.path.insert(0, project.roots[0] + "/src")
        assert importlib.util.find_spec("trap_module") is not None
        with pytest.raises(ProjectCodeRefused, match="trap_module is code of the project"):
            importlib.import_module("trap_module")
        assert "trap_module" not in sys.modules
        with pytest.raises(ProjectCodeRefused):
            importlib.import_module("trap_package.inner")
    assert not (tmp_path / "trace").exists()


def test_a_link_into_the_project_is_the_project(project: ProjectPaths, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(project.roots[0] + "/src")
    with ImportGuard(project, imported_from(project)):
        sys.path.insert(0, str(tmp_path / "link"))
        with pytest.raises(ProjectCodeRefused):
            importlib.import_module("trap_module")
    assert not (tmp_path / "trace").exists()


def test_a_package_that_runs_already_may_import_the_rest_of_itself(project: ProjectPaths) -> None:
    importlib.import_module("trap_package")
    assert imported_from(project) == ["trap_package"]
    with ImportGuard(project, imported_from(project)):
        importlib.import_module("trap_package.inner")
        with pytest.raises(ProjectCodeRefused):
            importlib.import_module("trap_module")


@pytest.mark.parametrize("where", [".venv/lib/python3/site-packages", "lib/python3/dist-packages"])
def test_what_is_installed_inside_the_project_is_not_the_projects(
    project: ProjectPaths, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    folder = Path(project.roots[0], where)
    folder.mkdir(parents=True)
    (folder / "installed_module.py").touch()
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    with ImportGuard(project, imported_from(project)):
        importlib.import_module("installed_module")


@pytest.mark.parametrize("root", ["/", sys.prefix, sys.base_prefix])
def test_a_project_that_contains_the_interpreter_does_not_make_it_its_own(root: str) -> None:
    assert not ProjectPaths([root]).holds(pytest.__file__)
    assert not ProjectPaths(["/"]).holds(importlib.__file__ or "")


def test_a_root_that_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    project = ProjectPaths([tmp_path / "link"])
    assert project.holds(tmp_path / "real" / "x.py")
    assert not project.holds(tmp_path / "really.py")


def test_directories_of_modules_are_resolved_once(
    project: ProjectPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run looks at a thousand modules in a hundred directories."""
    resolved: list[str] = []
    realpath = os.path.realpath

    def counting(path: str) -> str:
        resolved.append(path)
        return realpath(path)

    monkeypatch.setattr("os.path.realpath", counting)
    imported_from(project)
    assert len(resolved) == len(set(resolved)) < len(sys.modules) / 2
