"""``pytest-smol``: checks what runs of pytest need, and removes what they leave in the cache."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from pytest_smol.doctor import Finding, examine
from pytest_smol.errors import SmolError
from pytest_smol.host import cache_directory
from pytest_smol.host.run_directory import sweep
from pytest_smol.settings import Settings, add_arguments
from pytest_smol.snapshots.base_cache import BaseCache

__all__ = ["main"]

#: The settings that the checks of ``doctor`` depend on.
_DOCTORS_SETTINGS = ("accel", "memory", "snapshot_dir", "kernel", "qemu")


def _doctor(arguments: argparse.Namespace) -> int:
    """Say what this host has and lacks for runs of pytest in this directory, whose ini file is read."""
    return report(examine(_settings(arguments)))


def _settings(arguments: argparse.Namespace) -> Settings:
    return Settings.from_arguments(vars(arguments), directory=Path.cwd())


def report(findings: Iterable[Finding]) -> int:
    """Print each finding as it comes; the exit status is 1 where one is not good, else 0."""
    status = 0
    for finding in findings:
        print(f"{'ok  ' if finding.good else 'FAIL'} {finding.subject:12} {finding.text}")
        if finding.remedy:
            print(f"     {'':12} hint: {finding.remedy}")
        status = status if finding.good else 1
    return status


def _gc(arguments: argparse.Namespace) -> int:
    """Remove base snapshots that are stale or unused, and what runs that were killed have left.

    The ini file of pytest in this directory may say where runs keep their files.
    """
    snapshots = _settings(arguments).snapshot_dir
    removed = [path for place in {None, snapshots} for path in sweep(place)]
    removed += BaseCache(cache_directory.directory()).collect(
        0 if arguments.all else arguments.days * 86400.0
    )
    for path in removed:
        print(f"removed {path}")
    print(f"{len(removed)} removed")
    return 0


def _argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pytest-smol", description=__doc__)
    parser.add_argument("--version", action="version", version=f"pytest-smol {version('pytest-smol')}")
    commands = parser.add_subparsers(title="commands", required=True)
    doctor = commands.add_parser("doctor", help=_doctor.__doc__)
    add_arguments(doctor, _DOCTORS_SETTINGS)
    doctor.set_defaults(run=_doctor)
    gc = commands.add_parser("gc", help=_gc.__doc__)
    gc.add_argument(
        "--days", type=float, default=14.0, help="how long a snapshot may lie unused (default: 14)"
    )
    add_arguments(gc, ("snapshot_dir",))
    gc.add_argument("--all", action="store_true", help="remove every base snapshot")
    gc.set_defaults(run=_gc)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The console script; gives the exit status."""
    arguments = _argument_parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
    except SmolError as error:
        print(f"pytest-smol: {error}", file=sys.stderr)
        return 1
    return status
