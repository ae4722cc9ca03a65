"""What a Linux system has set up at its start, besides the root: mounts, device nodes, kernel modules.

PID 1 does this before the base snapshot, as system calls: each command of guest/init is a process of its
own. What the kernel lacks is left out, and a test that asks for it gets the kernel's own error.
"""

from __future__ import annotations

import ctypes
import os
import stat
from contextlib import suppress
from typing import NamedTuple

# linux/mount.h
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 2, 4, 8, 32, 4096

#: guest/init opens the upper directory of the root's overlay as this descriptor. The directory above it is
#: the root of the tmpfs that takes all changes.
UPPER_FD = 9

#: Where the view has the kernel's modules and busybox: pytest_smol/guest_os/kernel_view.py.
_PLACE = "/var/lib/pytest-smol"

#: The programs of kmod, which busybox has too.
_KMOD = ("modprobe", "insmod", "rmmod", "lsmod", "modinfo", "depmod")

#: Nodes that all users may open, as udev's rules have it: the kernel asks for rights where they are used.
_FOR_ALL = ("fuse", "net/tun")

_libc = ctypes.CDLL(None, use_errno=True)


class Mount(NamedTuple):
    """A file system without a device: where, of which type, with which flags and options."""

    target: str
    kind: str
    flags: int
    options: str = ""


#: As systemd mounts them. Source: its src/shared/mount-setup.c.
MOUNTS = (
    Mount("/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, "nsdelegate,memory_recursiveprot"),
    Mount("/sys/fs/bpf", "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=700"),
    Mount("/dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC),
    # A user namespace may mount proc only where one is that nothing is mounted over, and identity.py mounts
    # another boot id over that of /proc.
    Mount("/run/pytest-smol/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC),
)

#: Directories in the tmpfs of all changes, so that one limit holds for it: mount point, permissions.
SHARED = (("/dev/shm", 0o1777), ("/run", 0o755))


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """mount(2). Raises OSError."""
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    if _libc.mount(*texts, ctypes.c_ulong(flags), os.fsencode(options) or None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def set_up() -> None:
    """Set all of this up. As root. Raises OSError where ``/run`` or ``/dev/shm`` cannot be mounted."""
    _mount_shared()
    for each in MOUNTS:
        # A kernel that does not have it answers ENODEV.
        with suppress(OSError):
            os.makedirs(each.target, exist_ok=True)
            mount(each.kind, each.target, each.kind, each.flags, each.options)
    with suppress(OSError):
        _enable_controllers("/sys/fs/cgroup")
    with suppress(OSError):
        _show_modules(os.uname().release)


def _mount_shared() -> None:
    upper = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=UPPER_FD)
    try:
        for target, permissions in SHARED:
            name = os.path.basename(target)
            os.mkdir(name, dir_fd=upper)
            os.chmod(name, permissions, dir_fd=upper)
            os.makedirs(target, exist_ok=True)
            mount(f"/proc/self/fd/{upper}/{name}", target, None, MS_BIND)
            mount("", target, None, MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV)
    finally:
        os.close(upper)


def _enable_controllers(root: str) -> None:
    """Let control groups below ``root`` have all controllers."""
    with open(f"{root}/cgroup.controllers", encoding="ascii") as file:
        names = file.read().split()
    with open(f"{root}/cgroup.subtree_control", "w", encoding="ascii") as file:
        file.write(" ".join(f"+{name}" for name in names))


def _show_modules(release: str) -> None:
    """Show the kernel's modules where modprobe looks for them, and make the nodes that load one."""
    modules = f"/lib/modules/{release}"
    if not os.path.exists(f"{modules}/modules.dep"):
        os.makedirs("/lib/modules", exist_ok=True)
        os.symlink(f"{_PLACE}/modules/{release}", modules)
    if not os.path.exists("/sbin/modprobe"):
        for name in _KMOD:
            os.symlink(f"{_PLACE}/bin/busybox", f"/sbin/{name}")
    with open(f"{modules}/modules.devname", encoding="ascii") as file:
        for line in file:
            _make_node(line)


def _make_node(line: str) -> None:
    """Make the node of a line of modules.devname: module, path below /dev, ``c`` or ``b`` MAJOR:MINOR.

    The kernel loads the module when the node is opened.
    """
    fields = line.split()
    if line.startswith("#") or len(fields) != 3:
        return
    path = f"/dev/{fields[1]}"
    major, minor = map(int, fields[2][1:].split(":"))
    kind = stat.S_IFBLK if fields[2][0] == "b" else stat.S_IFCHR
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with suppress(FileExistsError):
        os.mknod(path, kind | 0o600, os.makedev(major, minor))
    if fields[1] in _FOR_ALL:
        os.chmod(path, 0o666)
