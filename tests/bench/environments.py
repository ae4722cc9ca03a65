"""Virtual environments of the benchmark's own, kept in the user's cache: ours, and one for each peer."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from tests.suites.run import build_wheel, cache_folder, call, pip

__all__ = ["ours", "python_with"]


def python_with(name: str, requirements: Sequence[str | Path], stamp: str = "") -> Path:
    """The Python of the environment ``name``, made anew when its requirements or ``stamp`` change.

    Raises :class:`~tests.suites.run.SuiteError` where it cannot be made.
    """
    folder = cache_folder() / f"bench-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "made-of"
    python = folder / "venv" / "bin" / "python"
    wanted = f"{sys.version}\n{[Path(each).name for each in requirements]}\n{stamp}"
    with FileLock(f"{folder}.lock"):
        if not record.exists() or record.read_text("utf-8") != wanted:
            log = folder / "environment.log"
            call([sys.executable, "-m", "virtualenv", "--clear", folder / "venv"], log)
            call(pip(python, "install", *requirements), log)
            record.write_text(wanted, "utf-8")
    return python


def ours(scratch: Path) -> Path:
    """An environment with this checkout as a wheel, and pytest-xdist."""
    wheel = build_wheel(scratch)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return python_with("smol", [wheel, "pytest~=9.0", "pytest-xdist"], digest)
