"""A pytest plugin that records on which kernel each test ran, by the kernel's boot id.

It is copied into environments in which suites run, so it imports pytest only. Wherever a test runs,
in a guest or on the host, its reports get the boot id of the kernel there as a user property. The
pytest that shows the reports takes the property off before other plugins see it, and writes all boot
ids by node id, as JSON, to the file named by the environment variable ``SMOL_BOOT_IDS``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path

import pytest

__all__ = ["Recorder", "pytest_configure", "pytest_runtest_makereport"]

PROPERTY = "smol_boot_id"

#: linux, Documentation/admin-guide/sysctl/kernel.rst: random for each boot.
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    report.user_properties = [*report.user_properties, (PROPERTY, BOOT_ID.read_text("ascii").strip())]
    return report


class Recorder:
    """Collects the boot ids from reports: none for a test whose only reports the host made itself."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, set[str]] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        ids = {str(value) for name, value in report.user_properties if name == PROPERTY}
        self.found.setdefault(report.nodeid, set()).update(ids)
        report.user_properties = [pair for pair in report.user_properties if pair[0] != PROPERTY]

    def pytest_unconfigure(self) -> None:
        table = {nodeid: sorted(ids) for nodeid, ids in self.found.items()}
        self.path.write_text(json.dumps(table, indent=1, sort_keys=True), encoding="utf-8")


def pytest_configure(config: pytest.Config) -> None:
    path = os.environ.get("SMOL_BOOT_IDS")
    # A guest and a worker of pytest-xdist hand their reports on, with the property.
    hands_on = os.environ.get("SMOL_GUEST") == "1" or hasattr(config, "workerinput")
    if path and not hands_on:
        config.pluginmanager.register(Recorder(Path(path).absolute()), "smol-boot-ids")
