"""Which files of the host the data of a guest may name: those that it was shown."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pytest_smol.guest_os.host_paths import is_at_or_below, why_not
from pytest_smol.guest_os.host_view import hiding
from pytest_smol.host import cache_directory
from pytest_smol.host.beneath import Beneath
from pytest_smol.host.run_directory import NAMES
from pytest_smol.settings import Settings
from pytest_smol.virtiofs.hiding.globs import Globs
from pytest_smol.virtiofs.hiding.secrets import Secrets

__all__ = ["VisibleFiles"]

#: The largest file whose lines are counted, in bytes.
MAX_COUNTED = 16 << 20


class VisibleFiles:
    """The regular files in a run's directories that are not hidden from guests. Close it.

    ``root`` is pytest's rootdir; ``places`` are other directories that guests are shown. Raises
    :class:`SettingError` for a hiding rule that is not valid.
    """

    def __init__(self, settings: Settings, root: Path, places: Iterable[str | Path] = ()) -> None:
        self.root = os.path.realpath(root)
        home = os.path.realpath(os.path.expanduser("~"))
        shown = [os.path.realpath(place) for place in (root, *places) if os.path.isabs(place)]
        self._places = [place for place in shown if place == self.root or not why_not(place, home)]
        self._beneath = Beneath()
        rules = replace(hiding(settings.hide, settings.show), roots=(self.root,), home=home)
        self._secrets = Secrets(rules, (), self._beneath)
        self._kept = os.path.realpath(cache_directory.location(os.environ))
        self._kept_names = Globs(NAMES)

    @classmethod
    def of_run(cls, settings: Settings, root: Path, cwd: Path) -> VisibleFiles:
        """Those of this process's run of pytest."""
        return cls(settings, root, [cwd, *sys.path])

    def refusal(self, path: str) -> str:
        """Why ``path`` may not be named if it is hidden, or nothing; also where there is no such file."""
        place = next((each for each in self._places if is_at_or_below(path, each)), None)
        if place is None:
            return ""
        try:
            hidden = self.is_hidden(place, Path(path).relative_to(place).parts)
        except (OSError, ValueError):
            return ""
        return "guests are not shown this file" if hidden else ""

    def is_hidden(self, top: str, parts: tuple[str, ...]) -> bool:
        """Whether what is at ``parts`` below ``top``, or on the way to it, is hidden from guests.

        Raises OSError where that cannot be told: a file on the way, a name too long.
        """
        for number in range(1, len(parts) + 1):
            path = os.path.join(top, *parts[:number])
            if self.is_kept(path):
                return True
            try:
                found = os.lstat(path)
                if self._secrets.hides(os.fsencode(path), found) or self._secrets.redacts(os.fsencode(path)):
                    return True
            except FileNotFoundError:
                return False
        return False

    def is_kept(self, path: str) -> bool:
        """Whether ``path`` is in the cache of snapshots or a run's directory: no setting shows those."""
        return is_at_or_below(path, self._kept) or self._kept_names.match(os.fsencode(path))

    def count_lines(self, path: str, most: int) -> int:
        """The lines of a regular file that is reached through no symbolic link, 0 for any other.

        ``most`` is the greatest number that is given.
        """
        if not any(is_at_or_below(path, place) for place in self._places) or os.path.normpath(path) != path:
            return 0
        try:
            fd = self._beneath.open_regular(os.fsencode(path))
        except (OSError, ValueError):
            return 0
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_COUNTED:
                return 0
            return min(len(file.read(MAX_COUNTED).splitlines()) + 1, most)

    def close(self) -> None:
        """Let go of the host's root; idempotent."""
        self._beneath.close()
