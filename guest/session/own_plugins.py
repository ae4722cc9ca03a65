"""Plugins that only the guest has: conftest.py files, and what they load and register."""

from __future__ import annotations

from collections.abc import Collection
from types import ModuleType
from typing import Any

import pytest
from _pytest import compat

#: Modules whose plugins both sides have.
_BOTH = ("_pytest", "pytest_smol", "pluggy")


class OwnPlugins:
    """Finds hooks of plugins from modules that are none of ``shared``, the host's plugins' modules."""

    def __init__(self, config: pytest.Config, shared: Collection[str]) -> None:
        self._manager = config.pluginmanager
        self._shared = frozenset(shared)

    def hook(self, name: str) -> Any:
        """The hook ``name`` as only these plugins implement it."""
        others = [plugin for plugin in self._manager.get_plugins() if not self._is_own(plugin)]
        return self._manager.subset_hook_caller(name, others)

    def header(self, config: pytest.Config) -> list[Any]:
        """What these plugins have for pytest's header, as the hook gives it."""
        hook = self.hook("pytest_report_header")
        arguments: dict[str, Any] = {"config": config, "start_path": config.invocation_params.dir}
        if "startdir" in hook.spec.argnames:  # until pytest 9; config.hook adds it, and asks all plugins
            arguments["startdir"] = compat.legacy_path(str(config.invocation_params.dir))
        return list(hook(**arguments))

    def _is_own(self, plugin: Any) -> bool:
        module = module_of(plugin)
        return module not in self._shared and module.split(".")[0] not in _BOTH

    def have(self, *names: str) -> bool:
        """Whether one of them implements one of the hooks ``names``."""
        return any(self.hook(name).get_hookimpls() for name in names)


def module_of(plugin: Any) -> str:
    """The name of the module that a plugin is, or that its class comes from."""
    kind = plugin if isinstance(plugin, (ModuleType, type)) else type(plugin)
    return str(kind.__name__ if isinstance(kind, ModuleType) else kind.__module__)
