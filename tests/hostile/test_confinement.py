"""A QEMU that a guest has taken over: one that is told by QMP to do what such a one would do by itself."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_smol.engines.confinement import landlock
from pytest_smol.engines.qemu.engine import QemuEngine
from pytest_smol.engines.qemu.vm import QemuVm
from pytest_smol.errors import QmpError
from pytest_smol.machine.machine import Machine
from pytest_smol.pool.factory import MachineFactory
from pytest_smol.settings import Settings
from pytest_smol.snapshots.snapshot import Snapshot
from pytest_smol.virtiofs.filesystem.tree import Tree
from pytest_smol.virtiofs.server import Server

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(landlock.abi() < 6, reason="the kernel has not all of Landlock"),
]

REFUSED = "Permission denied|Could not open|Failed to|Can't"


@dataclass
class Field:
    """Machines of one snapshot: a fork, what makes another snapshot, and one that nothing confines."""

    fork: Machine
    maker: Machine
    free: Machine
    snapshot: Snapshot
    port: int
    outside: Path


def unconfined(stack: ExitStack, factory: MachineFactory, snapshot: Snapshot) -> Machine:
    server = stack.enter_context(Server())
    tree = Tree(snapshot.view, snapshot.tree, final=True)
    assert isinstance(factory.engine, QemuEngine)
    vm = QemuVm(factory.engine.config, snapshot.hardware, snapshot.ram, private=True)
    machine = stack.enter_context(Machine(vm, server, tree))
    machine.start(snapshot.state)
    return machine


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    outside = tmp_path_factory.mktemp("outside")
    with ExitStack() as stack:
        factory = stack.enter_context(MachineFactory(Settings(everything=True), print))
        snapshots = [
            factory.base(factory.hardware(512), tmp_path_factory.mktemp(name))
            for name in ("forked", "resumed")
        ]
        forked, resumed = (snapshot for snapshot, _ in snapshots)
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        yield Field(
            factory.fork(forked),
            factory.resume(resumed, resumed.view),
            unconfined(stack, factory, forked),
            forked,
            listener.getsockname()[1],
            outside,
        )


def tell(machine: Machine, command: str, **arguments: Any) -> Any:
    assert isinstance(machine.vm, QemuVm)
    return machine.vm.qmp.execute(command, time.monotonic() + 60, **arguments)


def chardev(machine: Machine, kind: str, **data: Any) -> None:
    tell(machine, "chardev-add", id=f"c{time.monotonic_ns()}", backend={"type": kind, "data": data})


def read_a_file(machine: Machine, field: Field) -> None:
    name = f"b{time.monotonic_ns()}"
    tell(
        machine,
        "blockdev-add",
        **{"driver": "file", "node-name": name, "read-only": True},
        filename="/etc/passwd",
    )


def write_a_file(machine: Machine, field: Field) -> None:
    (field.outside / "there").write_text("text")
    tell(machine, "pmemsave", val=0, size=4096, filename=str(field.outside / "there"))


def make_a_file(machine: Machine, field: Field) -> None:
    tell(machine, "pmemsave", val=0, size=4096, filename=str(field.outside / f"new{time.monotonic_ns()}"))


def connect_by_tcp(machine: Machine, field: Field) -> None:
    address = {"type": "inet", "data": {"host": "127.0.0.1", "port": str(field.port)}}
    chardev(machine, "socket", addr=address, server=False)


def send_by_udp(machine: Machine, field: Field) -> None:
    address = {"type": "inet", "data": {"host": "127.0.0.1", "port": str(field.port)}}
    chardev(machine, "udp", remote=address)


def open_a_socket(machine: Machine, field: Field) -> None:
    address = {"type": "unix", "data": {"path": str(field.outside / f"qmp{time.monotonic_ns()}")}}
    chardev(machine, "socket", addr=address, server=True, wait=False)


def listen_by_tcp(machine: Machine, field: Field) -> None:
    address = {"type": "inet", "data": {"host": "127.0.0.1", "port": "0"}}
    chardev(machine, "socket", addr=address, server=True, wait=False)


ATTACKS = (
    read_a_file,
    write_a_file,
    make_a_file,
    connect_by_tcp,
    send_by_udp,
    open_a_socket,
    listen_by_tcp,
)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_fork_that_was_taken_over_is_refused(field: Field, attack: Any) -> None:
    attack(field.free, field)  # nothing but confinement refuses it
    before = {path.name: path.read_bytes() for path in field.outside.iterdir() if path.is_file()}
    if attack is write_a_file:
        before["there"] = b"text"
    with pytest.raises(QmpError, match=REFUSED):
        attack(field.fork, field)
    assert {path.name: path.read_bytes() for path in field.outside.iterdir() if path.is_file()} == before
    assert tell(field.fork, "query-status")["status"] == "running"


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_maker_that_was_taken_over_is_refused(field: Field, attack: Any) -> None:
    with pytest.raises(QmpError, match=REFUSED):
        attack(field.maker, field)


def test_a_fork_cannot_change_its_snapshot(field: Field) -> None:
    for path in (field.snapshot.ram, field.snapshot.state):
        before = path.stat()
        with pytest.raises(QmpError, match=REFUSED):
            tell(field.fork, "pmemsave", val=0, size=4096, filename=str(path))
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_the_kernel_says_how_a_fork_is_confined(field: Field) -> None:
    pid = field.fork.vm.pid
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"
    assert int(status["Seccomp_filters"]) >= 2
    limits = Path(f"/proc/{pid}/limits").read_text()
    hard = {line[:26].strip(): line[26:].split()[1] for line in limits.splitlines()[1:]}
    assert hard["Max core file size"] == "0"
    assert hard["Max open files"] == "256"
    assert hard["Max file size"] == str(1 << 20)


def test_nothing_else_of_this_process_is_confined(field: Field) -> None:
    confined = Path(f"/proc/{field.fork.vm.pid}/status").read_text()
    (filters,) = (line for line in confined.splitlines() if line.startswith("Seccomp_filters"))
    assert filters not in Path("/proc/self/status").read_text()
    assert Path("/etc/passwd").read_bytes()
    assert (field.outside / "mine").write_text("text")
    socket.create_connection(("127.0.0.1", field.port)).close()


def test_what_is_required_and_missing_ends_a_run_before_any_test(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nsmol_require_confinement = true\n")
    pytester.makepyfile("def test_it(): open('/tmp/ran', 'w')")
    result = pytester.runpytest_subprocess("--smol", "--smol-accel=tcg")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: smol_require_confinement is set, *no security boundary*", "hint: *KVM*"]
    )
    result.stdout.no_fnmatch_line("*passed*")


NOTHING = """from pytest_smol.engines.confinement import landlock, seccomp
from pytest_smol.host import process

def refuse(*arguments):
    raise PermissionError(1, "it is forbidden here")

landlock.SYS_CREATE_RULESET = 100_000
seccomp.program = refuse
process._limit = lambda pid, limits: limits and refuse()
"""


def test_a_host_that_has_nothing_of_it_runs_machines_all_the_same(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(forbidding=NOTHING, test_it="def test_it(): pass")
    pytester.syspathinsert()
    result = pytester.runpytest_subprocess("--smol", "-p", "forbidding")
    result.assert_outcomes(passed=1)
    result = pytester.runpytest_subprocess(
        "--smol", "-p", "forbidding", "-o", "smol_require_confinement=true"
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: smol_require_confinement is set, *refused files*forbidden here*"])
