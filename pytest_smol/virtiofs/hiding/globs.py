"""Globs of file names and paths, compiled so that a name that no glob can match costs next to nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

__all__ = ["Globs"]

_TOKEN = re.compile(r"[*]+|[?]|\[[!^]?\]?[^]/]*\]|.", re.DOTALL)


def _component(glob: str) -> str:
    """The regular expression of a glob without slashes."""
    parts = []
    for token in _TOKEN.findall(glob):
        if len(token) > 2 and token[0] == "[":
            inside = token[1:-1].replace("\\", r"\\").replace("[", r"\[")
            parts.append(f"[{'^/' + inside[1:] if inside[0] in '!^' else inside}]")
        else:
            parts.append("[^/]*" if token[0] == "*" else "[^/]" if token == "?" else re.escape(token))
    return "".join(parts)


def _regex(glob: str) -> str:
    """The regular expression of one glob, over characters of which each is one byte.

    ``*``, ``?`` and ``[...]`` stay within a component; ``**`` stands for any number of them.
    """
    *above, last = os.fsencode(glob).decode("latin-1").split("/")
    start = "".join("(?:.*/)?" if part == "**" else f"{_component(part)}/" for part in above)
    return start + (".*" if last == "**" else _component(last))


def _compiled(regexes: Iterable[str]) -> re.Pattern[bytes] | None:
    joined = "|".join(regexes)
    try:
        return re.compile(joined.encode("latin-1"), re.DOTALL) if joined else None
    except re.error as error:
        raise ValueError(f"not a glob: {error}") from None


def _is_plain(text: str) -> bool:
    return not set(text) & set("*?[")


class Globs:
    """Patterns as in ``.gitignore``, more or less.

    One without a slash is about a name, wherever it is; one with slashes about
    the end of a path, and one that begins with a slash about a whole path. Case
    does not count. Raises ValueError for one that is no glob.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        # Of bytes, as of a path's, only ASCII has two cases.
        folded = [os.fsdecode(os.fsencode(pattern).lower()) for pattern in patterns]
        kept = [pattern.rstrip("/") for pattern in folded if pattern.strip("/")]
        # Of each pattern its last component, by the cheapest test that there is for it.
        lasts = {pattern.rpartition("/")[2] for pattern in kept}
        plain = {last for last in lasts if _is_plain(last)}
        starts = {last for last in lasts - plain if last[-1] == "*" and last != "*" and _is_plain(last[:-1])}
        ends = {last for last in lasts - plain if last[0] == "*" and last != "*" and _is_plain(last[1:])}
        self._plain = frozenset(map(os.fsencode, plain))
        self._starts = tuple(os.fsencode(last[:-1]) for last in starts)
        self._ends = tuple(os.fsencode(last[1:]) for last in ends)
        rest = lasts - plain - starts - ends
        self._rest = _compiled(f"(?:{_regex(last)})\\Z" for last in sorted(rest))
        anchored = [_regex(p) if p[0] == "/" else f"(?:.*/)?{_regex(p)}" for p in kept]
        self._paths = _compiled(f"(?:{regex})\\Z" for regex in anchored)
        self._trees = _compiled(f"(?:{regex})(?:/.*)?\\Z" for regex in anchored)

    def may_match(self, name: bytes) -> bool:
        """Whether some path that ends in ``name`` matches."""
        name = name.lower()
        return (
            name in self._plain
            or name.startswith(self._starts)
            or name.endswith(self._ends)
            or (self._rest is not None and self._rest.match(name) is not None)
        )

    def match(self, path: bytes) -> bool:
        """Whether ``path``, absolute, itself matches."""
        return self._paths is not None and self._paths.match(path.lower()) is not None

    def match_above(self, path: bytes) -> bool:
        """Whether ``path`` or a directory that it is in matches."""
        return self._trees is not None and self._trees.match(path.lower()) is not None
