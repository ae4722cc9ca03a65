"""Runs before all other tests with machines: does this QEMU do what everything here is built on?"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_smol.errors import HostError, SmolError
from pytest_smol.pool.factory import MachineFactory
from pytest_smol.pool.pool import Pool
from pytest_smol.reports.builder import ReportBuilder
from pytest_smol.session.guests.guest_session import GuestSession, collection_budget
from pytest_smol.session.guests.request import SessionRequest
from pytest_smol.session.placement import spec_of
from pytest_smol.settings import Settings
from tests.kvm.l1 import ACCELERATOR

pytestmark = pytest.mark.vm

SETTINGS = Settings(everything=True, accel=ACCELERATOR)

TEST = """
from pathlib import Path

def test_reads_what_the_host_wrote_last():
    print(Path(__file__).with_name("fresh").read_text())
"""


@pytest.fixture
def factory() -> Iterator[MachineFactory]:
    try:
        made = MachineFactory(SETTINGS, lambda text: None)
    except HostError as error:
        pytest.fail(f"this host cannot run machines: {error}", pytrace=False)
    with made:
        yield made


def run_in_fork(factory: MachineFactory, guest: GuestSession) -> str:
    """What the only test of ``guest`` printed when it ran in a fork."""
    pool = Pool(factory, ahead=0)
    machine = pool.fork(guest.snapshot)
    machine.send({"type": "run", "steps": [[0, None]], "failed": 0})
    printed = ""
    while True:
        message = machine.receive(time.monotonic() + 120)
        if message["type"] == "report" and message["data"]["when"] == "call":
            printed = "".join(text for title, text in message["data"]["sections"] if "stdout" in title)
        elif message["type"] == "finish":
            pool.close()
            return printed


@pytest.mark.kvm
def test_a_fork_reads_a_file_that_is_younger_than_its_snapshot(
    factory: MachineFactory, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_fresh.py").write_text(TEST)
    request = SessionRequest((), ("pytest",), tmp_path, tmp_path, tuple(sys.path), {})
    guest = GuestSession(
        factory, request, spec_of(SETTINGS), ReportBuilder(pytestconfig).clean, collection_budget()
    )
    try:
        guest.start(SETTINGS.timeout)
        for word in ("first", "second"):
            (tmp_path / "fresh").write_text(word)
            assert run_in_fork(factory, guest).strip() == word
    except SmolError as error:
        pytest.fail(f"{factory.engine.describe()} does not fork guests: {error}", pytrace=False)
