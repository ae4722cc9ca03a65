"""Hooks of other plugins at the end of a run, guarded: what one raises does not cost the results.

pytest calls the hooks of the end one after another and shows failures and summary in between, so one that
raises (a report that cannot be written, data of a guest that a plugin cannot take) would end the run with an
internal error and without any result. In a run with machines it is told of, and the exit status is that
of an internal error.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Generator
from functools import partial
from types import ModuleType
from typing import Any

import pytest

from pytest_smol.reports.text import clean

__all__ = ["GuardedHooks"]

#: The hooks that are guarded: those of the end, and that of each report.
HOOKS = ("pytest_runtest_logreport", "pytest_sessionfinish", "pytest_terminal_summary")

#: What plugins raise to stop a run, and not because they fail. (KeyboardInterrupt is no Exception.)
_STOPS = (pytest.exit.Exception, pytest.UsageError, pytest.Session.Failed, pytest.Session.Interrupted)

#: The most failures that are told of.
_MOST_TOLD = 20


class GuardedHooks:
    """A plugin that guards all other plugins of ``config``."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._guarded: set[int] = set()
        #: What failed so far: the hook, the plugin's name and the error in one line each.
        self.failures: list[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> None:
        """Guard all plugins that are registered before tests run."""
        self._guard()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, Any, Any]:
        """Tell of what failed, after pytest has shown the results, and let the exit status tell as well."""
        self._guard()
        result = yield
        if self.failures and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
        self._tell()
        return result

    def _guard(self) -> None:
        """Guard the hooks of all plugins that are registered by now."""
        for name in HOOKS:
            for implementation in getattr(self._config.hook, name).get_hookimpls():
                if id(implementation) not in self._guarded and not _is_ours(implementation.plugin):
                    self._guarded.add(id(implementation))
                    implementation.function = self._guarded_function(name, implementation)

    def _guarded_function(self, hook: str, implementation: Any) -> Callable[..., Any]:
        about = f"{hook} of the plugin {implementation.plugin_name}"
        function = implementation.function
        if implementation.hookwrapper or implementation.wrapper:
            return self._around(about, function, old=implementation.hookwrapper)

        def guarded(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except _STOPS:
                raise
            except Exception as error:
                self._failed(about, error)
                return None

        return guarded

    def _around(self, about: str, function: Callable[..., Any], old: bool) -> Callable[..., Any]:
        """``function`` of a wrapper, with its part before the hook and its part after it guarded.

        ``old`` is that of a ``hookwrapper``, which changes a result in place and gives none.
        """

        def guarded(*args: Any, **kwargs: Any) -> Generator[None, Any, Any]:
            inner = function(*args, **kwargs)
            try:
                next(inner)
            except _STOPS:
                raise
            except Exception as error:
                self._failed(about, error)
                return (yield)
            try:
                outcome = yield
            except BaseException as error:  # of another's hook, for this wrapper to see
                return self._resumed(about, partial(inner.throw, error), None, thrown=error)
            return self._resumed(about, partial(inner.send, outcome), None if old else outcome)

        return guarded

    def _resumed(
        self, about: str, resume: Callable[[], Any], result: Any, thrown: BaseException | None = None
    ) -> Any:
        """What a wrapper gives after the hook; ``result`` where it fails."""
        try:
            resume()
        except StopIteration as end:
            return end.value
        except _STOPS:
            raise
        except Exception as error:
            if error is thrown:
                raise
            self._failed(about, error)
        return result

    def _failed(self, about: str, error: Exception) -> None:
        if len(self.failures) < _MOST_TOLD:
            self.failures.append(clean(f"{about} failed: {type(error).__name__}: {error}"))

    def _tell(self) -> None:
        reporter: Any = self._config.pluginmanager.get_plugin("terminalreporter")
        for failure in self.failures:
            line = f"smol: {failure}".replace("\n", "^J")
            if hasattr(self._config, "workerinput"):  # only the controller has a terminal
                caught = warnings.WarningMessage(line, pytest.PytestWarning, "pytest-smol", 0, line="")
                about = {"warning_message": caught, "when": "config", "nodeid": "", "location": None}
                self._config.hook.pytest_warning_recorded.call_historic(kwargs=about)
            elif reporter is not None:
                reporter.write_line(line, red=True)
            else:
                sys.stderr.write(f"{line}\n")


def _is_ours(plugin: object) -> bool:
    kind = plugin if isinstance(plugin, (ModuleType, type)) else type(plugin)
    module = kind.__name__ if isinstance(kind, ModuleType) else kind.__module__
    return module.partition(".")[0] == "pytest_smol"
