"""syrupy with tests in machines: snapshots are kept on the host, and none is removed that is in use."""

from __future__ import annotations

import pytest

from tests.plugin.lab import Outcome
from tests.thirdparty.bench import Bench, PairOfRuns

pytestmark = pytest.mark.vm

SYRUPY = ("syrupy",)

SNAPSHOTS = """
    import os
    import pytest
    from syrupy.extensions.json import JSONSnapshotExtension
    from syrupy.extensions.single_file import SingleFileSnapshotExtension

    class Own(JSONSnapshotExtension):
        file_extension = "own"

    @pytest.mark.smol
    def test_one(snapshot): assert {"a": 1, "b": [1, 2]} == snapshot

    def test_two(snapshot): assert 2 == snapshot(name="two")

    @pytest.mark.smol
    def test_files(snapshot):
        assert b"data" == snapshot(extension_class=SingleFileSnapshotExtension)
        assert {"x": 1} == snapshot(extension_class=Own)

    @pytest.mark.skipif("os.path.exists('skip')")
    @pytest.mark.smol
    def test_skipped(snapshot): assert 4 == snapshot
"""

OTHER = """
    def test_other(snapshot): assert 5 == snapshot
    def test_gone(snapshot): assert 6 == snapshot
"""


def kept(outcome: Outcome) -> dict[str, str]:
    return {name: text for name, text in outcome.files.items() if "__snapshots__" in name}


def assert_same(pair: PairOfRuns) -> None:
    plain, smol = pair
    assert smol.comparable() == plain.comparable()
    assert kept(smol) == kept(plain)


def test_snapshots_are_made_compared_changed_and_removed_as_in_a_plain_run(bench: Bench) -> None:
    bench.write("test_a.py", SNAPSHOTS)
    bench.write("test_b.py", OTHER)
    made, compared = bench.both("--snapshot-update", "", plugins=SYRUPY)
    assert_same(made)
    assert_same(compared)
    assert len(kept(made[1])) == 4
    bench.write("test_b.py", OTHER.replace("5", "7").replace("def test_gone", "def _gone"))
    bench.write("skip", "")
    pairs = bench.both("", "--snapshot-update --snapshot-details", plugins=SYRUPY)
    for pair in pairs:
        assert_same(pair)
    assert "1 snapshot failed." in pairs[0][1].text
    assert "1 unused snapshot deleted." in pairs[1][1].text


def test_no_update_is_lost_where_each_test_has_a_machine(bench: Bench) -> None:
    bench.write("test_b.py", OTHER)
    outcome = bench.smol("--smol-scope=test", "--snapshot-update", plugins=SYRUPY)
    assert outcome.status == 0, outcome
    assert "2 snapshots generated." in outcome.text
    assert "test_other" in outcome.files["__snapshots__/test_b.ambr"]
    assert "test_gone" in outcome.files["__snapshots__/test_b.ambr"]


def test_tests_of_the_host_do_not_take_those_in_machines_for_unused(bench: Bench) -> None:
    bench.write("test_a.py", SNAPSHOTS)
    bench.write("test_b.py", OTHER)
    first = bench.plain("--snapshot-update", plugins=SYRUPY)
    again = bench.plain("--snapshot-update", plugins=SYRUPY)
    assert bench.ran_in_machines() >= {"test_a.py::test_one", "test_a.py::test_files"}
    assert first.status == again.status == 0, again
    assert kept(again) == kept(first)
    assert "snapshots passed." in again.text
    assert "unused" not in again.text


def test_a_lost_machine_removes_no_snapshots(bench: Bench) -> None:
    bench.write("test_b.py", OTHER)
    first = bench.smol("--snapshot-update", plugins=SYRUPY)
    bench.write("test_b.py", OTHER + "\n    def test_dies(): __import__('os')._exit(3)\n")
    again = bench.smol("--snapshot-update", plugins=SYRUPY)
    assert again.status == 1
    assert kept(again) == kept(first)
    assert "syrupy does not look for unused snapshots" in again.text


def test_without_update_a_guest_changes_no_snapshot(bench: Bench) -> None:
    bench.write("test_b.py", OTHER)
    first = bench.smol("--snapshot-update", plugins=SYRUPY)
    bench.write(
        "test_b.py",
        """
        from pathlib import Path

        def test_writes(): Path("__snapshots__/test_b.ambr").write_text("forged")
        """,
    )
    assert kept(bench.smol("--snapshot-warn-unused", plugins=SYRUPY)) == kept(first)
