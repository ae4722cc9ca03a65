"""The state of a tree: what a guest may remember, and its way through JSON."""

from __future__ import annotations

import json

from pytest_smol.virtiofs.filesystem.state import TreeState
from pytest_smol.virtiofs.view import Directory, HostPath, View


def test_a_guest_is_outdated_only_by_what_it_may_remember() -> None:
    before = View({"/usr": HostPath("/usr"), "/work/venv": HostPath("/work/venv")})
    state = TreeState(composed_misses=frozenset({"/srv"}), composed_listings=frozenset({"/work"}))
    grown = {
        "/home/me": False,
        "/work/venv/below": False,
        "/srv": True,
        "/srv/project": True,
        "/work/project": True,
        "/work": True,
    }
    for path, outdated in grown.items():
        assert state.outdated(before, before.union({path: HostPath(path)})) is outdated, path
    assert not TreeState().outdated(before, before.union({"/srv": Directory()}))


def test_listings_of_the_view_survive_json() -> None:
    state = TreeState(composed_listings=frozenset({"/", "/work"}))
    assert TreeState.from_json(json.loads(json.dumps(state.to_json()))) == state
