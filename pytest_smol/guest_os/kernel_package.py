"""The distribution's kernel package, downloaded with apt-get and unpacked; it is not installed."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_smol.errors import KernelUnavailable

__all__ = ["Recipe", "choose_recipe", "unpack_default"]

_UPDATE = "run 'sudo apt-get update' and try again, or name a kernel with smol_kernel"


@dataclass(frozen=True)
class Recipe:
    """Which packages hold a kernel.

    ``root`` is a package that depends on the newest kernel. Those of its dependencies are
    unpacked whose names begin with one of ``follow``, and those of theirs.
    """

    root: str
    follow: tuple[str, ...]


def choose_recipe(packages: Mapping[str, Mapping[str, object]], os_release: Mapping[str, str]) -> Recipe:
    """The recipe for this distribution by ``ID``, then by ``ID_LIKE`` of os-release(5).

    Raises :class:`~pytest_smol.errors.KernelUnavailable` for a distribution without one.
    """
    likely = [os_release.get("ID", ""), *os_release.get("ID_LIKE", "").split()]
    for name in likely:
        if name in packages:
            row = packages[name]
            follow = row["follow"]
            assert isinstance(follow, list)
            return Recipe(str(row["root"]), tuple(follow))
    raise KernelUnavailable(
        f"no kernel package is known for the distribution {likely[0] or 'without a name'}",
        remedy="name a kernel with smol_kernel (a bzImage with its modules in ../lib/modules)",
    )


def dependencies(control: str) -> list[str]:
    """Package names in the field ``Depends`` of the first stanza of ``control``; of alternatives the first.

    Source: Debian Policy, 7.1 "Syntax of relationship fields".
    """
    stanza = control.partition("\n\n")[0]
    found = re.search(r"^Depends:(.*(?:\n[ \t].*)*)", stanza, re.MULTILINE)
    groups = found.group(1).split(",") if found else []
    names = (re.match(r"\s*([a-z0-9][a-z0-9+.-]*)", group) for group in groups)
    return [name.group(1) for name in names if name]


def to_download(recipe: Recipe, show: Callable[[str], str]) -> list[str]:
    """The names of the packages to unpack. ``show`` returns a package's control stanza."""
    found: list[str] = []
    queue = [recipe.root]
    while queue:
        for name in dependencies(show(queue.pop())):
            if name.startswith(recipe.follow) and name not in found:
                found.append(name)
                queue.append(name)
    return found


def _run(argv: Sequence[str], cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(
            argv,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError as error:
        raise KernelUnavailable(
            f"{argv[0]} is not installed, so no kernel can be downloaded",
            remedy="name a kernel with smol_kernel (a bzImage with its modules in ../lib/modules)",
        ) from error
    if done.returncode:
        raise KernelUnavailable(
            "the guest's kernel cannot be downloaded",
            evidence=f"$ {' '.join(argv)}\n{done.stderr[-2000:]}",
            remedy=_UPDATE,
        )
    return done.stdout


def _show(package: str) -> str:
    return _run(["apt-cache", "show", "--no-all-versions", package])


def _unpack(packages: Iterable[Path], into: Path) -> None:
    for package in packages:
        _run(["dpkg-deb", "-x", str(package), str(into)])
        package.unlink()
    # Debug symbols and documentation take space and are not used.
    for spare in (*into.glob("boot/System.map*"), *into.glob("usr/share")):
        shutil.rmtree(spare) if spare.is_dir() else spare.unlink()


def unpack_default(
    into: Path, packages: Mapping[str, Mapping[str, object]], progress: Callable[[str], None]
) -> None:
    """Download the default kernel and unpack it as the directory ``into``, which is made last.

    ``packages`` are recipes by distribution; ``progress`` is called with a line before the
    download. It needs no rights except to write there. Raises
    :class:`~pytest_smol.errors.KernelUnavailable` and OSError.
    """
    try:
        os_release = platform.freedesktop_os_release()
    except OSError:
        os_release = {}
    names = to_download(choose_recipe(packages, os_release), _show)
    if not names:
        raise KernelUnavailable("the distribution's kernel package depends on no kernel", remedy=_UPDATE)
    progress(f"downloading the guest's kernel ({', '.join(names)})")
    with tempfile.TemporaryDirectory(dir=into.parent, prefix="download-") as scratch:
        tree = Path(scratch, "tree")
        tree.mkdir()
        _run(["apt-get", "-q", "download", *names], cwd=Path(scratch))
        _unpack(sorted(Path(scratch).glob("*.deb")), tree)
        tree.rename(into)


def find_image(tree: Path) -> Path | None:
    """The kernel image in the directory ``tree`` of an unpacked package, or None."""
    return next(iter(sorted(tree.glob("boot/vmlinuz-*"))), None)
