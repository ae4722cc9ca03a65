"""Collection of each module in a machine of its own: what a fork does that is told which files to collect."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from _pytest.main import search_pypath

#: Plugins that look at all tests of a run; the host has them do so, with what all modules hold.
_OF_THE_WHOLE_RUN = ("lfplugin", "nfplugin", "stepwiseplugin")


class Listed(Exception):
    """There are no tests that the hooks which follow could be given."""


class FileListing:
    """A plugin that notes the files that tests would be collected from, and collects nothing from them."""

    def __init__(self) -> None:
        #: Node id and path of each file.
        self.rows: list[list[str]] = []
        self._over = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> pytest.CollectReport | None:
        """Report a file as one that holds nothing, which does not import it."""
        if not isinstance(collector, pytest.File):
            return None
        self.rows.append([collector.nodeid, str(collector.path)])
        return pytest.CollectReport(collector.nodeid, "passed", None, [])

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self) -> None:
        """Call no other plugin's hook. Raises :class:`Listed`."""
        self._over = True
        raise Listed

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self) -> None:
        """Call no other plugin's hook. Raises :class:`Listed`, unless there is another error."""
        if self._over:
            raise Listed


class NoTests:
    """A plugin that keeps hooks from a list without tests: those of a whole run are seldom without any."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Call no other plugin's hook where there are no tests. Raises :class:`Listed`."""
        if not items:
            raise Listed


def leave_whole_run_to_host(config: pytest.Config) -> None:
    """Unregister the plugins that choose from all tests of a run."""
    for name in _OF_THE_WHOLE_RUN:
        plugin = config.pluginmanager.get_plugin(name)
        if plugin is not None:
            config.pluginmanager.unregister(plugin)


def count_failures(session: pytest.Session, failed: int) -> None:
    """Let ``failed`` collectors of other machines count towards --maxfail."""
    session.testsfailed = failed
    most = session.config.getoption("maxfail")
    if most and failed >= most:
        session.shouldfail = f"stopping after {failed} failures"


def arguments_to_list(config: pytest.Config) -> list[str]:
    """The command line's arguments without the names of tests: the files are listed, not their tests."""
    return [base if is_test and path.is_file() else arg for arg, base, path, is_test in _parsed(config)]


def arguments_to_collect(config: pytest.Config, paths: Sequence[str]) -> list[str]:
    """The arguments that collect what the command line's would, in the files ``paths`` alone."""
    found: dict[str, None] = {}
    for wanted in map(Path, paths):
        for arg, _, path, is_test in _parsed(config):
            if is_test and path == wanted:
                found[arg] = None
            elif not is_test and (path == wanted or path in wanted.parents):
                found[str(wanted)] = None
    return list(found)


def _parsed(config: pytest.Config) -> Iterator[tuple[str, str, Path, bool]]:
    """Each argument, its part before the first ``::``, the path of that, and whether it names a test."""
    for arg in config.args:
        base, separator, _ = arg.partition("[")[0].partition("::")
        named = search_pypath(base) if config.option.pyargs else None
        path = Path(os.path.normpath(config.invocation_params.dir / (named or base)))
        yield arg, base, path, bool(separator)


def collect_as_told(session: pytest.Session, message: dict[str, Any]) -> FileListing | None:
    """Prepare ``session`` for what a ``collect`` message asks; gives the listing where files are listed."""
    count_failures(session, message["failed"])
    config = session.config
    if message["paths"] is not None:
        config.args = arguments_to_collect(config, message["paths"])
        config.pluginmanager.register(NoTests(), "smol-no-tests")
        return None
    config.args = arguments_to_list(config)
    listing = FileListing()
    config.pluginmanager.register(listing, "smol-file-listing")
    return listing
