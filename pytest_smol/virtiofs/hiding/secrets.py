"""What a guest must not see although it is in a directory that it is shown.

To the guest a hidden file does not exist: it cannot be looked up and is not listed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection
from functools import lru_cache

from pytest_smol.host.beneath import Beneath
from pytest_smol.virtiofs.hiding.contents import (
    LOOKED_INTO,
    compiled_holds_tokens,
    holds_credentials,
    holds_secret,
    source_holds_tokens,
)
from pytest_smol.virtiofs.hiding.file_names import Kind, file_names
from pytest_smol.virtiofs.hiding.hard_links import Identity, find_linked
from pytest_smol.virtiofs.hiding.redaction import MAX_REDACTED, redacted, redacted_source
from pytest_smol.virtiofs.hiding.rules import Hiding

__all__ = ["Redaction", "Secrets"]

Redaction = Callable[[bytes], bytes]
"""From a file's content to what is shown of it, of the same length."""

SHORTEST = 16
"""Bytes of the shortest file that is looked into: no token is shorter."""
REMEMBERED = 1 << 17
"""Of how many files it is remembered what is in them."""

Test = Callable[[bytes], bool]
Key = tuple[Test, int, int, int, int, int]
"""What was searched for, and of the file st_dev, st_ino, st_size and its times of change."""

_WHEN_OPENED: dict[Kind, Test] = {
    Kind.SOURCE: source_holds_tokens,
    Kind.COMPILED: compiled_holds_tokens,
    Kind.BINARY: holds_credentials,
}

# What was found in files. One table for all machines of a run, so that each file is looked into once.
_verdicts: dict[Key, bool] = {}


class Secrets:
    """Decides by name, by content and by inode what is hidden. For one thread at a time.

    ``named`` are host paths that are shown because the user or the image says so.
    """

    def __init__(self, hiding: Hiding, named: Collection[bytes], beneath: Beneath) -> None:
        self._hiding = hiding
        self._named = named
        self._beneath = beneath
        self._names = file_names(hiding)
        self._links: frozenset[Identity] | None = None

    def hides(self, host: bytes, st: os.stat_result) -> bool:
        """Whether what is at ``host``, and is ``st``, does not exist for a guest."""
        regular = stat.S_ISREG(st.st_mode)
        if regular and st.st_nlink > 1 and self._is_link_to_secret(host, st):
            return True
        if self.hides_name(host, st):
            return True
        directory, _, name = host.rpartition(b"/")
        about, place = self._names.name(name), self._names.place(directory)
        if not (regular and place.looked_into and about.kind is Kind.DATA):
            return False
        return (
            SHORTEST <= st.st_size <= MAX_REDACTED
            and self._holds(host, st, holds_credentials)
            and not self._is_exempt(host)
        )

    def hides_name(self, host: bytes, st: os.stat_result) -> bool:
        """Whether ``host`` is hidden by its name, or as a file that looks like a key and is one."""
        directory, _, name = host.rpartition(b"/")
        if self._names.place(directory).secret and self._is_in_secret(host):
            return True
        return self._names.name(name).suspicious and self._is_secret(host, st)

    def doubts(self, directory: bytes) -> Callable[[bytes, bool], bool]:
        """Whether an entry of ``directory``, by its name and whether it is a regular file, may be hidden.

        :meth:`hides` tells if it is. What is no regular file or not in the project needs not be looked at
        unless its name says so.
        """
        if self._names.place(directory).secret:
            return lambda name, regular: True
        if self._names.is_in_roots(directory):
            return lambda name, regular: regular or self._names.name(name).suspicious
        return lambda name, regular: self._names.name(name).suspicious

    def redacts(self, host: bytes) -> bool:
        """Whether the file ``host`` is by its name shown with credentials redacted only."""
        if not self._names.name(host[host.rfind(b"/") + 1 :]).suspicious:
            return False
        return any(map(self._names.redacted.match, self._names.paths(host))) and not self._is_shown(host)

    def redaction(self, host: bytes, st: os.stat_result, fd: int) -> Redaction | None:
        """How the file ``host``, open as ``fd``, is redacted, or None where it is shown as it is.

        Raises FileNotFoundError for what must not be read at all.
        """
        if self.hides(host, st):
            raise FileNotFoundError(errno.ENOENT, "hidden by now")
        if self.redacts(host):
            return redacted
        directory, _, name = host.rpartition(b"/")
        kind = self._names.name(name).kind
        test = _WHEN_OPENED.get(kind)
        if test is None or not self._names.place(directory).looked_into:
            return None
        if not SHORTEST <= st.st_size <= MAX_REDACTED:
            return None
        key = _key(st, test)
        found = _verdicts.get(key)
        if found is None:
            found = _remember(key, test(os.pread(fd, MAX_REDACTED, 0)))
        if not found or self._is_exempt(host):
            return None
        if kind is Kind.SOURCE:
            return redacted_source
        raise FileNotFoundError(errno.ENOENT, "there are credentials in it")

    def _is_shown(self, host: bytes) -> bool:
        return host in self._named or self._names.is_shown(host)

    def _is_exempt(self, host: bytes) -> bool:
        return self._is_shown(host) or self._names.is_test_data(host)

    def _is_in_secret(self, host: bytes) -> bool:
        """Of what is in a directory of credentials, which a guest is shown for the test data in it alone."""
        above = host
        while above := above.rpartition(b"/")[0]:
            if above in self._named and self._names.place(above).secret:
                return False
        return not self._is_exempt(host)

    def _is_secret(self, host: bytes, st: os.stat_result) -> bool:
        """By its name, and for suspects by what is in it."""
        if self._is_shown(host):
            return False
        names = self._names
        directory = stat.S_ISDIR(st.st_mode)
        for path in names.paths(host):
            if names.always.match(path):
                return True
            if names.credentials.match(path) or (not directory and names.files.match(path)):
                return not self._is_public(path, host)
        if not stat.S_ISREG(st.st_mode):
            return False
        for path in names.paths(host):
            if names.redacted.match(path):
                return st.st_size > MAX_REDACTED
            if names.suspects.match(path):
                return self._holds(host, st, holds_secret) and not self._is_public(path, host)
        return False

    def _is_public(self, path: bytes, host: bytes) -> bool:
        """Whether ``host``, by the rule about ``path`` a secret, is none: test data, or an installed key."""
        if self._names.is_test_data(host):
            return True
        key = self._names.keys.match(path) or self._names.suspects.match(path)
        return key and self._names.test_data.is_installed(host)

    def _holds(self, host: bytes, st: os.stat_result, test: Test) -> bool:
        """Whether ``test`` finds something in the head of the file ``host``."""

        key = _key(st, test)
        known = _verdicts.get(key)
        if known is not None:
            return known
        try:
            fd = self._beneath.open_regular(host)
        except OSError as error:
            # What this user cannot read is unreadable in a guest too; after another error it is hidden.
            return error.errno not in (errno.EACCES, errno.ENOENT, errno.ENOTDIR)
        try:
            return _remember(key, test(os.pread(fd, LOOKED_INTO, 0)))
        finally:
            os.close(fd)

    def _is_link_to_secret(self, host: bytes, st: os.stat_result) -> bool:
        if self._links is None:
            self._links = _linked(self._hiding)
        if (st.st_dev, st.st_ino) not in self._links:
            return False
        return not self._is_shown(host) and not any(map(self._names.redacted.match, self._names.paths(host)))


def _key(st: os.stat_result, test: Test) -> Key:
    return (test, st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns)


def _remember(key: Key, verdict: bool) -> bool:
    if len(_verdicts) >= REMEMBERED:
        _verdicts.clear()
    _verdicts[key] = verdict
    return verdict


@lru_cache(maxsize=16)
def _linked(hiding: Hiding) -> frozenset[Identity]:
    """The hidden files with several names, searched once in a run: when the first such file is met."""
    beneath = Beneath()
    try:
        return frozenset(find_linked(hiding, Secrets(hiding, (), beneath)))
    finally:
        beneath.close()
