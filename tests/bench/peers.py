"""The same small job done by others, each in an environment of its own: a command in a new or reverted VM."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pytest_smol.guest_os.boot_files import prepare
from pytest_smol.host.cache_directory import directory
from tests.bench.environments import python_with
from tests.bench.figures import Figure
from tests.suites.run import SuiteError, cache_folder

__all__ = ["quicksand", "virtme_ng"]

_LIMIT = 600

#: What the guest of a peer says to show that it ran a command.
_WORD = "it-has-run"

_QUICKSAND = """
import asyncio, json, time
from quicksand import Sandbox

async def main():
    begin = time.perf_counter()
    async with Sandbox(image="alpine", accel=None) as sandbox:
        boot = time.perf_counter() - begin
        await sandbox.checkpoint("clean")
        taken = []
        for _ in range({count}):
            begin = time.perf_counter()
            await sandbox.revert("clean")
            result = await sandbox.execute("true")
            assert result.exit_code == 0
            taken.append((time.perf_counter() - begin) * 1000)
    print(json.dumps({{"boot": [boot], "each": taken}}))

asyncio.run(main())
"""


class PeerMissing(Exception):
    """A peer cannot run here; the message says why."""


def quicksand(count: int) -> Iterator[Figure]:
    """Revert to a checkpoint and run a command, with quick-sandbox's Alpine image and this host's QEMU.

    Raises :class:`PeerMissing`.
    """
    if shutil.which("qemu-img") is None:
        raise PeerMissing("quicksand needs qemu-img (package qemu-utils)")
    found = json.loads(_output("quicksand", ["quick-sandbox[alpine]"], _QUICKSAND.format(count=count)))
    yield Figure("quicksand: boot", "s", tuple(found["boot"]))
    yield Figure("quicksand: revert and run", "ms", tuple(found["each"]))


def _output(name: str, requirements: list[str], code: str) -> str:
    try:
        python = python_with(name, requirements)
        done = subprocess.run(
            [python, "-c", code],
            capture_output=True,
            text=True,
            timeout=_LIMIT,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (SuiteError, subprocess.SubprocessError) as error:
        raise PeerMissing(f"{name} does not run here: {error}\n{getattr(error, 'stderr', '')}") from error
    return done.stdout.splitlines()[-1]


def virtme_ng(count: int) -> Iterator[Figure]:
    """Boot, run ``echo``, power off. Needs a kernel with 9p, and depmod. Raises :class:`PeerMissing`."""
    if shutil.which("depmod") is None:
        raise PeerMissing("virtme-ng needs depmod (package kmod)")
    kernel = _kernel()
    try:
        vng = python_with("virtme-ng", ["virtme-ng"]).with_name("vng")
    except SuiteError as error:
        raise PeerMissing(f"virtme-ng cannot be installed: {error}") from error
    path = {"PATH": f"{vng.parent}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(Path.home())}
    taken = []
    for _ in range(count):
        begin = time.perf_counter()
        done = subprocess.run(
            [vng, "--disable-kvm", "--verbose", "--run", kernel, "--", "echo", _WORD],
            env=path,
            capture_output=True,
            text=True,
            timeout=_LIMIT,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        # Its exit status is the command's only where udev runs in the guest, which a small host has not.
        if _WORD not in done.stdout + done.stderr:
            raise PeerMissing(f"virtme-ng ended with {done.returncode}: {done.stderr[-500:]}")
        taken.append(time.perf_counter() - begin)
    yield Figure("virtme-ng: boot, run, power off", "s", tuple(taken))


def _kernel() -> Path:
    """The distribution's full kernel of the release of ours, unpacked with its modules, never installed."""
    release = prepare(directory(), None, print).release.replace("-cloud", "")
    tree = cache_folder() / "bench-kernel" / release
    image = tree / "lib" / "modules" / release / "vmlinuz"
    if image.exists():
        return image
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="smol-bench-") as folder:
        package = f"linux-image-{release}"
        _called(["apt-get", "-q", "download", package], folder)
        (archive,) = Path(folder).glob("*.deb")
        _called(["dpkg-deb", "-x", str(archive), str(tree)], folder)
    _called(["depmod", "-b", str(tree), release], "/")
    shutil.copy(next(tree.glob("boot/vmlinuz-*")), image)
    return image


def _called(argv: list[str], cwd: str) -> None:
    done = subprocess.run(
        argv, cwd=cwd, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise PeerMissing(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr[-500:]}")
