"""The plugin that records on which kernels tests ran, and what its record proves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.evidence.boot_ids import PLUGIN, host_boot_id, outside_machines, parse

SUITE = """
import pytest

@pytest.fixture
def broken():
    raise RuntimeError

def test_passes(record_property): record_property("own", 1)
def test_error(broken): pass
@pytest.mark.skip
def test_skips(): pass
def test_subtests(subtests):
    with subtests.test(): pass
"""

CONFTEST = """
def pytest_runtest_logreport(report):
    assert not [name for name, _ in report.user_properties if name == "smol_boot_id"]
"""


def record(folder: Path, **variables: str) -> Path:
    """Run pytest with the plugin in ``folder``; the file that it should write."""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PLUGIN.parent)}
    env |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "SMOL_BOOT_IDS": "boot-ids.json"}
    command = [sys.executable, "-m", "pytest", "-p", "smol_boot_ids", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-c", os.devnull, f"--rootdir={folder}", "--junitxml=junit.xml"],
        cwd=folder,
        env={**env, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "INTERNALERROR" not in done.stdout, done.stdout
    return folder / "boot-ids.json"


def test_each_test_has_the_kernel_that_it_ran_on(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(SUITE)
    found = parse(record(tmp_path).read_text())
    names = ("passes", "error", "skips", "subtests")
    assert found == {f"test_it.py::test_{name}": {host_boot_id()} for name in names}


def test_no_other_plugin_sees_the_property(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(SUITE)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    assert record(tmp_path).exists()
    junit = (tmp_path / "junit.xml").read_text()
    assert 'property name="own"' in junit
    assert "smol_boot_id" not in junit


def test_a_guest_hands_the_property_on(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(): pass\n")
    assert not record(tmp_path, SMOL_GUEST="1").exists()
    assert f'name="smol_boot_id" value="{host_boot_id()}"' in (tmp_path / "junit.xml").read_text()


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        ({"a": ["one"], "b": ["one", "other"]}, ""),
        ({}, "no test ran"),
        ({"a": ["host"], "b": ["one"], "c": ["one", "host"]}, "on the host ran a, c"),
        ({"a": ["one"], "b": []}, "no machine reported b"),
    ],
)
def test_what_a_record_proves(found: dict[str, list[str]], wrong: str) -> None:
    assert outside_machines(found, "host") == wrong


@pytest.mark.parametrize("text", ["[]", '{"a": "one"}', "", "nonsense"])
def test_a_file_of_another_kind_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own error is a ValueError, too
        parse(text)
