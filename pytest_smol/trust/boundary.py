"""The boundary between a project and the host in a run with ``--smol``."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable
from typing import Any

import pytest

from pytest_smol.pytest_private import replace_ini
from pytest_smol.trust.import_guard import ImportGuard, imported_from
from pytest_smol.trust.project_paths import ProjectPaths
from pytest_smol.trust.settings_origin import (
    UserArguments,
    filters_for_host,
    refuse_foreign_paths,
    refuse_remote_workers,
)

__all__ = ["Boundary"]


class Boundary:
    """Keeps the project of ``config`` off the host until pytest is done with ``config``.

    Raises :class:`SettingError` where the project's settings name programs, or files outside of it.
    """

    def __init__(self, config: pytest.Config, parser: pytest.Parser) -> None:
        user = UserArguments(config, parser)
        refuse_foreign_paths(config, user)
        refuse_remote_workers(user)
        own = (str(config.rootpath), str(config.invocation_params.dir))
        self._project = ProjectPaths([*own, *_pythonpath(config)])
        #: Modules of the project that were imported before this plugin was asked.
        imported = imported_from(self._project)
        self.imported = self._foreign_to_host(config, imported)
        guard = ImportGuard(self._project, imported)
        guard.__enter__()
        config.add_cleanup(lambda: guard.__exit__(None, None, None))
        _leave_filters_to_guest(config, self._importable)

    def _foreign_to_host(self, config: pytest.Config, imported: Iterable[str]) -> list[str]:
        """``imported``, modules of the project, without plugins that are installed in editable mode."""
        installed = {
            _module_of(plugin).partition(".")[0] for plugin, _ in config.pluginmanager.list_plugin_distinfo()
        }
        installed -= {
            _module_of(plugin).partition(".")[0]
            for plugin, distribution in config.pluginmanager.list_plugin_distinfo()
            if self._project.holds(_metadata_directory(distribution))
        }
        return [name for name in imported if name.partition(".")[0] not in installed]

    def _importable(self, module: str) -> bool:
        """Whether the host has ``module`` without the project."""
        if module in sys.modules:
            return True
        top = module.partition(".")[0]
        try:
            spec = importlib.util.find_spec(top)
        except (ImportError, ValueError):
            return False
        if spec is None:
            return False
        places = [spec.origin] if spec.has_location else list(spec.submodule_search_locations or ())
        return not any(place is not None and self._project.holds(place) for place in places)

    def describe(self) -> str:
        """For pytest's header: what of the project ran on the host all the same; mostly empty."""
        if not self.imported:
            return ""
        return f"smol: imported on the host before --smol could prevent it: {', '.join(self.imported)}"


def _module_of(plugin: Any) -> str:
    name = getattr(plugin, "__name__", None)
    return name if isinstance(name, str) else type(plugin).__module__


def _metadata_directory(distribution: Any) -> str:
    return str(distribution.locate_file(""))


def _pythonpath(config: pytest.Config) -> list[str]:
    try:
        return [os.fspath(path) for path in config.getini("pythonpath")]
    except (KeyError, ValueError):
        return []


def _leave_filters_to_guest(config: pytest.Config, importable: Any) -> None:
    """Drop warning filters that would import the project; pytest reads these two places again and again."""
    kept = filters_for_host(config.getini("filterwarnings"), importable)
    replace_ini(config, "filterwarnings", kept)
    namespace = config.known_args_namespace
    if namespace.pythonwarnings:
        namespace.pythonwarnings = filters_for_host(namespace.pythonwarnings, importable)
