"""What a process may find out about itself and its system, to be compared with a run on the host."""

import json
import locale
import os
import resource
import signal
import socket
import struct
import sys
import time
from pathlib import Path

SYSCTLS = [
    "fs/inotify/max_user_watches",
    "fs/inotify/max_user_instances",
    "fs/file-max",
    "fs/nr_open",
    "fs/pipe-max-size",
    "fs/aio-max-nr",
    "fs/suid_dumpable",
    "kernel/core_pattern",
    "kernel/pid_max",
    "kernel/randomize_va_space",
    "kernel/shmmax",
    "kernel/shmall",
    "kernel/shmmni",
    "kernel/sem",
    "kernel/msgmax",
    "kernel/threads-max",
    "kernel/unprivileged_userns_clone",
    "kernel/yama/ptrace_scope",
    "net/core/somaxconn",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/ip_unprivileged_port_start",
    "net/ipv6/conf/all/disable_ipv6",
    "net/ipv6/bindv6only",
    "vm/max_map_count",
    "vm/overcommit_memory",
    "vm/swappiness",
    "kernel/ostype",
    "kernel/osrelease",
]
LIMITS = sorted(name for name in dir(resource) if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE")
SYSCONF = ["SC_CLK_TCK", "SC_PAGE_SIZE", "SC_OPEN_MAX", "SC_CHILD_MAX", "SC_ARG_MAX", "SC_NGROUPS_MAX"]


def read(path):
    try:
        return " ".join(Path(path).read_text().split())
    except OSError as error:
        return type(error).__name__


def status_of_terminal():
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError:
        return False
    return True


def address(name, family):
    try:
        return sorted({found[4][0] for found in socket.getaddrinfo(name, 1, family)})
    except OSError as error:
        return type(error).__name__


def xattr(directory, name, value):
    path = Path(directory, f"xattr-{os.getpid()}")
    path.write_text("")
    try:
        os.setxattr(path, name, value)
        return True
    except OSError as error:
        return type(error).__name__
    finally:
        path.unlink()


#: A POSIX ACL that gives user 1 the right to read: linux/posix_acl_xattr.h.
NOBODY = 0xFFFFFFFF
ROWS = ((1, 6, NOBODY), (2, 4, 1), (4, 4, NOBODY), (16, 4, NOBODY), (32, 4, NOBODY))
ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *row) for row in ROWS)


def facts(tmp_path):
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    mask = os.umask(0)
    os.umask(mask)
    return {
        **{name: list(resource.getrlimit(getattr(resource, name))) for name in LIMITS},
        **{name: read(f"/proc/sys/{name}") for name in SYSCTLS},
        **{name: os.sysconf(name) for name in SYSCONF},
        **{f"sys.flags.{name}": getattr(sys.flags, name) for name in ("optimize", "utf8_mode", "dev_mode")},
        "uid": os.getresuid()[:2],
        "gid": os.getresgid()[:2],
        "groups": sorted(os.getgroups()),
        "umask": mask,
        "nice": os.nice(0),
        "scheduler": os.sched_getscheduler(0),
        "ignored signals": status["SigIgn"].strip(),
        "blocked signals": status["SigBlk"].strip(),
        "SIGINT": str(signal.getsignal(signal.SIGINT)),
        "SIGTERM": str(signal.getsignal(signal.SIGTERM)),
        "no new privileges": status["NoNewPrivs"].strip(),
        "leads its session": os.getsid(0) == os.getpid(),
        "leads its group": os.getpgid(0) == os.getpid(),
        "has a controlling terminal": status_of_terminal(),
        "time zone": [time.tzname, time.timezone, time.localtime(1e9).tm_hour],
        "locale": [locale.setlocale(locale.LC_CTYPE), locale.getpreferredencoding(False)],
        "encodings": [sys.getfilesystemencoding(), sys.getdefaultencoding(), sys.stdout.encoding],
        "python": [sys.executable, sys.version, sys.prefix],
        "hash of a number": hash(2**61),
        "cwd is rootdir": os.getcwd() == str(Path(__file__).parent),
        "PATH": os.environ.get("PATH"),
        "HOME": os.environ.get("HOME"),
        "localhost": address("localhost", socket.AF_INET),
        "localhost IPv6": address("localhost", socket.AF_INET6),
        "host name resolves": address(socket.gethostname(), socket.AF_INET) != "gaierror",
        "mode of /tmp": oct(os.stat("/tmp").st_mode),
        "mode of /dev/shm": oct(os.stat("/dev/shm").st_mode),
        "user xattr on /tmp": xattr(tmp_path, "user.x", b"1"),
        "user xattr on /dev/shm": xattr("/dev/shm", "user.x", b"1"),
        "ACL on /tmp": xattr(tmp_path, "system.posix_acl_access", ACL),
        "ACL on /dev/shm": xattr("/dev/shm", "system.posix_acl_access", ACL),
        "devices": [
            os.path.exists(f"/dev/{name}") for name in ("null", "zero", "full", "random", "tty", "ptmx")
        ],
        "/dev/stdin": os.path.lexists("/dev/stdin"),
        "longest name": os.pathconf(tmp_path, "PC_NAME_MAX"),
        "machine": os.uname().machine,
        "system": os.uname().sysname,
        "kernel": os.uname().release,
        "host name": socket.gethostname(),
        "machine-id": read("/etc/machine-id"),
        "network cards": sorted(os.listdir("/sys/class/net")),
        "capabilities": status["CapEff"].strip(),
    }


def test_facts(tmp_path, record_property):
    record_property("facts", json.dumps(facts(tmp_path)))
