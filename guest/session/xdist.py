"""pytest-xdist in a guest: it never starts workers there, and a test in a worker's machine finds that worker.

Workers share one snapshot of a guest that collected the tests, so a guest
learns only after the fork which worker it belongs to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from _pytest import junitxml

#: Options of pytest-xdist with which it distributes nothing (xdist/remote.py, setup_config).
_OFF: dict[str, Any] = {
    "dist": "no",
    "distload": False,
    "looponfail": False,
    "maxprocesses": None,
    "numprocesses": None,
    "tx": [],
}

#: Where a worker of pytest-xdist finds the values of its ``config.workerinput`` (xdist/remote.py).
_VARIABLES = {
    "workerid": "PYTEST_XDIST_WORKER",
    "workercount": "PYTEST_XDIST_WORKER_COUNT",
    "testrunuid": "PYTEST_XDIST_TESTRUNUID",
}


class NoDistribution:
    """Switches pytest-xdist off; ``dist`` is its option of that name on the host, ``no`` without it."""

    def __init__(self, dist: str) -> None:
        self._dist = dist

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> Iterator[None]:
        """Turn off what distributes tests: the host has done that."""
        for name, value in _OFF.items():
            if hasattr(config.option, name):
                setattr(config.option, name, value)
        return (yield)

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """As in a worker there is no junit report, to which only the controller could add."""
        if self._dist != "no":
            junitxml.pytest_unconfigure(config)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Name tests as pytest-xdist's own workers do, by what its schedulers find their group.

        Like theirs this has no effect from pytest 9.2 on, which keeps ids elsewhere.
        """
        for item in items if self._dist == "loadgroup" else ():
            groups = {_group(mark) for mark in item.iter_markers("xdist_group")}
            if groups:
                plain: Any = item
                plain._nodeid = f"{item.nodeid}@{'_'.join(sorted(groups))}"


def _group(mark: pytest.Mark) -> str:
    return str(mark.args[0] if mark.args else mark.kwargs.get("name", "default"))


def become_worker(config: pytest.Config, workerinput: dict[str, Any], env: dict[str, str]) -> None:
    """Let tests and fixtures find the worker of pytest-xdist that this machine is of, and its ``env``."""
    plain: Any = config
    plain.workerinput = workerinput
    plain.workeroutput = {}
    for key, variable in _VARIABLES.items():
        os.environ[variable] = str(workerinput[key])
    os.environ.update(env)
