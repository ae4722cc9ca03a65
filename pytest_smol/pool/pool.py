"""Forks, made by threads while another test runs, so that they are ready when a test needs one."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

from pytest_smol.errors import SmolError
from pytest_smol.host.resources import cores
from pytest_smol.machine.dispatcher import Deadline, Phase, Rule, finish
from pytest_smol.machine.machine import Machine, OutputSink
from pytest_smol.pool.admission import Claim
from pytest_smol.pool.factory import MachineFactory, fresh_identity
from pytest_smol.snapshots.snapshot import Snapshot

__all__ = ["Pool", "forks_ahead"]

#: The most forks that are made before a test needs them.
_MOST = 4

#: How long a fork may take to take on its identity, in seconds; generous, for a busy host.
_IDENTITY_LIMIT = 60.0

#: The messages that a fork may send while it takes on its identity.
_IDENTITY_RULES = {"fresh": Rule(ends=True)}


def forks_ahead(environ: Mapping[str, str]) -> int:
    """How many forks to make before tests need them: one for each core up to _MOST, none with one core.

    Making a fork takes longer than a trivial test, so with one fork less a core would be idle at times.
    The workers of pytest-xdist share the cores; PYTEST_XDIST_WORKER_COUNT in ``environ`` is their number.
    """
    workers = max(1, int(environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    share = cores() // workers
    return min(_MOST, share) if share > 1 else 0


class Pool:
    """The forks of one run; each is used once, and has a claim in the factory's ledger.

    Up to ``ahead`` of them are made before they are needed. Close it before the factory.
    """

    def __init__(self, factory: MachineFactory, ahead: int) -> None:
        self._factory = factory
        self._ledger = factory.ledger
        self._most = ahead
        # One thread more than make machines: closing a machine then delays no fork.
        self._threads = ThreadPoolExecutor(ahead + 1, thread_name_prefix="smol-pool")
        self._ready: dict[Path, deque[Future[Machine]]] = defaultdict(deque)
        self._planned: dict[Path, int] = {}
        self._claims: dict[Machine, Claim] = {}
        self._closings: list[Future[None]] = []

    def plan(self, snapshot: Snapshot, groups: int) -> None:
        """Say how many more groups will each need a fork of ``snapshot``."""
        self._planned[snapshot.state] = groups

    def fork(self, snapshot: Snapshot, on_output: OutputSink | None = None) -> Machine:
        """A machine that shares the memory of ``snapshot`` until it writes, with an identity of its own.

        Waits for memory while other runs or workers use it. Raises
        :class:`~pytest_smol.errors.SmolError`.
        """
        machine = self._next(snapshot)
        machine.show_output(on_output)
        self._make_ahead(snapshot)
        return machine

    def _next(self, snapshot: Snapshot) -> Machine:
        ready = self._ready[snapshot.state]
        if ready:
            # Where this one failed, another try may succeed, as there is one machine less on the host now.
            with suppress(SmolError):
                return ready.popleft().result()
        return self._begin(snapshot, self._admit(snapshot.hardware.memory)).result()

    def _admit(self, memory: int) -> Claim:
        claim = self._ledger.claim(memory)
        if claim is not None:
            return claim
        self._make_room()
        if self._claims:
            return self._ledger.claim_without_waiting(memory, len(self._claims))
        return self._ledger.wait(memory)

    def _make_room(self) -> None:
        """Retire the forks that no test needs yet, and wait until killed machines have freed their memory."""
        for ready in self._ready.values():
            while ready:
                with suppress(SmolError):
                    self.retire(ready.popleft().result())
        wait(self._closings)

    def _begin(self, snapshot: Snapshot, claim: Claim) -> Future[Machine]:
        return self._threads.submit(self._make, snapshot, claim)

    def _make_ahead(self, snapshot: Snapshot) -> None:
        ready = self._ready[snapshot.state]
        wanted = min(self._planned.get(snapshot.state, 0), self._most)
        waiting = sum(map(len, self._ready.values()))
        with suppress(SmolError):  # a fork that cannot be made ahead is made when it is needed
            for _ in range(wanted - waiting):
                claim = self._ledger.claim(snapshot.hardware.memory, spare=True)
                if claim is None:
                    break
                ready.append(self._begin(snapshot, claim))

    def _make(self, snapshot: Snapshot, claim: Claim) -> Machine:
        try:
            machine = self._forked(snapshot)
        except BaseException:
            self._ledger.release(claim)
            raise
        self._claims[machine] = claim
        return machine

    def _forked(self, snapshot: Snapshot) -> Machine:
        machine = self._factory.fork(snapshot)
        try:
            machine.send({"type": "identity", "fresh": fresh_identity()})
            place = "instead of acknowledging its new identity"
            finish(machine, Phase(place, _IDENTITY_RULES, Deadline(_IDENTITY_LIMIT)))
        except BaseException:
            self._factory.retire(machine)
            raise
        return machine

    def keep_console(self, machine: Machine, title: str) -> None:
        """As :meth:`MachineFactory.keep_console`."""
        self._factory.keep_console(machine, title)

    def retire(self, machine: Machine) -> None:
        """Kill a machine at once; a thread of the pool closes what is left of it."""
        machine.kill()
        claim = self._claims.pop(machine, None)
        if claim is not None:  # its memory is free before another machine has touched as much
            self._ledger.release(claim)
        self._closings = [each for each in self._closings if not each.done()]
        self._closings.append(self._threads.submit(self._factory.retire, machine))

    def close(self) -> None:
        """End the threads, and with them what they are about to make; idempotent."""
        for future in (future for ready in self._ready.values() for future in ready):
            future.cancel()
        self._factory.kill_all()
        self._threads.shutdown(wait=True)
        self._ledger.close()
