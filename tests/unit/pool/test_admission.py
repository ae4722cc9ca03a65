"""Room for machines: claims to memory, waiting for it, and the claims of processes that die."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pytest_smol.errors import DiskFull, NotEnoughMemory
from pytest_smol.host.resources import needed_memory
from pytest_smol.pool import admission
from pytest_smol.pool.admission import Ledger

ONE = needed_memory(512)


@dataclass
class Host:
    """What a ledger is told of the host."""

    directory: Path
    available: int = 3 * ONE
    cores: int = 64
    ledgers: list[Ledger] = field(default_factory=list)

    def ledger(self) -> Ledger:
        """One more run's."""
        made = Ledger(self.directory, lambda: self.available, lambda: self.cores)
        self.ledgers.append(made)
        return made

    def claims(self) -> list[str]:
        return sorted(os.listdir(self.directory))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path / "domain")
    before = set(os.listdir("/proc/self/fd"))
    yield made
    for ledger in made.ledgers:
        ledger.close()
    assert made.claims() == []
    assert set(os.listdir("/proc/self/fd")) <= before


def test_as_many_are_admitted_as_memory_is_available_for(host: Host) -> None:
    one, other = host.ledger(), host.ledger()
    claims = [ledger.claim(512) for ledger in (one, other, one, other)]
    assert [claim is not None for claim in claims] == [True, True, True, False]
    assert one.claim(1) is None
    first = claims[0]
    assert first is not None
    one.release(first)
    one.release(first)
    assert other.claim(512) is not None
    assert one.claim(512) is None


def test_a_large_guest_takes_the_room_of_several(host: Host) -> None:
    ledger = host.ledger()
    assert ledger.claim(1024) is not None
    assert ledger.claim(1024) is None
    assert ledger.claim(256) is not None


def test_what_machines_have_touched_counts_once(host: Host) -> None:
    ledger = host.ledger()
    assert ledger.claim(512)
    host.available -= ONE - 1
    assert ledger.claim(512)
    assert ledger.claim(512)


def test_memory_that_is_not_there_now_is_not_given(host: Host) -> None:
    ledger = host.ledger()
    assert ledger.claim(512)
    host.available = ONE - 1
    assert ledger.claim(512) is None


def test_memory_that_others_free_is_given_at_once(host: Host) -> None:
    host.available = ONE
    ledger = host.ledger()
    assert ledger.claim(512)
    assert ledger.claim(512) is None
    host.available = 2 * ONE
    assert ledger.claim(512)


def test_spare_machines_need_cores_too(host: Host) -> None:
    host.cores, host.available = 2, 4 * ONE
    one, other = host.ledger(), host.ledger()
    assert one.claim(512)
    assert other.claim(512, spare=True)
    assert one.claim(512, spare=True)
    assert other.claim(512, spare=True) is None
    assert one.claim(512)


def test_a_run_that_keeps_machines_makes_do_with_what_is_there(host: Host) -> None:
    ledger = host.ledger()
    for _ in range(3):
        assert ledger.claim(512)
    assert ledger.claim_without_waiting(512, 3)
    host.available = ONE - 1
    with pytest.raises(NotEnoughMemory, match="in addition to the 4 machines which this run keeps") as caught:
        ledger.claim_without_waiting(512, 4)
    assert "one after another" in caught.value.remedy


def test_where_nobody_has_a_machine_nobody_is_waited_for(host: Host) -> None:
    host.available = ONE - 1
    ledger = host.ledger()
    with pytest.raises(NotEnoughMemory, match="the 575 MiB that are available\n") as caught:
        ledger.wait(512)
    assert "--smol-memory" in caught.value.remedy


def test_patience_ends(host: Host) -> None:
    host.available = ONE
    one, other = host.ledger(), host.ledger()
    assert one.claim(512)
    with pytest.raises(NotEnoughMemory, match="in addition to 1 machines of your runs"):
        other.wait(512, patience=0)


def waiting(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, memory: int = 512
) -> tuple[threading.Thread, list[object]]:
    """A thread that waits for room, and is only woken by what happens to claims; and what it got."""
    monkeypatch.setattr(admission, "_LOOK", 60.0)
    asleep, got = threading.Event(), []
    wait: Callable[..., None] = admission._Changes.wait

    def noted(changes: admission._Changes, seconds: float) -> None:
        asleep.set()
        wait(changes, seconds)

    monkeypatch.setattr(admission._Changes, "wait", noted)
    thread = threading.Thread(target=lambda: got.append(ledger.wait(memory)))
    thread.start()
    assert asleep.wait(60)
    return thread, got


def test_who_waits_is_woken_by_a_machine_that_ends(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.available = ONE
    one, other = host.ledger(), host.ledger()
    claim = one.claim(512)
    assert claim
    begin = time.monotonic()
    thread, got = waiting(other, monkeypatch)
    one.release(claim)
    assert one.claim(512) is None, "it is somebody else's turn"
    thread.join(50)
    assert len(got) == 1, f"not woken in {time.monotonic() - begin} s"
    assert len(host.claims()) == 1


def test_who_wants_little_does_not_pass_by_who_waits_for_more(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.available = 2 * ONE
    one, other = host.ledger(), host.ledger()
    claim = one.claim(512)
    assert claim
    thread, got = waiting(other, monkeypatch, 1024)
    assert one.claim(512) is None
    assert one.claim(512, spare=True) is None
    one.release(claim)
    thread.join(50)
    assert len(got) == 1


HOLDER = """
import sys
from pathlib import Path
from pytest_smol.pool.admission import Ledger
ledger = Ledger(Path(sys.argv[1]), lambda: int(sys.argv[2]))
print(bool(ledger.claim(512)), flush=True)
sys.stdin.read()
"""


def test_who_waits_is_woken_by_a_run_that_is_killed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.available = ONE
    argv = [sys.executable, "-c", HOLDER, str(host.directory), str(ONE)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"True\n"
        ledger = host.ledger()
        assert ledger.claim(512) is None
        thread, got = waiting(ledger, monkeypatch)
        process.kill()
    thread.join(50)
    assert len(got) == 1
    assert len(host.claims()) == 1, "what the dead run left is removed"


def test_without_inotify_it_is_looked_at_now_and_then(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    class Exhausted:
        def inotify_init1(self, flags: int) -> int:
            return -1

    monkeypatch.setattr("ctypes.CDLL", lambda name: Exhausted())
    monkeypatch.setattr(admission, "_LOOK", 0.01)
    host.available = ONE
    one, other = host.ledger(), host.ledger()
    claim = one.claim(512)
    assert claim
    threading.Timer(0.1, one.release, [claim]).start()
    assert other.wait(512)


def test_other_files_are_no_claims(host: Host) -> None:
    ledger = host.ledger()
    assert ledger.claim(512)
    (host.directory / "notes").write_text("")
    (host.directory / f"{ONE}-{'0' * 16}").symlink_to("/etc/passwd")
    host.directory.with_suffix(".budget").write_text("not a number")
    assert ledger.claim(512)
    assert ledger.claim(512)
    for name in ("notes", f"{ONE}-{'0' * 16}"):
        (host.directory / name).unlink()


def test_claims_that_cannot_be_written(host: Host, tmp_path: Path) -> None:
    host.directory.mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskFull, match="list of running machines cannot be written"):
        Ledger(tmp_path / "file" / "domain").claim(512)


def test_the_users_ledger_forgets_domains_of_old(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    root = tmp_path / "pytest-smol" / "machines"
    for name, age in (("old", 8), ("new", 6)):
        (root / name).mkdir(parents=True)
        for path in (root / name / "1-x", root / f"{name}.lock", root / f"{name}.budget"):
            path.write_text("")
        stamp = time.time() - age * 86400
        os.utime(root / name, (stamp, stamp))
    (tmp_path / "pytest-smol").chmod(0o700)
    with Ledger.of_user() as ledger:
        assert ledger.claim(1)
        assert {path.name for path in root.iterdir()} >= {"new", "new.lock", "new.budget"}
        assert not [path for path in root.iterdir() if path.name.startswith("old")]
    assert Ledger.of_user().claim(1 << 40) is None
