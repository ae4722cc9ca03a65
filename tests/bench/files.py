"""The file server as guests see it: ours in a new machine and in a fork, and virtiofsd where there is one."""

from __future__ import annotations

import json
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from pytest_smol.engines.protocol import Hardware, Kernel
from pytest_smol.engines.qemu.command_line import CHARDEVS, command_line
from pytest_smol.engines.qemu.engine import QemuEngine
from pytest_smol.guest_os import initramfs, kernel_parameters
from pytest_smol.guest_os.host_view import base_view, project_view
from pytest_smol.host.process import ChildProcess
from pytest_smol.pool.factory import MachineFactory
from pytest_smol.settings import Settings
from pytest_smol.virtiofs.filesystem.tree import Tree
from pytest_smol.virtiofs.server import Server
from pytest_smol.virtiofs.vhost_user.transport import VhostUserTransport
from tests.bench import machines
from tests.bench.figures import Figure
from tests.bench.peers import PeerMissing

__all__ = ["measure"]

UNITS = {"stat_storm": "names/s", "small_files": "files/s", "large_file": "MB/s", "imports": "1/s"}

_SCRIPT = Path(__file__).with_name("guest_files.py")
_LIMIT = 300

#: Measures in a fork whose page cache knows nothing of the files.
_TEST = """
import json, sys

def test_files():
    sys.path.insert(0, {directory!r})
    import script
    print(json.dumps(script.measure({directory!r})))
"""

#: Where distributions put it if not on PATH.
_VIRTIOFSD = ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd/virtiofsd")


def make_data(directory: Path) -> None:
    """2,000 files of 1 to 4 kB in 20 directories, and one of 64 MB."""
    for number in range(2000):
        file = directory / "small" / f"{number % 20}" / f"file-{number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(range(256)) * (4 + number % 13))
    (directory / "large").write_bytes(bytes(range(256)) * (64 << 12))
    shutil.copy(_SCRIPT, directory / "script.py")


def measure(directory: Path, repeats: int) -> Iterator[Figure]:
    """Rates in new machines: with our server, and with virtiofsd, in turn; then in forks."""
    make_data(directory)
    samples: dict[str, list[dict[str, float]]] = {"ours": [], "ours, in a fork": []}
    program = shutil.which("virtiofsd") or next(filter(shutil.which, _VIRTIOFSD), None)
    if program:
        samples["virtiofsd"] = []
    with MachineFactory(Settings(), print) as factory:
        for _ in range(repeats):
            samples["ours"].append(_new_machine(factory, directory, None))
            if program:
                samples["virtiofsd"].append(_new_machine(factory, directory, program))
    with machines.session(directory, _TEST.format(directory=str(directory))) as (factory, snapshot):
        for _ in range(repeats):
            samples["ours, in a fork"].append(json.loads(machines.printed_by(factory, snapshot, 0)))
    for server, rates in samples.items():
        for work, unit in UNITS.items():
            yield Figure(f"{work}: {server}", unit, tuple(rate[work] for rate in rates))


def _new_machine(factory: MachineFactory, directory: Path, virtiofsd: str | None) -> dict[str, float]:
    """Boot a machine that measures and powers off, its files served by ``virtiofsd`` or by us."""
    assert isinstance(factory.engine, QemuEngine)
    hardware = Hardware(512)
    program = [sys.executable, str(directory / "script.py"), str(directory)]
    archive = initramfs.with_start(factory.boot_files.initramfs, program, factory.directory)
    kernel = Kernel(
        factory.boot_files.kernel, archive, kernel_parameters.command_line(kernel_parameters.tsc_khz())
    )
    ram = factory.directory / "bench-ram"
    with ram.open("wb") as file:
        file.truncate(hardware.memory << 20)
    with ExitStack() as stack:
        pairs = {name: socket.socketpair() for name in CHARDEVS}
        for ours, theirs in pairs.values():
            stack.enter_context(ours)
            stack.enter_context(theirs)
        fds = {name: theirs.fileno() for name, (_, theirs) in pairs.items()}
        if virtiofsd:
            fds["fs"] = stack.enter_context(_served_by(virtiofsd, factory.directory, stack)).fileno()
        numbers = [fds[name] for name in CHARDEVS]
        # virtiofsd knows no legacy devices, which QEMU's microvm has unless it is told otherwise.
        modern = ["-global", "virtio-mmio.force-legacy=false"]
        argv = [*command_line(factory.engine.config, hardware, ram, numbers, kernel=kernel), *modern]
        process = ChildProcess(argv, numbers)
        stack.callback(process.kill)
        if not virtiofsd:
            view = project_view(base_view(), rootdir=directory, cwd=directory, sys_path=(), extra=())
            server = stack.enter_context(Server())
            transport = VhostUserTransport(pairs["fs"][0], process.pid)
            stack.callback(server.attach(transport, Tree(view)).close)
        return _rates(pairs["console"][0])


def _served_by(virtiofsd: str, folder: Path, stack: ExitStack) -> socket.socket:
    """A connection to a virtiofsd that serves the host's root, read by two dialects of its options."""
    path = folder / "virtiofsd.sock"
    path.unlink(missing_ok=True)
    help_text = subprocess.run([virtiofsd, "--help"], capture_output=True, text=True, check=False).stdout
    rust = ["--shared-dir=/", "--sandbox=none", "--cache=always"]
    options = (
        rust
        if "--shared-dir" in help_text
        else ["-o", "source=/", "-o", "cache=always", "-o", "sandbox=chroot"]
    )
    server = subprocess.Popen(
        [virtiofsd, f"--socket-path={path}", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    stack.callback(server.wait)
    stack.callback(server.kill)
    connection = socket.socket(socket.AF_UNIX)
    deadline = time.monotonic() + 10
    while True:
        try:
            connection.connect(str(path))
            return connection
        except OSError as error:
            if time.monotonic() > deadline or server.poll() is not None:
                raise PeerMissing(f"{virtiofsd} does not serve: {error}") from error
            time.sleep(0.05)


def _rates(console: socket.socket) -> dict[str, float]:
    deadline = time.monotonic() + _LIMIT
    shown = b""
    while b"SMOL-BENCH " not in shown or not shown.rpartition(b"SMOL-BENCH ")[2].endswith(b"\n"):
        ready, _, _ = select.select([console], [], [], max(0.0, deadline - time.monotonic()))
        data = console.recv(65536) if ready else b""
        if not data:
            raise RuntimeError(f"the guest did not measure:\n{shown[-3000:].decode('utf-8', 'replace')}")
        shown += data
    found: dict[str, float] = json.loads(shown.rpartition(b"SMOL-BENCH ")[2].splitlines()[0])
    return found
