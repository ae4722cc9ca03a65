"""Confined programs: what they are refused, how far a host can, and what is asked for where it cannot."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_smol.engines.confinement import domains, landlock
from pytest_smol.engines.confinement.domains import Domain, Level, Spawners
from pytest_smol.engines.qemu import confinement
from pytest_smol.engines.qemu.accelerator import Accelerator
from pytest_smol.engines.qemu.confinement import own_rules
from pytest_smol.errors import ConfinementMissing, HostError
from pytest_smol.host import process
from pytest_smol.host.process import ChildProcess, Spawner

KVM, TCG = Accelerator("kvm", "host", ""), Accelerator("tcg", "max", "")
PYTHON = os.path.realpath(sys.executable)

needs_landlock = pytest.mark.skipif(landlock.abi() < 6, reason="the kernel has not all of Landlock")

Run = Callable[..., str]


@pytest.fixture
def spawners() -> Iterator[Spawners]:
    if landlock.abi() < 6:
        pytest.skip("the kernel has not all of Landlock")
    with Spawners(own_rules(PYTHON, TCG), Level(landlock.abi())) as made:
        yield made


def said(child: ChildProcess) -> str:
    """What a child said until its end; its last line alone where it failed."""
    try:
        status = child.wait(60)
        lines = child.stderr().splitlines()
        return lines[-1] if status and lines else child.stderr() or str(status)
    finally:
        child.kill()


def run(spawner: Spawner, script: str) -> str:
    return said(spawner.spawn([PYTHON, "-I", "-S", "-c", f"import os, socket, sys\n{script}"], ()))


FORBIDDEN = {
    "read": "open('/etc/passwd')",
    "list": "os.listdir('/etc')",
    "write": "open({file!r}, 'a')",
    "truncate": "os.truncate({file!r}, 0)",
    "create": "open({file!r} + '.new', 'x')",
    "remove": "os.unlink({file!r})",
    "rename": "os.rename({file!r}, {file!r} + '.new')",
    "read its parent's memory": "open('/proc/{pid}/mem', 'rb')",
    "signal its parent": "os.kill({pid}, 0)",
    "make a TCP socket": "socket.socket(socket.AF_INET, socket.SOCK_STREAM)",
    "make a UDP socket": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "make a Unix socket": "socket.socket(socket.AF_UNIX)",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_a_fork_is_refused(spawners: Spawners, tmp_path: Path, what: str) -> None:
    file = tmp_path / "file"
    file.write_text("text")
    script = FORBIDDEN[what].format(file=str(file), pid=os.getpid())
    free = ChildProcess([PYTHON, "-I", "-S", "-c", f"import os, socket\n{script}"], ())
    assert said(free) == "0", "nothing refuses it that to others"
    file.write_text("text")
    (tmp_path / "file.new").unlink(missing_ok=True)
    refused = run(spawners.for_forks(), script)
    assert refused.startswith("PermissionError"), refused
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"file": "text"}


@needs_landlock
def test_tcp_is_refused_without_the_filter_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        script = f"socket.create_connection(('127.0.0.1', {server.getsockname()[1]}))"
        for level, expected in (
            (Level(landlock.abi(), filter=False), "PermissionError"),
            (Level(0, False), "0"),
        ):
            with Spawners(own_rules(PYTHON, TCG), level) as spawners:
                assert run(spawners.for_forks(), script).startswith(expected)


OTHERS_MEMORY = """import ctypes
libc = ctypes.CDLL(None, use_errno=True)
calls = {{"ptrace": (101, 0x4206, {pid}, 0, 0), "process_vm_readv": (310, {pid}, 0, 0, 0, 0, 0),
         "process_vm_writev": (311, {pid}, 0, 0, 0, 0, 0)}}
for name, (number, *arguments) in calls.items():
    ended = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    sys.stderr.write(f"{{name}} {{os.strerror(ctypes.get_errno()) if ended else 'works'}}\\n")
"""


def test_a_fork_is_refused_the_memory_of_another(spawners: Spawners) -> None:
    other = spawners.for_forks().spawn([PYTHON, "-I", "-S", "-c", "import time; time.sleep(1000)"], ())
    try:
        script = OTHERS_MEMORY.format(pid=other.pid)
        free = ChildProcess([PYTHON, "-I", "-S", "-c", f"import os, sys\n{script}"], ())
        assert free.wait(60) == 0
        assert "Permission" not in free.stderr()
        free.kill()
        child = spawners.for_forks().spawn([PYTHON, "-I", "-S", "-c", f"import os, sys\n{script}"], ())
        assert child.wait(60) == 0
        assert [line.partition(" ")[2] for line in child.stderr().splitlines()] == ["Permission denied"] * 3
        child.kill()
    finally:
        other.kill()


def test_a_fork_reads_its_own_snapshot_and_no_other(spawners: Spawners, tmp_path: Path) -> None:
    ram, state, other = (tmp_path / name for name in ("ram", "state", "other"))
    for path in (ram, state, other):
        path.write_text(path.name)
    spawner = spawners.for_forks(ram, state)
    script = f"sys.stderr.write(open({str(ram)!r}).read() + open({str(state)!r}).read())"
    assert run(spawner, script) == "ramstate"
    assert run(spawner, f"open({str(other)!r})").startswith("PermissionError")
    assert run(spawner, f"open({str(ram)!r}, 'r+')").startswith("PermissionError")


def test_a_maker_writes_to_its_own_directory_and_to_no_other(spawners: Spawners, tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    mine.mkdir()
    other.mkdir()
    (mine / "ram").write_text("old")
    spawner = spawners.for_maker(mine)
    script = f"for name in ('ram', 'state'): open({str(mine)!r} + '/' + name, 'w').write('new')"
    assert run(spawner, script) == "0"
    assert {path.name: path.read_text() for path in mine.iterdir()} == {"ram": "new", "state": "new"}
    for forbidden in (
        f"open({str(other)!r} + '/state', 'w')",
        f"os.unlink({str(mine)!r} + '/ram')",
        f"os.mkdir({str(mine)!r} + '/directory')",
        f"os.symlink('/etc', {str(mine)!r} + '/link')",
    ):
        assert run(spawner, forbidden).startswith("PermissionError")


def test_limits(spawners: Spawners, tmp_path: Path) -> None:
    script = """import resource
for name in ('CORE', 'NOFILE', 'FSIZE'):
    sys.stderr.write(str(resource.getrlimit(getattr(resource, 'RLIMIT_' + name))[1]) + ' ')
"""
    # The limits are set right after the spawn: Python takes longer than that to start.
    assert run(spawners.for_forks(), script).split() == ["0", "256", str(1 << 20)]
    assert run(spawners.for_maker(tmp_path), script).split() == ["0", "256", str(64 << 20)]


def test_words_without_end_end_a_fork(spawners: Spawners) -> None:
    child = spawners.for_forks().spawn(
        [PYTHON, "-I", "-S", "-c", "import os\nwhile 1: os.write(2, b'x' * 65536)"], ()
    )
    assert child.wait(60)
    child.kill()


@needs_landlock
def test_what_it_spawned_dies_with_a_spawner() -> None:
    with Spawners(own_rules("/bin/sleep", TCG), Level(landlock.abi())) as spawners:
        child = spawners.for_forks().spawn(["/bin/sleep", "1000"], ())
        while child.wait(0) is None and os.path.basename(os.readlink(f"/proc/{child.pid}/exe")) == "setpriv":
            child.wait(0.01)
        assert child.wait(0) is None
    assert child.wait(60) == -signal.SIGKILL
    child.kill()


def test_one_spawner_for_all_forks_of_a_snapshot(spawners: Spawners, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    assert spawners.for_forks(one) is spawners.for_forks(one)
    assert spawners.for_forks(one) is not spawners.for_forks(other)
    assert spawners.for_maker(tmp_path) is not spawners.for_maker(tmp_path)


def test_what_cannot_be_confined_is_an_error_of_the_host(
    spawners: Spawners, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(7, "too many layers")

    monkeypatch.setattr(domains, "restrict_thread", fail)
    with pytest.raises(HostError, match="too many layers"):
        spawners.for_forks()


# --- how far


@needs_landlock
def test_a_program_that_runs_confined() -> None:
    assert confinement.probe(PYTHON, TCG) == Level(landlock.abi())


@needs_landlock
def test_a_program_that_needs_more_is_confined_less(tmp_path: Path) -> None:
    """It is a script, in a place where programs are not, that reads a file which it may not."""
    program = tmp_path / "bin" / "program"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nread line </etc/passwd\n")
    program.chmod(0o755)
    level = confinement.probe(str(program), TCG)
    assert (level.landlock, level.filter) == (0, True)
    assert "/etc/passwd" in level.reason
    with pytest.raises(ConfinementMissing, match="/etc/passwd"):
        confinement.require(KVM, level)


@needs_landlock
def test_a_host_that_forbids_the_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise PermissionError(1, "no filter")

    monkeypatch.setattr(domains, "forbid_calls", fail)
    level = confinement.probe(PYTHON, TCG)
    assert (level.landlock, level.filter) == (landlock.abi(), False)
    assert "no filter" in level.describe()


def test_a_host_that_forbids_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(1, "no limits")

    before = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(process, "_limit", lambda pid, limits: fail() if limits else None)
    level = confinement.probe(PYTHON, TCG)
    assert (level.landlock, level.filter, level.limits) == (landlock.abi(), True, False)
    assert "no limits" in level.describe()
    assert set(os.listdir("/proc/self/fd")) <= before


def test_rules_of_a_program_outside_of_the_system() -> None:
    rules = {rule.path: rule.access for rule in domains.rules(own_rules("/opt/q/bin/qemu", KVM), Domain())}
    assert "/opt/q/lib" in rules
    assert "/opt/q" not in rules
    assert not any(path == "/home" or path == "/" for path in rules)
    assert rules["/dev/kvm"] & landlock.Access.IOCTL_DEV
    assert "/dev/kvm" not in {
        rule.path for rule in domains.rules(own_rules("/opt/q/bin/qemu", TCG), Domain())
    }


def test_forks_have_no_rule_that_lets_them_write_but_to_nothing() -> None:
    write = landlock.Access.WRITE_FILE | landlock.Access.MAKE_REG | landlock.Access.TRUNCATE
    domain = Domain(reads=(Path("/run/ram"),))
    writable = [
        rule.path for rule in domains.rules(own_rules("/usr/bin/qemu", KVM), domain) if rule.access & write
    ]
    assert sorted(writable) == ["/dev/kvm", "/dev/null"]


MISSING = [
    (KVM, Level(0), "files"),
    (KVM, Level(1), "truncating files"),
    (KVM, Level(3), "TCP"),
    (KVM, Level(5), "signals"),
    (KVM, Level(7, filter=False), "sockets"),
    (KVM, Level(7, limits=False), "descriptors"),
    (TCG, Level(7), "no security boundary"),
]


@pytest.mark.parametrize(("accelerator", "level", "named"), MISSING)
def test_where_anything_is_missing_what_is_required_is_not_there(
    accelerator: Accelerator, level: Level, named: str
) -> None:
    with pytest.raises(ConfinementMissing, match=named) as caught:
        confinement.require(accelerator, level)
    assert caught.value.remedy


def test_where_nothing_is_missing_all_is_well() -> None:
    confinement.require(KVM, Level(6))


def test_the_level_is_told() -> None:
    assert "not refused" not in Level(7).describe()
    assert "no Landlock" in Level(0).describe()
    assert "not refused: TCP, device controls, signals" in Level(3).describe()
