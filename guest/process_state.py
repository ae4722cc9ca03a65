"""Takes on what the host's pytest process has: limits, nice value, signals, settings of the kernel.

The host's end is pytest_smol/host/process_state.py.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

#: No limit on open files may be larger than this setting.
_MOST_FILES = "/proc/sys/fs/nr_open"


def take_on(state: Mapping[str, Any]) -> None:
    """Take on ``state``, which pytest_smol/host/process_state.py describes. As root.

    A setting that this kernel does not have, or whose value it refuses, stays as it is.
    """
    for name, value in state["sysctls"].items():
        with suppress(OSError):
            _write(f"/proc/sys/{name}", value)
    _set_limits(state["limits"])
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, state["nice"])
    _set_signals(state["ignored"], state["blocked"])


def _write(path: str, text: str) -> None:
    with open(path, "r+", encoding="ascii") as file:
        if " ".join(file.read().split()) != " ".join(text.split()):
            file.seek(0)
            file.write(f"{text}\n")


def _set_limits(limits: Sequence[Sequence[int]]) -> None:
    files = max(limits[resource.RLIMIT_NOFILE])
    with suppress(OSError), open(_MOST_FILES, "r+", encoding="ascii") as file:
        if files > int(file.read()):
            file.seek(0)
            file.write(f"{files}\n")
    for number, (soft, hard) in enumerate(limits):
        with suppress(OSError, ValueError):
            resource.setrlimit(number, (soft, hard))


def _set_signals(ignored: Sequence[int], blocked: Sequence[int]) -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        now = signal.getsignal(number)
        if number in ignored and now != signal.SIG_IGN:
            signal.signal(number, signal.SIG_IGN)
        elif number not in ignored and now == signal.SIG_IGN:
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
