"""What hundreds of runs of pytest in one process need not do again for each.

After a run pytester forgets the modules that the run imported, and pytest parses the source of each
frame of a traceback again for each traceback. Both cost more than the rest of a small run.
"""

from __future__ import annotations

import ast
import pkgutil
import warnings
from functools import lru_cache
from importlib import import_module
from typing import Any

from _pytest._code import code, source

import pytest_smol

#: Modules of others that pytest and its plugins import during a run. Hypothesis is imported at the end of
#: each run that has its plugin, with its assertions rewritten: 0.3 s of a run that takes 0.1 s without.
_OTHERS = ("_pytest.stepwise", "email.parser", "hypothesis")

#: Packages of ours with modules that are imported during a run.
_PACKAGES = ("artifacts", "host", "reports", "session", "trust")


def _import_early() -> None:
    for name in _OTHERS:
        import_module(name)
    for package in _PACKAGES:
        path = [f"{folder}/{package}" for folder in pytest_smol.__path__]
        for module in pkgutil.walk_packages(path, f"pytest_smol.{package}."):
            import_module(module.name)


@lru_cache(maxsize=200)
def _parsed(text: str) -> ast.AST:
    """The syntax tree of a module's source; pytest notes the lines of its statements in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the file was compiled before, and has warned then
        return ast.parse(text, "source", "exec")


_original = source.getstatementrange_ast


def _statement_range(
    lineno: int, of: source.Source, assertion: bool = False, astnode: Any = None
) -> tuple[Any, int, int]:
    return _original(lineno, of, assertion, _parsed(str(of)) if astnode is None else astnode)


def install() -> None:
    """Import what runs import, and keep syntax trees, from here on in this process."""
    _import_early()
    code.getstatementrange_ast = source.getstatementrange_ast = _statement_range
