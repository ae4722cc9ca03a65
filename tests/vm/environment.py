"""Virtual environments of a test's own, in which everything may be touched, and copies of packages."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest_smol

__all__ = ["copy_packages", "make_bare_environment", "make_environment"]

#: What running the plugin takes; exceptiongroup, tomli and typing-extensions only with older Pythons.
DISTRIBUTIONS = (
    *("pytest", "pluggy", "iniconfig", "packaging", "pygments", "filelock", "pytest-smol"),
    *("exceptiongroup", "tomli", "typing-extensions"),
)


def _copy(name: str, site_packages: Path) -> None:
    """Copy the modules and the metadata of an installed distribution."""
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return
    installed = Path(sysconfig.get_path("purelib"))
    for file in distribution.files or ():
        source = Path(str(distribution.locate_file(file)))
        if installed in source.parents and source.suffix not in (".pyc", ".pth") and source.is_file():
            target = site_packages / source.relative_to(installed)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def copy_packages(directory: Path) -> None:
    """Copy pytest-smol and all that running it takes into ``directory``, as an installer would."""
    for name in DISTRIBUTIONS:
        _copy(name, directory)
    package = Path(pytest_smol.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__")
    # An editable install has no files of the package itself, and links to what the guest runs.
    shutil.copytree(package, directory / "pytest_smol", ignore=ignored, dirs_exist_ok=True)


def make_bare_environment(directory: Path, python: str) -> Path:
    """A virtual environment of the interpreter ``python`` without any package; gives its Python."""
    subprocess.run([python, "-m", "venv", "--without-pip", directory], check=True)
    return directory / "bin" / "python"


def make_environment(directory: Path, python: str) -> Path:
    """A virtual environment of the interpreter ``python`` with a copy of pytest-smol; gives its Python."""
    made = make_bare_environment(directory, python)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    done = subprocess.run([made, "-c", code], capture_output=True, text=True, check=True)
    copy_packages(Path(done.stdout.strip()))
    return made
