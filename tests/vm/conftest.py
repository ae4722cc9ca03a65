"""What the tests with virtual machines share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)
