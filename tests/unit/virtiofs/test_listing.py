from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pytest_smol.virtiofs.filesystem.listing import DirectoryEntry, Listing, Listings, scan


def entries(*names: bytes) -> list[DirectoryEntry]:
    return [DirectoryEntry(name, 1, 8) for name in names]


def names(listing: Listing, cookie: int = 0) -> list[tuple[int, bytes]]:
    return [(after, entry.name) for after, entry in listing.after(cookie)]


def test_names_are_sorted_as_bytes_and_cookies_name_what_comes_after() -> None:
    listing = Listing()
    listing.refresh(entries(b"b", b"\xff", b"B", b"a"))
    assert names(listing) == [(1, b"B"), (2, b"a"), (3, b"b"), (4, b"\xff")]
    assert names(listing, 2) == [(3, b"b"), (4, b"\xff")]
    assert names(listing, 4) == names(listing, 1 << 63) == []


def test_a_refresh_keeps_places_skips_the_vanished_and_appends_the_new() -> None:
    listing = Listing()
    listing.refresh(entries(b"b", b"c", b"d"))
    listing.refresh(entries(b"d", b"a", b"b"))
    assert names(listing) == [(1, b"b"), (3, b"d"), (4, b"a")]
    listing.refresh(entries(b"c", b"d"))
    assert names(listing) == [(3, b"d"), (5, b"c")]


def test_a_refresh_takes_over_what_is_known_now() -> None:
    listing = Listing()
    listing.refresh([DirectoryEntry(b"a", 1, 8)])
    listing.refresh([DirectoryEntry(b"a", 2, 4)])
    assert list(listing.after(0)) == [(1, DirectoryEntry(b"a", 2, 4))]


@given(st.lists(st.frozensets(st.binary(min_size=1, max_size=2), max_size=8), max_size=6))
def test_a_name_that_stays_keeps_its_cookie(history: list[frozenset[bytes]]) -> None:
    listing = Listing()
    known: dict[bytes, int] = {}
    for found in history:
        listing.refresh(entries(*found))
        now = {name: cookie for cookie, name in names(listing)}
        assert set(now) == found
        assert all(now[name] == cookie for name, cookie in known.items() if name in now)
        known = now


def test_listings_drop_the_least_recently_used() -> None:
    listings = Listings(limit=2)
    first, new = listings.get(1)
    assert new
    listings.get(2)
    assert listings.get(1) == (first, False)
    listings.get(3)
    assert listings.get(1) == (first, False)
    assert listings.get(2)[1]
    listings.drop(1)
    listings.drop(1)
    assert listings.get(1)[1]


def test_a_scan_tells_types_and_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dir").mkdir()
    (tmp_path / "link").symlink_to("dir")
    os.mkfifo(tmp_path / "fifo")
    odd = os.fsencode(tmp_path) + b"/\xff"
    Path(os.fsdecode(odd)).touch()
    fd = os.open(tmp_path, os.O_RDONLY)
    st_, rows = scan(fd)
    os.close(fd)
    assert st_.st_ino == tmp_path.stat().st_ino
    assert {(name, kind) for name, _, kind in rows} == {
        (b"file", 8),
        (b"dir", 4),
        (b"link", 10),
        (b"fifo", 0),
        (b"\xff", 8),
    }
    assert all(ino == os.lstat(os.fsencode(tmp_path) + b"/" + name).st_ino for name, ino, _ in rows)
