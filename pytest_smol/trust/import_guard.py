"""No module of the project is imported on the host while a run with ``--smol`` lasts.

pytest puts ``pythonpath`` on ``sys.path`` before it loads any plugin, ``python -m pytest`` puts the current
directory there, and pytest and plugins import modules that the project's settings name (warning classes,
coverage plugins). So the project's directories are taken off ``sys.path``, and a module that is
found in the project all the same is not executed.
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
from collections.abc import Iterable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType, TracebackType

from pytest_smol.trust.project_paths import ProjectPaths

__all__ = ["ImportGuard", "ProjectCodeRefused", "imported_from"]


class ProjectCodeRefused(ImportError):
    """A module of the project was to be imported on the host."""


class _RefusingLoader(Loader):
    """In the place of a module's own loader: the module can be found, but not executed."""

    def __init__(self, origin: str) -> None:
        self._origin = origin

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        raise ProjectCodeRefused(
            f"{spec.name} is code of the project ({self._origin}), which --smol runs in machines only",
            name=spec.name,
            path=self._origin,
        )

    def exec_module(self, module: ModuleType) -> None:  # pragma: no cover - create_module has raised
        raise ProjectCodeRefused(f"{module.__name__} is code of the project")


class ImportGuard(MetaPathFinder):
    """While it is entered, modules in ``project`` are not executed and its directories are not searched.

    ``imported`` are the modules of the project that run already, as :func:`imported_from` gives them. A
    package of one of them may import the rest of itself: a plugin that is developed in the project and
    installed in editable mode, for instance.
    """

    def __init__(self, project: ProjectPaths, imported: Iterable[str]) -> None:
        self._project = project
        self._running = {name.partition(".")[0] for name in imported}
        self._path: list[str] = []

    def __enter__(self) -> ImportGuard:
        self._path = list(sys.path)
        keep = self._running_directories()
        sys.path[:] = [
            entry for entry in sys.path if entry in keep or not self._project.holds(entry or os.getcwd())
        ]
        sys.meta_path.insert(0, self)
        return self

    def _running_directories(self) -> set[str]:
        """Directories of the project from which a package that runs already imports the rest of itself."""
        found = set()
        for name in self._running:
            file = getattr(sys.modules.get(name), "__file__", None)
            if file is not None:
                parent = os.path.dirname(os.path.realpath(file))
                found.add(os.path.dirname(parent) if os.path.basename(file) == "__init__.py" else parent)
        return {entry for entry in sys.path if entry and os.path.realpath(entry) in found}

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        taken = [entry for entry in self._path if entry not in sys.path]
        sys.path[:0] = taken

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What the other finders find; modules of the project with a loader that refuses to execute them."""
        spec = self._found(fullname, path, target)
        if spec is None or spec.origin is None or fullname.partition(".")[0] in self._running:
            return spec
        if spec.loader is not None and spec.has_location and self._project.holds(spec.origin):
            spec.loader = _RefusingLoader(spec.origin)
        return spec

    def _found(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> ModuleSpec | None:
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if finder is not self and find is not None:
                spec: ModuleSpec | None = find(fullname, path, target)
                if spec is not None:
                    return spec
        return None


def imported_from(project: ProjectPaths, modules: Iterable[str] | None = None) -> list[str]:
    """The names of ``modules`` (all that are loaded, by default) that were imported from ``project``."""
    resolved = _Resolved()
    found = []
    for name in list(sys.modules) if modules is None else modules:
        module = sys.modules.get(name)
        spec = getattr(module, "__spec__", None)
        file = getattr(spec, "origin", None) if isinstance(spec, importlib.machinery.ModuleSpec) else None
        if name == "__main__" or not isinstance(file, str) or not os.path.isabs(file):
            continue
        if project.holds_resolved(resolved.path(file)):
            found.append(name)
    return sorted(found)


class _Resolved:
    """Resolves the symbolic links of paths, those of each directory once: a process has many modules."""

    def __init__(self) -> None:
        self._directories: dict[str, str] = {}

    def path(self, file: str) -> str:
        directory, name = os.path.split(file)
        if directory not in self._directories:
            self._directories[directory] = os.path.realpath(directory)
        path = os.path.join(self._directories[directory], name)
        return os.path.realpath(path) if os.path.islink(path) else path
