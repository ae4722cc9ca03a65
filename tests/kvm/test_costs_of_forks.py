"""What a fork costs under KVM has not grown: instructions, exits, page faults, system calls, requests."""

from __future__ import annotations

import os

import pytest

from tests.kvm.costs import RECORD, apart, costs, made_with, record
from tests.kvm.l1 import COUNTED

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.vm,
    pytest.mark.skipif(COUNTED not in os.environ, reason="no clock here counts instructions (--counted)"),
]


def test_costs_are_the_recorded_ones() -> None:
    if not RECORD.exists():
        pytest.skip(f"nothing was recorded in {RECORD.name} yet: python -m tests.kvm.costs does that")
    recorded = record()
    if (here := made_with()) != recorded["made with"]:
        pytest.skip(f"the costs were recorded with {recorded['made with']}, and this is {here}")
    assert apart(costs(), recorded["costs"]) == []
