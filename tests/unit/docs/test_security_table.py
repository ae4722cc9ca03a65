"""docs/security.md names for each threat a test that exists."""

from __future__ import annotations

import re

import pytest

from pytest_smol.virtiofs.hiding.rules import CREDENTIALS, PUBLIC, REDACTED
from tests.unit.linked_tests import DOCS, linked_test

TEXT = (DOCS / "security.md").read_text(encoding="utf-8")


def rows() -> list[str]:
    """The rows of the tables of threats: those of three columns of which the last one is a test."""
    threats = TEXT.partition("## Threats")[2].partition("## What a guest does not see")[0]
    return [
        line for line in threats.splitlines() if line.startswith("| ") and not line.startswith("| threat |")
    ]


def test_there_are_rows() -> None:
    assert len(rows()) > 50


@pytest.mark.parametrize("row", rows())
def test_a_row_names_a_test_that_exists(row: str) -> None:
    linked_test(row)


@pytest.mark.parametrize(
    "name", sorted(path.name for path in (DOCS.parent / "tests/hostile").glob("test_*.py"))
)
def test_every_module_of_hostile_tests_is_in_a_table(name: str) -> None:
    assert f"[{name}::" in TEXT


def test_modules_that_are_named_exist() -> None:
    modules = re.findall(r"`((?:\w+/)*\w+\.py)`", TEXT.partition("## Threats")[0])
    assert len(modules) > 8
    for module in modules:
        assert (DOCS.parent / "pytest_smol" / module).exists() or module.startswith("tests/"), module


def test_what_is_said_to_be_hidden_is() -> None:
    for name in (".netrc", ".pypirc", ".npmrc", ".aws", ".azure", ".config/gcloud", ".kube", "id_rsa"):
        assert f"`{name}`" in TEXT
        assert name in CREDENTIALS
    assert ".git/config" in REDACTED
    assert all(f"`{name}`" in TEXT for name in PUBLIC if not name.endswith("-packages"))
