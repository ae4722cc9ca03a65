"""What a child of this process would inherit, and settings of the kernel; guests take them on.

The guest's end is guest/process_state.py.
"""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path
from typing import Any

__all__ = ["SYSCTLS", "process_state", "umask"]

#: The kernel's settings that tests read or run into, below /proc/sys. Left out are those that depend on the
#: machine's memory and processors, such as kernel/threads-max.
SYSCTLS = (
    *("fs/aio-max-nr", "fs/file-max", "fs/inotify/max_queued_events", "fs/inotify/max_user_instances"),
    *("fs/inotify/max_user_watches", "fs/mqueue/msg_max", "fs/mqueue/msgsize_max", "fs/mqueue/queues_max"),
    *("fs/pipe-max-size", "fs/pipe-user-pages-soft", "fs/protected_fifos", "fs/protected_hardlinks"),
    *("fs/protected_regular", "fs/protected_symlinks", "fs/suid_dumpable"),
    *("kernel/core_pattern", "kernel/core_uses_pid", "kernel/dmesg_restrict", "kernel/kptr_restrict"),
    *("kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/perf_event_paranoid", "kernel/pid_max"),
    *("kernel/randomize_va_space", "kernel/sem", "kernel/shmall", "kernel/shmmax", "kernel/shmmni"),
    *("kernel/unprivileged_userns_clone", "kernel/yama/ptrace_scope"),
    *("net/core/somaxconn", "net/ipv4/ip_local_port_range", "net/ipv4/ip_unprivileged_port_start"),
    *("net/ipv4/ping_group_range", "net/ipv6/bindv6only", "net/unix/max_dgram_qlen"),
    *("vm/max_map_count", "vm/mmap_min_addr", "vm/overcommit_ratio", "vm/swappiness"),
)

#: RLIM_NLIMITS of asm-generic/resource.h.
_LIMITS = 16

#: A core dump that goes to a program of the host: a guest without it would write a file instead.
_TO_PROGRAM = "|"


def process_state(root: Path = Path("/proc")) -> dict[str, Any]:
    """What describes this process, JSON-ready.

    ``limits`` are the soft and hard resource limits by number, ``nice`` is the nice value,
    ``ignored`` and ``blocked`` are numbers of signals, and ``sysctls`` are settings of the kernel as
    their files below ``root`` have them. Limits, settings and signals that cannot be read are left out.
    """
    return {
        "limits": [list(resource.getrlimit(number)) for number in range(_LIMITS)],
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "ignored": sorted(_ignored()),
        "blocked": sorted(int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "sysctls": _sysctls(root / "sys"),
    }


def umask(root: Path = Path("/proc")) -> int:
    """This process's umask, from proc_pid_status(5): umask(2) would change it for all threads to read it.

    Raises OSError or LookupError where /proc does not tell, as before Linux 4.7.
    """
    lines = (root / "self/status").read_text("ascii", "replace").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["Umask"], 8)


def _ignored() -> list[int]:
    return [int(number) for number in signal.valid_signals() if signal.getsignal(number) == signal.SIG_IGN]


def _sysctls(directory: Path) -> dict[str, str]:
    found = {}
    for name in SYSCTLS:
        try:
            found[name] = (directory / name).read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
    if found.get("kernel/core_pattern", "").startswith(_TO_PROGRAM):
        found["kernel/core_pattern"] = ""
        found["kernel/core_uses_pid"] = "0"
    return found
