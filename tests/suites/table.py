"""The third-party suites: what each needs to run as its own project runs it. Data only."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SUITES", "Suite"]


@dataclass(frozen=True)
class Suite:
    """One project on the package index whose source release holds its tests."""

    version: str
    tests: tuple[str, ...]
    """Paths below the unpacked release."""
    requires: tuple[str, ...] = ()
    """What the tests import in addition to pytest, as requirement specifiers."""
    extras: tuple[str, ...] = ()
    """The project's own extras to install with it."""
    arguments: tuple[str, ...] = ()
    """More arguments for pytest."""
    deselect: tuple[tuple[str, str], ...] = ()
    """Node id prefixes that are left out of both runs, each with its reason."""


SUITES: dict[str, Suite] = {
    "click": Suite("8.5.1", ("tests",)),
    "h11": Suite("0.16.0", ("h11/tests",)),
    "iniconfig": Suite("2.3.1", ("testing",)),
    "itsdangerous": Suite("2.2.0", ("tests",), requires=("freezegun",)),
    "jinja2": Suite("3.1.6", ("tests",), requires=("trio",)),
    "markupsafe": Suite("3.0.4", ("tests",)),
    "pluggy": Suite("1.7.0", ("testing",)),
    "pytest-rerunfailures": Suite("16.7", ("tests",)),
    "pytest-timeout": Suite("2.4.0", ("test_pytest_timeout.py",), requires=("pexpect", "pytest-cov")),
    "python-dotenv": Suite("1.2.4", ("tests",), requires=("ipython",), extras=("cli",)),
    # Without pytest-randomly, which its authors use: an outcome that depends on order cannot be compared.
    "structlog": Suite("26.1.0", ("tests",), requires=("pytest-asyncio", "simplejson", "time-machine")),
    "tenacity": Suite(
        "9.2.1",
        ("tests",),
        extras=("test",),
        deselect=(
            (
                "tests/test_asyncio.py::TestContextManager::test_sleeps",
                "allows 1.1 ms of wall clock for one attempt, in which emulation alone is slower",
            ),
        ),
    ),
}
