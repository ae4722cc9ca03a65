"""Which files belong to the project under test, and which to what the user has installed."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

__all__ = ["ProjectPaths"]

#: Directories of these names hold what pip or the distribution has installed, wherever they are.
_INSTALLED_NAMES = frozenset({"site-packages", "dist-packages"})


def _installed_directories() -> tuple[str, ...]:
    """Directories of the interpreter and of installed packages, also where they are inside a project."""
    found = [*sysconfig.get_paths().values(), sys.prefix, sys.base_prefix]
    found += [*site.getsitepackages(), site.getusersitepackages()]
    return tuple(dict.fromkeys(os.path.realpath(path) for path in found if path))


class ProjectPaths:
    """The directories ``roots`` of a project: rootdir, where pytest was started, its ``pythonpath``."""

    def __init__(self, roots: Iterable[str | os.PathLike[str]]) -> None:
        self.roots = tuple(dict.fromkeys(os.path.realpath(root) for root in roots))
        installed = _installed_directories()
        self._installed = tuple(path for path in installed if path not in self.roots)

    def holds(self, path: str | os.PathLike[str]) -> bool:
        """Whether the file or directory ``path`` is the project's own code or data."""
        return self.holds_resolved(os.path.realpath(path))

    def holds_resolved(self, real: str) -> bool:
        """As :meth:`holds`, of a path without symbolic links."""
        if not any(_is_at_or_below(real, root) for root in self.roots):
            return False
        if _INSTALLED_NAMES.intersection(Path(real).parts):
            return False
        # The innermost directory decides: there are a .venv in a project and a project in /usr/src.
        depth = max(len(root) for root in self.roots if _is_at_or_below(real, root))
        return not any(_is_at_or_below(real, path) and len(path) > depth for path in self._installed)


def _is_at_or_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")
