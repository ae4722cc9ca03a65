"""What the tests with hostile guests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.arena import Arena
from tests.unit.virtiofs.fuse_client import Client


@pytest.fixture
def arena() -> Iterator[Arena]:
    with Arena() as made:
        yield made


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty project below a directory of tests: above a project no name means anything."""
    made = tmp_path / "tests" / "project"
    made.mkdir(parents=True)
    return made


@pytest.fixture
def clients() -> Iterator[list[Client]]:
    """Clients of file servers; those that a test adds are closed after it."""
    made: list[Client] = []
    yield made
    for client in made:
        client.tree.close()
