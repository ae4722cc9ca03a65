"""The user who runs the tests, and a guest's ``/etc/passwd`` and ``/etc/group`` with that user."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass

__all__ = ["User", "group_file", "passwd_file"]

NOBODY = 65534

#: Groups of every guest. The terminals of guest/init's devpts belong to ``tty``.
GROUPS = (("root", 0), ("tty", 5), ("nogroup", NOBODY))


@dataclass(frozen=True)
class User:
    """A user of the host, who has the same name, uid and gids in the guest.

    ``name`` and ``home`` (the account's home directory) are empty for a user
    without an account. ``environment_home`` is ``$HOME``, empty where it is
    unset or relative. ``groups`` are (name, gid) pairs, the primary group first.
    """

    name: str
    uid: int
    gid: int
    home: str
    environment_home: str = ""
    shell: str = "/bin/sh"
    groups: tuple[tuple[str, int], ...] = ()

    @classmethod
    def current(cls) -> User:
        """The effective user of this process."""
        uid, gid = os.geteuid(), os.getegid()
        groups = tuple((_group_name(number), number) for number in dict.fromkeys([gid, *os.getgroups()]))
        environment = os.environ.get("HOME", "")
        environment_home = os.path.normpath(environment) if os.path.isabs(environment) else ""
        try:
            account = pwd.getpwuid(uid)
        except KeyError:
            return cls("", uid, gid, "", environment_home, groups=groups)
        home = os.path.normpath(account.pw_dir)
        return cls(account.pw_name, uid, gid, home, environment_home, account.pw_shell, groups)


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""


def passwd_file(user: User) -> str:
    """The text of the guest's ``/etc/passwd``, with root, nobody and ``user``; format: passwd(5)."""
    rows: dict[int, str] = {
        0: "root:x:0:0:root:/root:/bin/sh",
        NOBODY: f"nobody:x:{NOBODY}:{NOBODY}:nobody:/nonexistent:/usr/sbin/nologin",
    }
    if user.name:
        rows[user.uid] = f"{user.name}:x:{user.uid}:{user.gid}::{user.home}:{user.shell}"
    return "".join(f"{row}\n" for row in rows.values())


def group_file(user: User) -> str:
    """The text of the guest's ``/etc/group``, with :data:`GROUPS` and those of ``user``; format: group(5)."""
    names = {gid: name for name, gid in GROUPS}
    names.update({gid: name for name, gid in user.groups if name})
    primary = {0, NOBODY, user.gid}

    def members(gid: int) -> str:
        belongs = gid not in primary and any(gid == number for _, number in user.groups)
        return user.name if belongs else ""

    return "".join(f"{name}:x:{gid}:{members(gid)}\n" for gid, name in names.items())
