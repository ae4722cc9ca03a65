"""The lab, and the guest process that all fake machines are forked from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("tests.plugin.lab")

from tests.plugin.fakes import FirstProcess  # noqa: E402
from tests.plugin.lab import Lab  # noqa: E402


@pytest.fixture(scope="session")
def first_process() -> Iterator[FirstProcess]:
    process = FirstProcess()
    yield process
    process.close()


@pytest.fixture
def lab(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, first_process: FirstProcess) -> Lab:
    """An empty project that can be run plain and with fake machines."""
    # What else is installed here is neither loaded nor waited for.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p smol")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("CI", raising=False)
    return Lab(pytester, monkeypatch, first_process)


@pytest.fixture
def short_abort(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait only 0.1 s for what an aborted guest says of where it hangs: a script says nothing more."""
    monkeypatch.setattr("pytest_smol.machine.channel._LAST_WORDS", 0.1)
