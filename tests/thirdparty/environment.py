"""The virtual environment with real third-party plugins: made once, and kept in the user's cache."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from tests.evidence.boot_ids import PLUGIN
from tests.suites.run import ROOT, cache_folder

__all__ = ["environment_python"]

REQUIREMENTS = Path(__file__).with_name("requirements.txt")

#: Written when all is installed: an environment without it is made anew.
COMPLETE = "complete"


def _key() -> str:
    """What an environment depends on. The checkout is installed as editable: its code is no part of it."""
    project = (ROOT / "pyproject.toml").read_text("utf-8").partition("\n[tool.")[0]
    parts = (sys.version, str(ROOT), REQUIREMENTS.read_text("utf-8"), project)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _call(command: Sequence[str | Path]) -> None:
    """Run a command; RuntimeError with what it wrote if it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(map(str, command))} exited with {done.returncode}:\n{done.stdout}{done.stderr}"
        )


def _copy_if_other(source: Path, target: Path) -> None:
    """Copy a file, but leave alone one of the same content: snapshots depend on what guests have imported."""
    if not target.exists() or target.read_bytes() != source.read_bytes():
        shutil.copyfile(source, target)


def environment_python() -> Path:
    """The Python of an environment that has the plugins, this checkout and the plugin ``smol_boot_ids``.

    It is made if it is not there. Raises :class:`RuntimeError` with the installer's output where that fails.
    """
    folder = cache_folder().with_name("pytest-smol-thirdparty") / _key()
    folder.parent.mkdir(parents=True, exist_ok=True)
    python = folder / "bin" / "python"
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / COMPLETE).exists():
            _call([sys.executable, "-m", "virtualenv", "--clear", folder])
            _call([python, "-m", "pip", "install", "-e", ROOT, "-r", REQUIREMENTS])
            (folder / COMPLETE).touch()
        (packages,) = folder.glob("lib/python*/site-packages")
        _copy_if_other(PLUGIN, packages / PLUGIN.name)
    return python
