"""What the guest's warm-up leaves in the process that all machines are forked from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = """
import threading

def pytest_configure():
    threading.Thread(target=threading.Event().wait, name="left over", daemon=True).start()
"""

PROBE = """
import sys, threading
from pytest_smol.guest.warmup import warm_up
warm_up()
print("loaded" if "pytest_that_starts" in sys.modules else "not loaded", file=sys.stderr)
print(*(thread.name for thread in threading.enumerate()), sep=",", file=sys.stderr)
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory for sys.path with an installed plugin that starts a thread."""
    (tmp_path / "pytest_that_starts.py").write_text(PLUGIN)
    info = tmp_path / "pytest_that_starts-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pytest-that-starts\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[pytest11]\nstarts = pytest_that_starts\n")
    return tmp_path


def test_installed_plugins_are_loaded_but_start_nothing(site: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environ = {**kept, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", PROBE], env=environ, capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines() == ["loaded", "MainThread"], done.stdout + done.stderr
