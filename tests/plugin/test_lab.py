"""Comparisons fail where tests that belong in machines run on the host."""

from __future__ import annotations

import os

import pytest

from tests.plugin.lab import Lab, Outcome


@pytest.fixture
def without_host_side(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab whose ``--smol`` does nothing."""

    def smol(*args: str) -> Outcome:
        return lab.plain(*[arg for arg in args if not arg.startswith("--smol")])

    monkeypatch.setattr(lab, "smol", smol)
    return lab


@pytest.mark.parametrize("apart", [False, True], ids=["in this process", "apart"])
@pytest.mark.parametrize("run", ["", "-v", "--collect-only", "-k nothing", "--no-such-option"])
def test_a_run_without_machines_is_not_the_same(without_host_side: Lab, run: str, apart: bool) -> None:
    without_host_side.project(test_a="def test_passes(): pass\ndef test_fails(): assert 0\n")
    with pytest.raises(AssertionError, match="no guest session sent a message"):
        without_host_side.same(run, apart=apart)


def test_collection_errors_without_machines_are_not_the_same(without_host_side: Lab) -> None:
    without_host_side.project(test_a="import no_such_module\n")
    with pytest.raises(AssertionError, match="no guest session sent a message"):
        without_host_side.same()


def test_one_test_on_the_host_is_noticed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where others are in machines; the plugin lets go of one of them."""
    from pytest_smol.session.run import SmolSession

    owns = SmolSession.owns
    monkeypatch.setattr(SmolSession, "owns", lambda self, item: item.name != "test_2" and owns(self, item))
    lab.project(test_a="def test_1(): pass\ndef test_2(): pass\n")
    with pytest.raises(AssertionError, match=r"no fork announced \['test_a.py::test_2'\]"):
        lab.same()


def test_machines_where_none_is_wanted_are_noticed(lab: Lab) -> None:
    lab.project(test_a="def test_1(): pass\n")
    with pytest.raises(AssertionError, match="made machines"):
        lab.same("-q", on_host=["-q"])


def test_an_announced_test_ran_in_a_process_of_its_fork(lab: Lab) -> None:
    test = "import os\ndef test(): open('pid-' + __name__, 'w').write(str(os.getpid()))\n"
    lab.project(test_a=test, test_b=test)
    lab.smol("--smol")
    pids = {int((lab.path / f"pid-{name}").read_text()) for name in ("test_a", "test_b")}
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert lab.record.ran == [["test_a.py::test"], ["test_b.py::test"]]
