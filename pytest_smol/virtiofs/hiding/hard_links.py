"""The inodes of hidden files that have several names, so that a file is hidden under all of them."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator
from typing import Protocol

from pytest_smol.virtiofs.hiding.file_names import FileNames, file_names
from pytest_smol.virtiofs.hiding.rules import Hiding

__all__ = ["Identity", "find_linked"]

Identity = tuple[int, int]
"""st_dev and st_ino."""


class Judge(Protocol):
    """What of :class:`~pytest_smol.virtiofs.hiding.secrets.Secrets` is needed here."""

    def hides_name(self, host: bytes, st: os.stat_result) -> bool:
        """Whether ``host`` is hidden by its name."""

    def redacts(self, host: bytes) -> bool:
        """Whether ``host`` is shown with credentials redacted."""


def find_linked(hiding: Hiding, judge: Judge) -> Iterator[Identity]:
    """The hidden files in the roots, and the user's own in the home directory, that have several names."""
    names = file_names(hiding)
    for root in names.roots:
        yield from _find_below(root, False, names, judge)
    own = hiding.hide + hiding.credentials + hiding.environments
    for pattern in own if hiding.home else ():
        for path in glob.glob(os.path.join(glob.escape(hiding.home), pattern)):
            yield from _find_at(os.fsencode(path), True, names, judge)


def _find_below(directory: bytes, secret: bool, names: FileNames, judge: Judge) -> Iterator[Identity]:
    """Without recursion, as a project's tree may be of any depth. ``secret``: all that is in it is hidden."""
    todo = [(directory, secret)]
    while todo:
        here, secret = todo.pop()
        for entry in _entries(here):
            if entry.is_dir(follow_symlinks=False):
                hidden = names.name(os.path.basename(entry.path)).suspicious and judge.hides_name(
                    entry.path, entry.stat(follow_symlinks=False)
                )
                todo.append((entry.path, secret or hidden))
            else:
                yield from _find_at(entry.path, secret, names, judge)


def _find_at(path: bytes, secret: bool, names: FileNames, judge: Judge) -> Iterator[Identity]:
    directory, _, name = path.rpartition(b"/")
    if not (secret or names.name(name).suspicious or names.place(directory).secret):
        return
    try:
        st = os.lstat(path)
    except OSError:
        return
    if stat.S_ISDIR(st.st_mode):
        yield from _find_below(path, secret, names, judge)
    elif st.st_nlink > 1 and (secret or judge.redacts(path) or judge.hides_name(path, st)):
        yield st.st_dev, st.st_ino


def _entries(directory: bytes) -> Iterator[os.DirEntry[bytes]]:
    """What is in a directory; nothing if it cannot be read."""
    try:
        with os.scandir(directory) as found:
            yield from found
    except OSError:
        return
