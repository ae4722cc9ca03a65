"""Inputs that fuzzers found or began from, each run once more through its target; see scripts/fuzz."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

FUZZ = Path(__file__).parents[2] / "fuzz"
TARGETS = [path.stem.removeprefix("fuzz_") for path in sorted(FUZZ.glob("fuzz_*.py"))]
INPUTS = {f"{path.parent.name}/{path.name}": path for path in sorted((FUZZ / "corpus").glob("*/*"))}


def target_of(name: str) -> Callable[[bytes], None]:
    run: Callable[[bytes], None] = importlib.import_module(f"fuzz.fuzz_{name}").run
    return run


def test_every_target_has_inputs_and_every_input_its_target() -> None:
    assert sorted({path.parent.name for path in INPUTS.values()}) == TARGETS


@pytest.mark.parametrize("name", INPUTS)
def test_what_a_fuzzer_found_is_found_no_more(name: str) -> None:
    target_of(INPUTS[name].parent.name)(INPUTS[name].read_bytes())


@pytest.mark.parametrize("target", TARGETS)
@settings(deadline=None, max_examples=200)
@given(data=st.binary(max_size=300))
def test_a_target_runs_whatever_it_is_given(target: str, data: bytes) -> None:
    target_of(target)(data)
