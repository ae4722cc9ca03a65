from __future__ import annotations

import json
import stat

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pytest_smol.virtiofs.filesystem.node_table import FrozenNodes, Node, NodeTable

FILE, DIR = stat.S_IFREG, stat.S_IFDIR


def test_a_path_keeps_its_id_and_counts_its_lookups() -> None:
    table = NodeTable(FrozenNodes())
    first = table.enter(b"/a", FILE)
    assert table.enter(b"/b", FILE) == first + 1 == 3
    assert table.enter(b"/a", FILE) == first
    assert table.get(first) == Node(b"/a", FILE, 2)


def test_a_node_is_gone_when_its_lookups_are_forgotten_and_its_id_is_never_used_again() -> None:
    table = NodeTable(FrozenNodes())
    nodeid = table.enter(b"/a", FILE)
    table.enter(b"/a", FILE)
    assert not table.forget(nodeid, 1)
    assert table.get(nodeid) is not None
    assert table.forget(nodeid, 1)
    assert table.get(nodeid) is None
    assert table.find(b"/a") is None
    assert not table.forget(nodeid, 1)
    assert table.enter(b"/a", FILE) == nodeid + 1


def test_forgetting_more_than_was_given_is_forgetting_all() -> None:
    table = NodeTable(FrozenNodes())
    assert table.forget(table.enter(b"/a", FILE), 1 << 63)


def test_the_root_cannot_be_forgotten_and_unknown_ids_are_ignored() -> None:
    table = NodeTable(FrozenNodes())
    assert not table.forget(1, 1 << 63)
    assert not table.forget(12345, 1)
    assert table.get(1) == Node(b"", DIR, 1)
    assert table.get(12345) is None


def test_a_path_of_another_kind_is_another_node() -> None:
    table = NodeTable(FrozenNodes())
    old = table.enter(b"/a", DIR)
    new = table.enter(b"/a", FILE)
    assert new != old
    assert table.get(old) == Node(b"/a", 0, 1)
    table.forget(old, 1)
    assert table.find(b"/a") == new


def test_forks_share_a_frozen_table_and_do_not_see_each_other() -> None:
    base = NodeTable(FrozenNodes())
    kept = base.enter(b"/kept", FILE)
    frozen = base.freeze()
    one, two = NodeTable(frozen), NodeTable(frozen)
    assert one.enter(b"/new", FILE) == two.enter(b"/other", FILE) == frozen.next_id
    one.forget(kept, 1)
    assert one.get(kept) is None
    assert two.get(kept) == frozen.nodes[kept]
    assert one.enter(b"/kept", FILE) == frozen.next_id + 1
    assert one._base_nodes is frozen.nodes
    assert one._base_ids is frozen.ids
    assert kept not in one.freeze().nodes
    assert frozen.nodes[kept].nlookup == 1


def test_json_keeps_all_of_it() -> None:
    table = NodeTable(FrozenNodes())
    table.enter(b"/caf\xe9\n", FILE)
    table.stale(table.enter(b"/gone", DIR))
    table.forget(table.enter(b"/x", DIR), 1)
    frozen = table.freeze()
    again = FrozenNodes.from_json(json.loads(json.dumps(frozen.to_json())))
    assert again == frozen
    assert again.ids == frozen.ids == {b"": 1, b"/caf\xe9\n": 2}


GOOD = [1, "", DIR, 1]


@pytest.mark.parametrize(
    "nodes",
    [
        [],
        [[2, "/a", FILE, 1]],
        [GOOD, [2, "/../etc", FILE, 1]],
        [GOOD, [2, "/a/./b", FILE, 1]],
        [GOOD, [2, "/a//b", FILE, 1]],
        [GOOD, [2, "a", FILE, 1]],
        [GOOD, [2, "/a\0", FILE, 1]],
        [GOOD, [9, "/a", FILE, 1]],
        [GOOD, [0, "/a", FILE, 1]],
        [GOOD, [2, "/a", FILE]],
        [GOOD, ["x", "/a", FILE, 1]],
        [GOOD, None],
        [[1, "/elsewhere", DIR, 1]],
        [[1, "", FILE, 1]],
    ],
)
def test_other_json_is_refused(nodes: object) -> None:
    with pytest.raises(ValueError, match=r"node|unpack|int\(\)"):
        FrozenNodes.from_json({"next_id": 9, "nodes": nodes})


class Model(RuleBasedStateMachine):
    """A table, frozen and continued at any time, against plain dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.table = NodeTable(FrozenNodes())
        self.counts: dict[int, int] = {}
        self.current: dict[bytes, tuple[int, int]] = {}
        self.given: set[int] = {1}

    @rule(name=st.sampled_from([b"/a", b"/b", b"/c"]), kind=st.sampled_from([FILE, DIR]))
    def enter(self, name: bytes, kind: int) -> None:
        nodeid = self.table.enter(name, kind)
        known = self.current.get(name)
        if known is not None and known[1] == kind:
            assert nodeid == known[0]
        else:
            assert nodeid not in self.given
        self.given.add(nodeid)
        self.current[name] = (nodeid, kind)
        self.counts[nodeid] = self.counts.get(nodeid, 0) + 1

    @rule(nodeid=st.integers(1, 12), nlookup=st.integers(0, 3))
    def forget(self, nodeid: int, nlookup: int) -> None:
        gone = self.table.forget(nodeid, nlookup)
        if nodeid in self.counts:
            self.counts[nodeid] -= nlookup
            assert gone == (self.counts[nodeid] <= 0)
            if gone:
                del self.counts[nodeid]
                self.current = {name: known for name, known in self.current.items() if known[0] != nodeid}
        else:
            assert not gone

    @rule()
    def freeze(self) -> None:
        self.table = NodeTable(FrozenNodes.from_json(json.loads(json.dumps(self.table.freeze().to_json()))))

    @invariant()
    def agrees(self) -> None:
        frozen = self.table.freeze()
        assert {n: node.nlookup for n, node in frozen.nodes.items() if n != 1} == self.counts
        assert {name: self.table.find(name) for name in self.current} == {
            n: k[0] for n, k in self.current.items()
        }


TestModel = Model.TestCase
