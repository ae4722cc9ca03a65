"""How many virtual machines a kernel has made: KVM tells it in the uevents of /dev/kvm.

Source: ``kvm_uevent_notify_change`` in virt/kvm/kvm_main.c. It imports the standard library only, as it runs
in L1's agent as well.
"""

from __future__ import annotations

import errno
import re
import socket

__all__ = ["VmCounter", "created"]

#: netlink(7): the protocol of the kernel's object events, and the multicast group that the kernel sends to.
NETLINK_KOBJECT_UEVENT = 15
KERNEL_GROUP = 1

#: Room for the events of some thousand machines, in bytes.
ROOM = 8 << 20


def created(event: bytes) -> int | None:
    """The number of machines made since the boot, if ``event`` is that of a machine that KVM has made."""
    if b"\0EVENT=create\0" not in event + b"\0":
        return None
    found = re.search(rb"\0CREATED=(\d+)\0", event + b"\0")
    return int(found.group(1)) if found else None


class VmCounter:
    """Counts the machines that are made while it exists; :meth:`count` is 0 where events cannot be had."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_KOBJECT_UEVENT)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
        self._socket.bind((0, KERNEL_GROUP))
        self._socket.setblocking(False)

    def count(self) -> int:
        """How many machines were made. The kernel's number is its total, so lost events do no harm."""
        numbers: list[int] = []
        while True:
            try:
                number = created(self._socket.recv(8192))
            except BlockingIOError:
                return numbers[-1] - numbers[0] + 1 if numbers else 0
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                continue  # events were lost; there may be later ones
            if number is not None:
                numbers.append(number)

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
