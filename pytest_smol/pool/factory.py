"""Makes machines and kills them: it owns all processes and files of a run."""

from __future__ import annotations

import os
import secrets
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from pytest_smol.engines.choice import choose_engine
from pytest_smol.engines.protocol import Engine, Hardware, Kernel, VirtualMachine
from pytest_smol.errors import BootFailed, MachineError, MachineTimeout
from pytest_smol.guest_os import boot_files, initramfs, kernel_parameters
from pytest_smol.guest_os.host_view import base_view, hiding
from pytest_smol.guest_os.interpreter import start_command
from pytest_smol.guest_os.kernel_view import kernel_entries
from pytest_smol.host import cache_directory
from pytest_smol.host.process import launcher_problem
from pytest_smol.host.resources import require_memory
from pytest_smol.host.run_directory import RunDirectory, sweep
from pytest_smol.machine.consoles import Consoles
from pytest_smol.machine.dispatcher import Deadline, Phase, Rule, finish, last_words_as_evidence
from pytest_smol.machine.machine import Machine, OutputSink
from pytest_smol.pool.admission import Ledger
from pytest_smol.pool.usage import Usage
from pytest_smol.settings import Settings
from pytest_smol.snapshots.base_cache import BaseCache, Origin
from pytest_smol.snapshots.key import base_key_fields, key_of
from pytest_smol.snapshots.snapshot import Snapshot
from pytest_smol.virtiofs.filesystem.tree import Tree
from pytest_smol.virtiofs.server import Server
from pytest_smol.virtiofs.view import View

__all__ = ["MachineFactory", "fresh_identity"]

#: A boot is tried this often before it is reported as failed.
BOOT_ATTEMPTS = 3

#: A boot in which nothing happens for so long (no console line, no file request), in seconds, is stuck.
_STALL = 30.0

#: The longest that a boot may take altogether, in seconds.
_BOOT_LIMIT = 300.0


def fresh_identity() -> dict[str, Any]:
    """What one machine alone has, for the guest to take on before any test code: entropy, time and names."""
    return {
        "entropy": secrets.token_hex(64),
        "time_ns": time.time_ns(),
        "hostname": f"smol-{secrets.token_hex(4)}",
        "machine_id": secrets.token_hex(16),
        "boot_id": str(uuid.uuid4()),
    }


def _command_line(hardware: Hardware, tsc_khz: int) -> str:
    return kernel_parameters.command_line(tsc_khz, disks=bool(hardware.disks), nested=hardware.nested)


class BootDeadline(Deadline):
    """The time that a boot may take: no _STALL seconds without progress, and _BOOT_LIMIT seconds in all."""

    def __init__(self) -> None:
        super().__init__(_BOOT_LIMIT)
        self._seen = -1

    def next(self) -> float:
        """The time of the next check for progress, on time.monotonic()'s clock."""
        return min(time.monotonic() + _STALL, self.at)

    def missed(self, machine: Machine, error: MachineTimeout) -> None:
        """Raises ``error`` where no console output and no file request came since the last check."""
        progress = machine.console.total + machine.backend.requests.total()
        if progress == self._seen or time.monotonic() >= self.at:
            raise error
        self._seen = progress


class MachineFactory:
    """Makes the machines of one run. A context manager: leaving it ends all processes and removes all files.

    ``progress`` is called with a line before each step that takes long. The run's directory is
    made in ``parent`` or, if that is None, where the settings say. Host paths that guests looked up
    and that are hidden from them are added to ``hidden``. Raises
    :class:`HostError` where the host cannot run machines.
    """

    def __init__(
        self,
        settings: Settings,
        progress: Callable[[str], None],
        parent: Path | None = None,
        hidden: set[str] | None = None,
    ) -> None:
        self._progress = progress
        self.engine: Engine = choose_engine(settings)
        cache = cache_directory.directory()
        self.boot_files = boot_files.prepare(cache, settings.kernel, progress)
        self._bases = BaseCache(cache, kernel_parameters.tsc_khz())
        self.consoles = Consoles(settings.keep_console, os.environ.get("PYTEST_XDIST_WORKER", ""))
        self.view = base_view(
            hidden=hiding(settings.hide, settings.show), system=kernel_entries(self.boot_files)
        )
        self.hidden: set[str] = set() if hidden is None else hidden
        self.usage = Usage()
        self.ledger = Ledger.of_user()
        self._machines: set[Machine] = set()
        if problem := launcher_problem():
            progress(problem)
        for place in {None, settings.snapshot_dir}:
            sweep(place)
        with ExitStack() as stack:
            self.directory = stack.enter_context(RunDirectory(parent or settings.snapshot_dir)).path
            self._server = stack.enter_context(Server())
            stack.enter_context(self.engine)
            stack.callback(self._close_all)
            self._stack = stack.pop_all()

    def hardware(
        self, memory: int, cpus: int | None = None, disks: tuple[int, ...] = (), *, nested: bool = False
    ) -> Hardware:
        """The hardware of a guest of ``memory`` MiB; where ``cpus`` is None the engine decides."""
        return Hardware(memory, cpus or self.engine.default_cpus(), disks, nested)

    def base_key_fields(self, hardware: Hardware) -> dict[str, Any]:
        """The fields of the key of the base snapshot for guests with ``hardware``: see ``key_of``."""
        line = _command_line(hardware, 0)
        boot = (self.boot_files.digest, line, start_command())
        return base_key_fields(self.engine.identity(hardware), boot, self.view)

    def base(self, hardware: Hardware, target: Path) -> tuple[Snapshot, Origin]:
        """A copy in the directory ``target`` of the base snapshot for guests with ``hardware``."""
        require_memory(hardware.memory)
        self.engine.require(hardware)

        def build(directory: Path) -> Snapshot:
            self._progress("making a base snapshot for this interpreter (once)")
            more = boot_files.kvm_modules(self.boot_files) if hardware.nested else b""
            archive = initramfs.with_start(self.boot_files.initramfs, start_command(), self.directory, more)
            command_line = _command_line(hardware, kernel_parameters.tsc_khz())
            kernel = Kernel(self.boot_files.kernel, archive, command_line)
            return self._boot(hardware, kernel, directory)

        return self._bases.checkout(
            key_of(self.base_key_fields(hardware)), hardware, self.view, target, build
        )

    def _boot(self, hardware: Hardware, kernel: Kernel, directory: Path) -> Snapshot:
        for attempt in range(1, BOOT_ATTEMPTS + 1):
            try:
                return self._try_boot(hardware, kernel, directory)
            except MachineError as error:
                failure = error
            self._progress(f"boot {attempt} of at most {BOOT_ATTEMPTS} failed: {failure.message}")
        raise BootFailed(
            f"the guest did not get ready in {BOOT_ATTEMPTS} attempts: {failure.message}",
            evidence=failure.evidence,
            remedy=failure.remedy
            or "pytest-smol doctor tells what this host lacks; smol_kernel names another guest kernel",
        ) from failure

    def _try_boot(self, hardware: Hardware, kernel: Kernel, directory: Path) -> Snapshot:
        ram = directory / "ram"
        with ram.open("wb") as file:
            file.truncate(hardware.memory << 20)
        vm = self.engine.boot(hardware, kernel, ram)
        with Machine(vm, self._server, Tree(self.view)) as machine:
            self.keep_console(machine, f"base {hardware.memory}")
            with last_words_as_evidence(machine):
                machine.start()
                finish(machine, Phase("while it booted", {"ready": Rule(ends=True)}, BootDeadline()))
            state = directory / "state"
            return Snapshot(hardware, self.view, ram, state, machine.freeze(state))

    def resume(self, snapshot: Snapshot, view: View, on_output: OutputSink | None = None) -> Machine:
        """A machine that goes on from ``snapshot``, in its own memory and disk files, and sees ``view``."""
        tree = Tree(view, snapshot.tree, hidden_hits=self.hidden)
        disks = [path for path in snapshot.disks if path is not None]
        vm = self.engine.resume(snapshot.hardware, snapshot.ram, disks)
        return self._started(snapshot, self._machine(vm, tree, on_output))

    def fork(self, snapshot: Snapshot, on_output: OutputSink | None = None) -> Machine:
        """A machine that shares the memory of ``snapshot`` until it writes."""
        begin = time.monotonic()
        tree = Tree(snapshot.view, snapshot.tree, final=True, hidden_hits=self.hidden)
        vm = self.engine.fork(snapshot.hardware, snapshot.ram, snapshot.state, snapshot.disks)
        machine = self._started(snapshot, self._machine(vm, tree, on_output))
        self.usage.forked(machine, begin)
        return machine

    def _machine(self, vm: VirtualMachine, tree: Tree, on_output: OutputSink | None) -> Machine:
        return Machine(vm, self._server, tree, on_output)

    def _started(self, snapshot: Snapshot, machine: Machine) -> Machine:
        self._machines.add(machine)
        try:
            machine.start(snapshot.state)
        except BaseException:
            self.retire(machine)
            raise
        return machine

    def keep_console(self, machine: Machine, title: str) -> None:
        """Write the console of ``machine`` to a file named after ``title``, if the settings keep consoles."""
        machine.keep_console(self.consoles.open(title))

    def retire(self, machine: Machine) -> None:
        """Kill a machine that is no longer needed; idempotent."""
        machine.close()
        self.usage.ended(machine)
        self._machines.discard(machine)

    def kill_all(self) -> None:
        """Kill every machine, without waiting for its end."""
        for machine in list(self._machines):
            machine.kill()

    def _close_all(self) -> None:
        while self._machines:
            self._machines.pop().close()

    def close(self) -> None:
        """Kill every machine and remove every file of the run; idempotent."""
        self._stack.close()

    def __enter__(self) -> MachineFactory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
