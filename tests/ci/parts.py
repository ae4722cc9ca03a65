"""What scripts/test runs: every test file in exactly one part, which is one process of pytest.

The part of KVM is a run of scripts/kvm: its tests run on this host or in an emulated one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FOLDERS", "Folder", "Part", "parts_of", "queue"]

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Folder:
    """Test files that are run together, or in as many ``pieces`` as stated, split by file.

    ``seconds`` is about what they take together on a quiet machine: the longest pieces are started first.
    With ``kvm`` they run where KVM works, together with the tests of other folders that are marked for it.
    """

    paths: tuple[str, ...]
    seconds: int
    pieces: int = 1
    kvm: bool = False

    @property
    def name(self) -> str:
        return self.paths[-1].removeprefix("tests/")


#: All tests. A new folder with tests is a new row, which tests/unit/tools/test_ci_parts.py demands.
FOLDERS = (
    Folder(("tests/test_layers.py", "tests/unit"), 63),
    Folder(("tests/plugin",), 240, pieces=4),
    Folder(("tests/hostile",), 172),
    Folder(("tests/vm",), 672, pieces=8),
    Folder(("tests/thirdparty",), 362, pieces=4),
    Folder(("tests/system",), 240),
    Folder(("tests/kvm",), 5),  # only counted as skipped where there is no KVM: scripts/kvm runs them
)


@dataclass(frozen=True)
class Part:
    """One process of pytest: what it is called, its test files or folders, and about how long it takes.

    With ``kvm`` it runs where KVM works.
    """

    name: str
    paths: tuple[str, ...]
    seconds: float
    kvm: bool = False


def parts_of(folder: Folder, root: Path = ROOT) -> list[Part]:
    """``folder`` in pieces of about the same size, measured by the length of the test files.

    A file that is too long for its piece has one to itself. No piece is empty, so there may be fewer.
    """
    if folder.pieces == 1:
        return [Part(folder.name, folder.paths, folder.seconds, folder.kvm)]
    files = [file for path in folder.paths for file in (root / path).rglob("test_*.py")]
    sizes = {str(file.relative_to(root)): file.stat().st_size for file in files}
    pieces: list[list[str]] = [[] for _ in range(min(folder.pieces, len(sizes)))]
    for file in sorted(sizes, key=lambda file: (-sizes[file], file)):
        min(pieces, key=lambda piece: sum(sizes[each] for each in piece)).append(file)
    total = max(1, sum(sizes.values()))
    return [
        Part(
            f"{folder.name} {number}/{len(pieces)}",
            tuple(sorted(piece)),
            folder.seconds * sum(sizes[file] for file in piece) / total,
        )
        for number, piece in enumerate(pieces, 1)
    ]


def queue(folders: Sequence[Folder] = FOLDERS, root: Path = ROOT) -> list[Part]:
    """The parts of all folders, in the order in which to start them.

    The first folder comes first, as its failures are found soonest. The rest follows from long to short,
    so that no long one is left at the end while the other processors are idle.
    """
    first, *rest = (parts_of(folder, root) for folder in folders)
    return first + sorted((part for parts in rest for part in parts), key=lambda part: -part.seconds)
