"""What a guest must not see although it stands in a directory that it is shown.

To the guest a hidden file does not exist: it cannot be looked up and is not listed.
"""

from __future__ import annotations

import errno
import glob
import os
import stat
from collections.abc import Collection, Iterator
from functools import lru_cache

from pytest_smol.host.beneath import Beneath
from pytest_smol.virtiofs.hiding.globs import Globs
from pytest_smol.virtiofs.hiding.redaction import holds_secret
from pytest_smol.virtiofs.hiding.rules import Hiding

__all__ = ["Secrets"]

LOOKED_INTO = 64 << 10
"""Bytes of a file that are searched for a private key; none is larger."""
MAX_REDACTED = 256 << 10
"""Bytes of the largest file that is redacted; a larger one is hidden."""

Identity = tuple[int, int]
"""st_dev and st_ino."""

INSTALLED = frozenset({b"site-packages", b"dist-packages"})


class Secrets:
    """Decides by name, by content and by inode what is hidden. For one thread at a time.

    ``named`` are host paths that are shown because the user or the image says so.
    """

    def __init__(self, hiding: Hiding, named: Collection[bytes], beneath: Beneath) -> None:
        self._hiding = hiding
        self._named = named
        self._beneath = beneath
        self._roots = _outermost(hiding.roots)
        self._links: frozenset[Identity] | None = None
        self._public = frozenset(map(os.fsencode, hiding.public))
        (
            self._all,
            self._any,
            self._files,
            self._keys,
            self._suspects,
            self._blanked,
            self._shown,
        ) = _compile(hiding)
        self.may_hide = self._all.may_match

    def hides(self, host: bytes, st: os.stat_result) -> bool:
        """Whether what stands at ``host``, and is ``st``, does not exist for a guest."""
        if st.st_nlink > 1 and stat.S_ISREG(st.st_mode) and self._is_link_to_secret(host, st):
            return True
        return self.may_hide(host[host.rfind(b"/") + 1 :]) and self._is_secret(host, st)

    def counts_links(self, directory: bytes) -> bool:
        """Whether hard links to hidden files are to be left out of listings of ``directory``."""
        return any(_is_at_or_below(directory, root) for root in self._roots)

    def redacts(self, host: bytes) -> bool:
        """Whether the file ``host`` is shown with credentials redacted only."""
        name = host[host.rfind(b"/") + 1 :]
        return self._blanked.may_match(name) and self._blanked.match(host) and not self._is_shown(host)

    def _is_shown(self, host: bytes) -> bool:
        return host in self._named or self._shown.match_above(self._below_root(host))

    def _below_root(self, host: bytes) -> bytes:
        """``host`` from the root that it is in, so that a directory above a project decides nothing."""
        for root in self._roots:
            if _is_at_or_below(host, root):
                return host[len(root) :]
        return host

    def _is_secret(self, host: bytes, st: os.stat_result) -> bool:
        if self._is_shown(host):
            return False
        if self._any.match(host) or (self._files.match(host) and not stat.S_ISDIR(st.st_mode)):
            return True
        if not stat.S_ISREG(st.st_mode):
            return False
        if self._blanked.match(host):
            return st.st_size > MAX_REDACTED
        if self._is_public(host):
            return False
        return self._keys.match(host) or (self._suspects.match(host) and self._holds_secret(host))

    def _is_public(self, host: bytes) -> bool:
        parts = host.split(b"/")[:-1]
        return not (
            INSTALLED.isdisjoint(parts) and self._public.isdisjoint(self._below_root(host).split(b"/")[:-1])
        )

    def _holds_secret(self, host: bytes) -> bool:
        try:
            fd = self._beneath.open_regular(host)
        except OSError as error:
            # Who cannot read it here cannot read it there; where it cannot be told, it is one.
            return error.errno not in (errno.EACCES, errno.ENOENT, errno.ENOTDIR)
        try:
            return holds_secret(os.pread(fd, LOOKED_INTO, 0))
        finally:
            os.close(fd)

    def _is_link_to_secret(self, host: bytes, st: os.stat_result) -> bool:
        if self._links is None:
            self._links = _linked(self._hiding)
        if (st.st_dev, st.st_ino) not in self._links:
            return False
        return not self._is_shown(host) and not self._blanked.match(host)

    def find_linked(self) -> Iterator[Identity]:
        """The hidden files in the roots, and the user's own at home, that have other names too."""
        for root in self._roots:
            yield from self._find_below(root, False)
        for pattern in self._hiding.credentials + self._hiding.environments if self._hiding.home else ():
            for place in glob.glob(os.path.join(glob.escape(self._hiding.home), pattern)):
                yield from self._find_at(os.fsencode(place), True)

    def _find_below(self, directory: bytes, secret: bool) -> Iterator[Identity]:
        """Without recursion, as a project's tree may be of any depth. ``secret``: all that is in it is."""
        todo = [(directory, secret)]
        while todo:
            here, secret = todo.pop()
            for path, kind in _entries(here):
                if kind == stat.S_IFDIR:
                    hidden = self.may_hide(path[path.rfind(b"/") + 1 :]) and self._any.match(path)
                    todo.append((path, secret or (hidden and not self._is_shown(path))))
                else:
                    yield from self._find_at(path, secret)

    def _find_at(self, path: bytes, secret: bool) -> Iterator[Identity]:
        name = path[path.rfind(b"/") + 1 :]
        if not (secret or self.may_hide(name)):
            return
        try:
            st = self._beneath.lstat(path)
        except OSError:
            return
        if stat.S_ISDIR(st.st_mode):
            yield from self._find_below(path, secret)
        elif st.st_nlink > 1 and (secret or self.redacts(path) or self._is_secret(path, st)):
            yield st.st_dev, st.st_ino


@lru_cache(maxsize=16)
def _compile(hiding: Hiding) -> tuple[Globs, ...]:
    rows = (
        hiding.own + hiding.credentials,
        hiding.environments,
        hiding.keys,
        hiding.suspects,
        hiding.redacted,
    )
    return (Globs(sum(rows, ())), *map(Globs, rows), Globs(hiding.shown))


@lru_cache(maxsize=16)
def _linked(hiding: Hiding) -> frozenset[Identity]:
    """All that :meth:`Secrets.find_linked` finds, searched once in a run: when the first such file is met."""
    beneath = Beneath()
    try:
        return frozenset(Secrets(hiding, (), beneath).find_linked())
    finally:
        beneath.close()


def _is_at_or_below(path: bytes, place: bytes) -> bool:
    return path.startswith(place) and (len(path) == len(place) or path[len(place)] == 0x2F)


def _outermost(roots: Collection[str]) -> tuple[bytes, ...]:
    kept: list[bytes] = []
    for root in sorted(os.fsencode(root.rstrip("/")) for root in roots):
        if not any(_is_at_or_below(root, place) for place in kept):
            kept.append(root)
    return tuple(kept)


def _entries(directory: bytes) -> Iterator[tuple[bytes, int]]:
    """The paths of what is in a directory, and S_IFDIR for a directory; nothing if it cannot be read."""
    try:
        with os.scandir(directory) as found:
            for entry in found:
                yield entry.path, stat.S_IFDIR if entry.is_dir(follow_symlinks=False) else 0
    except OSError:
        return
