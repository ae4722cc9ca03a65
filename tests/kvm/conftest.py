"""What the tests of KVM share: they run where KVM works, here or in the host that scripts/kvm emulates."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from pytest_smol.engines.qemu import accelerator
from tests.kvm.guests import Guest
from tests.kvm.l1 import REQUIRED


@pytest.fixture(scope="session", autouse=True)
def _kvm() -> None:
    """Skips the tests where KVM does not work, but not where scripts/kvm runs them."""
    reason = accelerator.verdict(accelerator.probe())
    if reason and REQUIRED in os.environ:
        pytest.fail(f"KVM does not work here: {reason}", pytrace=False)
    elif reason:
        pytest.skip(f"{reason}; scripts/kvm runs these tests in an emulated host")


@pytest.fixture(scope="session")
def guest(
    _kvm: None, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[Guest]:
    """A session snapshot of the tests for guests, from which tests fork machines."""
    with Guest.start(tmp_path_factory.mktemp("project"), ["guest_tests.py"], pytestconfig) as made:
        yield made


@pytest.fixture(scope="session")
def busy_guest(
    _kvm: None, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[Guest]:
    """By its clock frozen an hour ago, while a thread held values in the AVX registers."""
    root, files = tmp_path_factory.mktemp("project"), ["avx_tests.py", "guest_tests.py"]
    with Guest.start(root, files, pytestconfig, age=3600) as made:
        yield made
