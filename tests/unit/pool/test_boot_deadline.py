"""How long a boot is waited for: as long as something happens."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_smol.errors import MachineTimeout
from pytest_smol.pool import factory
from pytest_smol.pool.factory import BootDeadline


def machine(lines: int, requests: int) -> Any:
    """A machine whose console has shown so many bytes, and whose guest has asked for so many files."""
    counter = SimpleNamespace(total=lambda: requests)
    return cast(
        Any, SimpleNamespace(console=SimpleNamespace(total=lines), backend=SimpleNamespace(requests=counter))
    )


def test_it_goes_on_while_there_is_progress() -> None:
    deadline = BootDeadline()
    for step in range(5):
        deadline.missed(machine(step + 1, step), MachineTimeout("late"))
        deadline.missed(machine(step + 1, step + 1), MachineTimeout("late"))


def test_it_ends_where_nothing_happened_since_the_last_look() -> None:
    deadline = BootDeadline()
    deadline.missed(machine(10, 5), MachineTimeout("late"))
    with pytest.raises(MachineTimeout, match="late"):
        deadline.missed(machine(10, 5), MachineTimeout("late"))


def test_it_ends_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factory, "_BOOT_LIMIT", 0.0)
    deadline = BootDeadline()
    assert deadline.next() <= time.monotonic()
    with pytest.raises(MachineTimeout):
        deadline.missed(machine(10, 5), MachineTimeout("late"))
