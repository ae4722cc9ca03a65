"""What the tests of real plugins share: their environment, and a project to run with it."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.plugin.lab")

from tests.thirdparty.bench import Bench  # noqa: E402
from tests.thirdparty.environment import environment_python  # noqa: E402


@pytest.fixture(scope="session")
def plugins_python() -> Path:
    """A Python that has pytest-smol and the plugins of requirements.txt."""
    return environment_python()


@pytest.fixture
def bench(tmp_path: Path, plugins_python: Path) -> Bench:
    """An empty project, and the pytest with plugins that runs it."""
    return Bench(tmp_path, plugins_python)
