"""What /dev/kvm of a host answers to the probe, as data: recorded there, replayed anywhere.

Run as a module it prints the transcript of the host on which it runs::

    scripts/kvm -- .venv/bin/python -m tests.kvm.transcript "what host this is"
"""

from __future__ import annotations

import errno
import fcntl
import json
import mmap
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any
from unittest import mock

from pytest_smol.engines.kvm import probe
from pytest_smol.engines.qemu import accelerator

__all__ = ["Call", "Replay", "Transcript", "record"]

#: ioctl names by number: KVM's all have the type 0xAE.
NAMES = {
    number: name
    for name, number in vars(probe).items()
    if name.startswith("KVM_") and isinstance(number, int) and number >> 8 & 0xFF == 0xAE
}

#: Calls whose result is a file descriptor, which is another number in each run.
_DESCRIPTORS = ("KVM_CREATE_VM", "KVM_CREATE_VCPU")


@dataclass
class Call:
    """An ioctl: its argument if that is a number, its result or error; of KVM_RUN time and exit reason."""

    name: str
    argument: int | None = None
    result: int = 0
    error: str = ""
    seconds: float = 0.0
    exit_reason: int | None = None


@dataclass
class Transcript:
    """A host in words, whether this was recorded there, and what it answered.

    ``open_error`` is the errno's name where /dev/kvm could not be opened, which had ``mode`` and group.
    ``nested_paging`` is the parameter of the loaded module, empty where that does not tell.
    """

    host: str
    recorded: bool = True
    open_error: str = ""
    mode: int = 0o020660
    gid: int = 0
    group: str = ""
    nested_paging: str = ""
    calls: list[Call] = field(default_factory=list)

    @classmethod
    def from_json(cls, text: str) -> Transcript:
        """The transcript in ``text``. Raises ValueError, TypeError or KeyError for anything else."""
        table = json.loads(text)
        return cls(**{**table, "calls": [Call(**row) for row in table["calls"]]})

    def to_json(self) -> str:
        """One call a line; what has its default value is left out of calls."""
        table = asdict(self)
        plain = asdict(Call(""))
        rows = [
            {name: value for name, value in row.items() if name == "name" or value != plain[name]}
            for row in table.pop("calls")
        ]
        head = json.dumps(table, indent=1)[:-2]
        lines = ",\n".join("  " + json.dumps(row) for row in rows)
        return f'{head},\n "calls": [{"" if not lines else chr(10) + lines + chr(10) + " "}]\n}}\n'


class _Recorder:
    """Makes ioctls, and keeps what they answered."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._ioctl = fcntl.ioctl

    def ioctl(self, fd: int, number: int, argument: Any = 0) -> Any:
        call = Call(NAMES[number], argument if isinstance(argument, int) else None)
        self.calls.append(call)
        begin = perf_counter()
        try:
            result = self._ioctl(fd, number, argument)
        except OSError as error:
            call.error = errno.errorcode.get(error.errno or 0, str(error.errno))
            raise
        if call.name == "KVM_RUN":
            (call.exit_reason,) = probe.EXIT_REASON.unpack(
                _mapped(fd, probe.EXIT_REASON_OFFSET, probe.EXIT_REASON.size)
            )
            call.seconds = round(
                perf_counter() - begin, 7
            )  # with what is done here: the probe times that too
        if isinstance(result, int) and call.name not in _DESCRIPTORS:
            call.result = result
        return result


def _mapped(fd: int, offset: int, size: int) -> bytes:
    """Bytes of the memory that a virtual processor shares with its owner."""
    with mmap.mmap(fd, mmap.PAGESIZE) as run:
        return run[offset : offset + size]


def record(host: str) -> Transcript:
    """What this host's /dev/kvm answers to the probe."""
    recorder = _Recorder()
    made = Transcript(host, nested_paging=probe.nested_paging())
    with mock.patch("fcntl.ioctl", recorder.ioctl):
        accelerator.probe()
    made.calls = recorder.calls
    try:
        status = os.stat("/dev/kvm")
        made.mode, made.gid = status.st_mode, status.st_gid
        os.close(os.open("/dev/kvm", os.O_RDWR))
    except OSError as error:
        made.open_error = errno.errorcode[error.errno or 0]
    return made


class Replay:
    """A /dev/kvm that answers as a transcript says, to the same calls in the same order."""

    def __init__(self, transcript: Transcript) -> None:
        self.left = list(transcript.calls)
        self.now = 0.0

    def ioctl(self, fd: int, number: int, argument: object = 0) -> int:
        """Answer the next call. Raises AssertionError for another one."""
        name = NAMES[number]
        assert self.left, f"{name} was not made there"
        call = self.left.pop(0)
        assert (name, argument if isinstance(argument, int) else None) == (call.name, call.argument)
        self.now += call.seconds
        if call.error:
            number = getattr(errno, call.error)
            raise OSError(number, os.strerror(number))
        if call.exit_reason is not None:
            os.pwrite(fd, probe.EXIT_REASON.pack(call.exit_reason), probe.EXIT_REASON_OFFSET)
        return self.descriptor() if name in _DESCRIPTORS else call.result

    def clock(self) -> float:
        """Seconds, on a clock that only recorded times advance."""
        return self.now

    @staticmethod
    def descriptor() -> int:
        """A file in the place of a KVM object, large enough for what a virtual processor shares."""
        fd = os.memfd_create("fake")
        os.ftruncate(fd, 1 << 20)
        return fd


def _opener(transcript: Transcript) -> Any:
    real = os.open

    def opened(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if path != "/dev/kvm":
            return real(path, flags, *rest, **named)
        if transcript.open_error:
            number = getattr(errno, transcript.open_error)
            raise OSError(number, os.strerror(number), path)
        return Replay.descriptor()

    return opened


@contextmanager
def replayed(transcript: Transcript) -> Iterator[Replay]:
    """Let the probe find the host of ``transcript`` in the place of this one."""
    replay = Replay(transcript)
    real_stat = os.stat
    status = os.stat_result((transcript.mode, 0, 0, 1, 0, transcript.gid, 0, 0, 0, 0))

    def stat(path: Any, *rest: Any, **named: Any) -> os.stat_result:
        return status if path == "/dev/kvm" else real_stat(path, *rest, **named)

    def group(number: int) -> Mapping[str, str]:
        if not transcript.group:
            raise KeyError(number)
        return mock.Mock(gr_name=transcript.group)

    with (
        mock.patch("fcntl.ioctl", replay.ioctl),
        mock.patch("os.open", _opener(transcript)),
        mock.patch("os.stat", stat),
        mock.patch("grp.getgrgid", group),
        mock.patch.object(probe, "perf_counter", replay.clock),
        mock.patch.object(probe, "nested_paging", return_value=transcript.nested_paging),
    ):
        yield replay


if __name__ == "__main__":
    sys.stdout.write(record(" ".join(sys.argv[1:])).to_json())
