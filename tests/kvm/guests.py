"""A guest session under KVM, and forks of it that run one test each."""

from __future__ import annotations

import ast
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from pytest_smol.machine.machine import Machine
from pytest_smol.pool.factory import MachineFactory, fresh_identity
from pytest_smol.pool.pool import Pool
from pytest_smol.reports.builder import ReportBuilder
from pytest_smol.session.guests import guest_session
from pytest_smol.session.guests.guest_session import GuestSession, collection_budget
from pytest_smol.session.guests.request import SessionRequest
from pytest_smol.session.placement import spec_of
from pytest_smol.settings import Settings
from pytest_smol.snapshots.snapshot import Snapshot
from pytest_smol.snapshots.sparse import copy_sparse

__all__ = ["Guest", "Result"]

#: Tests that run in guests, by file; they are copied into a project of their own.
FOLDER = Path(__file__).parent / "guest"

#: The longest that one test may take in a guest, in seconds; generous, for an emulated host.
LIMIT = 300.0


@dataclass(frozen=True)
class Result:
    """How a test in a guest ended: its outcome, its properties, and why it failed."""

    outcome: str
    values: dict[str, Any] = field(default_factory=dict)
    text: str = ""


def tests_of(path: Path) -> tuple[str, ...]:
    """The names of the test functions of a module, in the order in which pytest collects them."""
    body = ast.parse(path.read_text()).body
    return tuple(
        node.name for node in body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )


def earlier(age: float) -> dict[str, Any]:
    """What a guest takes on before it collects, as it was ``age`` seconds ago."""
    fresh = fresh_identity()
    return {**fresh, "time_ns": fresh["time_ns"] - int(age * 1e9)}


@dataclass
class Guest:
    """A session snapshot, and the names of the tests that its guest has collected."""

    factory: MachineFactory
    pool: Pool
    snapshot: Snapshot
    names: tuple[str, ...]
    #: When this host began to make it, by its monotonic clock.
    started: float

    @classmethod
    @contextmanager
    def start(
        cls,
        root: Path,
        files: Sequence[str],
        config: pytest.Config,
        *,
        memory: int = 512,
        cpus: int = 1,
        age: float = 0,
    ) -> Iterator[Guest]:
        """A guest of ``memory`` MiB that has collected ``files`` of FOLDER, copied to ``root``.

        It was told that it is ``age`` seconds earlier than it is, as if it had been frozen then.
        """
        (root / "pytest.ini").write_text(
            "[pytest]\naddopts = -p no:cacheprovider\npython_files = *_tests.py\n"
        )
        names: list[str] = []
        for name in sorted(files):
            shutil.copyfile(FOLDER / name, root / name)
            names += tests_of(root / name)
        settings = Settings(everything=True, accel="kvm", memory=memory, cpus=cpus)
        started = time.monotonic()
        with MachineFactory(settings, print) as factory:
            request = SessionRequest((), ("pytest",), root, root, tuple(sys.path), {})
            spec = replace(spec_of(settings), user="root")
            session = GuestSession(factory, request, spec, ReportBuilder(config).clean, collection_budget())
            with mock.patch.object(guest_session, "fresh_identity", return_value=earlier(age)):
                session.start(LIMIT)
            pool = Pool(factory, ahead=0)
            try:
                yield cls(factory, pool, session.snapshot, tuple(names), started)
            finally:
                pool.close()

    def fork(self, snapshot: Snapshot | None = None) -> Machine:
        """A machine that was forked, has an identity and the time of its own, and waits for a test."""
        return self.pool.fork(snapshot or self.snapshot)

    def send(self, machine: Machine, name: str) -> None:
        """Let ``machine`` run the test ``name``."""
        machine.send({"type": "run", "steps": [[self.names.index(name), None]], "failed": 0})

    def result(self, machine: Machine, limit: float = LIMIT) -> Result:
        """Wait for the end of the test that ``machine`` runs. Raises MachineTimeout."""
        outcome, text = "passed", ""
        values: dict[str, Any] = {}
        while True:
            message = machine.receive(time.monotonic() + limit)
            if message["type"] == "finish":
                return Result(outcome, values, text)
            if message["type"] == "report":
                data = message["data"]
                values.update(data["user_properties"])
                if data["outcome"] != "passed":
                    outcome, text = data["outcome"], str(data["longrepr"])

    def run(self, name: str, snapshot: Snapshot | None = None, limit: float = LIMIT) -> Result:
        """The result of the test ``name`` in a fork of its own, as :meth:`result`."""
        machine = self.fork(snapshot)
        try:
            self.send(machine, name)
            return self.result(machine, limit)
        finally:
            self.pool.retire(machine)

    def again(self, directory: Path) -> Snapshot:
        """A snapshot in ``directory`` of a guest that went on from this one's, and was frozen again."""
        directory.mkdir()
        own = replace(self.snapshot, ram=directory / "ram", state=directory / "state")
        copy_sparse(self.snapshot.ram, own.ram)
        shutil.copyfile(self.snapshot.state, own.state)
        machine = self.factory.resume(own, own.view)
        frozen = directory / "frozen"
        tree = machine.freeze(frozen)
        self.factory.retire(machine)
        return replace(own, state=frozen, tree=tree)
