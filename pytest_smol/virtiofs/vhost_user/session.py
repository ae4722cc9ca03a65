"""The back end's side of the vhost-user protocol, without any I/O.

Source: QEMU's "Vhost-user Protocol" specification (docs/interop/vhost-user.rst).
The front end is in the engine's process. :class:`Backend` holds the state of the
connection; for each message it returns an event for the server and, where the
protocol requires one, a reply.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from pytest_smol.errors import ProtocolError
from pytest_smol.virtiofs.backend import QUEUES
from pytest_smol.virtiofs.vhost_user.messages import (
    LOG,
    MAX_REGIONS,
    MEMORY_HEAD,
    MEMORY_REGION,
    NEED_REPLY,
    STATE_FD,
    U64,
    VRING_ADDR,
    VRING_IDX_MASK,
    VRING_NOFD_MASK,
    VRING_STATE,
    Message,
    MessageType,
    encode,
)
from pytest_smol.virtiofs.virtio.memory import Region
from pytest_smol.virtiofs.virtio.vring import Addresses

__all__ = [
    "FEATURES",
    "PROTOCOL_FEATURES",
    "QUEUES",
    "STATE",
    "Backend",
    "CheckState",
    "Event",
    "LoadState",
    "MemoryTable",
    "RingCall",
    "RingEnabled",
    "RingKick",
    "RingStopped",
    "SaveState",
]

STATE = b"pytest-smol virtiofs 1\n"
"""Our part of the engine's device state: a mark only, as the node table is in the snapshot's tree.json."""

VHOST_F_LOG_ALL = 1 << 26  # without it a front end saves no state; as RAM is in a file, nothing is logged
VHOST_USER_F_PROTOCOL_FEATURES = 1 << 30
VIRTIO_F_VERSION_1 = 1 << 32
FEATURES = VHOST_F_LOG_ALL | VHOST_USER_F_PROTOCOL_FEATURES | VIRTIO_F_VERSION_1

VHOST_USER_PROTOCOL_F_MQ = 1 << 0
VHOST_USER_PROTOCOL_F_LOG_SHMFD = 1 << 1
VHOST_USER_PROTOCOL_F_REPLY_ACK = 1 << 3
VHOST_USER_PROTOCOL_F_DEVICE_STATE = 1 << 19
PROTOCOL_FEATURES = (
    VHOST_USER_PROTOCOL_F_MQ
    | VHOST_USER_PROTOCOL_F_LOG_SHMFD
    | VHOST_USER_PROTOCOL_F_REPLY_ACK
    | VHOST_USER_PROTOCOL_F_DEVICE_STATE
)

NO_ADDRESSES = Addresses(0, 0, 0)


@dataclass
class Ring:
    """What the front end has told of one ring, without its eventfds.

    A ring is started from SET_VRING_KICK to GET_VRING_BASE: its size, addresses and base do not change then.
    """

    num: int = 0
    base: int = 0
    addresses: Addresses = NO_ADDRESSES
    enabled: bool = False
    started: bool = False


class MemoryTable(NamedTuple):
    """The new memory table."""

    regions: tuple[Region, ...]


class RingKick(NamedTuple):
    """The guest announces requests on the eventfd ``fd``; the ring runs from now on, if it is enabled."""

    ring: int
    fd: int


class RingCall(NamedTuple):
    """The guest is told of answers on the eventfd ``fd``, or not at all."""

    ring: int
    fd: int | None


class RingEnabled(NamedTuple):
    """The ring may run from now on, or may not."""

    ring: int
    enabled: bool


class RingStopped(NamedTuple):
    """The ring stops, and its kick is dropped; the front end waits for :meth:`Backend.vring_base`."""

    ring: int


class SaveState(NamedTuple):
    """Write :data:`STATE` to ``fd`` and close it."""

    fd: int


class LoadState(NamedTuple):
    """Read the state from ``fd`` until its end, after the reply was sent."""

    fd: int


class CheckState(NamedTuple):
    """The front end waits for :meth:`Backend.state_checked`."""


Event = MemoryTable | RingKick | RingCall | RingEnabled | RingStopped | SaveState | LoadState | CheckState


@dataclass
class Backend:
    """The state of one connection.

    :meth:`receive` takes one message after another. The server owns a file descriptor
    that an event names, and closes the other ones of the message.
    """

    features: int = 0
    protocol_features: int = 0
    rings: list[Ring] = field(default_factory=lambda: [Ring() for _ in range(QUEUES)])

    def receive(self, message: Message) -> tuple[Event | None, bytes]:
        """What the server must do, and the reply that it must send then. Raises ProtocolError."""
        event, reply = _HANDLERS[message.type](self, message)
        if not reply and message.flags & NEED_REPLY and not isinstance(event, (RingStopped, CheckState)):
            reply = encode(message.type, U64.pack(0))
        return event, reply

    @property
    def log_shmfd(self) -> bool:
        """Whether a dirty log comes as a file descriptor, and SET_LOG_BASE is answered."""
        return bool(self.protocol_features & VHOST_USER_PROTOCOL_F_LOG_SHMFD)

    def vring_base(self, index: int) -> bytes:
        """The answer to GET_VRING_BASE: the next available entry, which the server put into ``base``."""
        return encode(MessageType.GET_VRING_BASE, VRING_STATE.pack(index, self.rings[index].base))

    def state_checked(self, good: bool) -> bytes:
        """The answer to CHECK_DEVICE_STATE."""
        return encode(MessageType.CHECK_DEVICE_STATE, U64.pack(0 if good else 1))

    def ring(self, index: int) -> Ring:
        """The ring of that number. Raises ProtocolError when there is none."""
        if index >= len(self.rings):
            raise ProtocolError(f"the virtual machine named ring {index} of {len(self.rings)}")
        return self.rings[index]


Outcome = tuple[Event | None, bytes]


def _unpack(codec: struct.Struct, message: Message) -> tuple[int, ...]:
    if len(message.payload) != codec.size:
        raise ProtocolError(f"{message.type.name} has {len(message.payload)} bytes, not {codec.size}")
    return codec.unpack(message.payload)


def _accept(backend: Backend, message: Message) -> Outcome:
    """A message that changes nothing here."""
    return None, b""


def _get_features(backend: Backend, message: Message) -> Outcome:
    return None, encode(message.type, U64.pack(FEATURES))


def _set_features(backend: Backend, message: Message) -> Outcome:
    (backend.features,) = _unpack(U64, message)
    if backend.features & ~FEATURES:
        raise ProtocolError(
            f"the virtual machine chose features that were not offered: {backend.features:#x}"
        )
    if not backend.features & VHOST_USER_F_PROTOCOL_FEATURES:
        # By the specification rings start enabled then.
        for ring in backend.rings:
            ring.enabled = True
    return None, b""


def _get_protocol_features(backend: Backend, message: Message) -> Outcome:
    return None, encode(message.type, U64.pack(PROTOCOL_FEATURES))


def _set_protocol_features(backend: Backend, message: Message) -> Outcome:
    (backend.protocol_features,) = _unpack(U64, message)
    if backend.protocol_features & ~PROTOCOL_FEATURES:
        raise ProtocolError(
            f"the virtual machine chose features that were not offered: {backend.protocol_features:#x}"
        )
    return None, b""


def _get_queue_num(backend: Backend, message: Message) -> Outcome:
    return None, encode(message.type, U64.pack(len(backend.rings)))


def _set_mem_table(backend: Backend, message: Message) -> Outcome:
    head, rows = message.payload[: MEMORY_HEAD.size], message.payload[MEMORY_HEAD.size :]
    count = MEMORY_HEAD.unpack(head)[0] if len(head) == MEMORY_HEAD.size else -1
    if not 0 <= count <= MAX_REGIONS or len(rows) != count * MEMORY_REGION.size:
        raise ProtocolError(f"SET_MEM_TABLE announces {count} regions in {len(message.payload)} bytes")
    regions = tuple(Region(*row[:3]) for row in MEMORY_REGION.iter_unpack(rows))
    return MemoryTable(regions), b""


def _set_log_base(backend: Backend, message: Message) -> Outcome:
    _unpack(LOG, message)
    return None, encode(message.type, U64.pack(0)) if backend.log_shmfd else b""


def _set_up(backend: Backend, message: Message, index: int, name: str, value: int | Addresses) -> Outcome:
    """Set the attribute ``name`` of a ring. Raises ProtocolError where that would change a started ring."""
    ring = backend.ring(index)
    if ring.started and getattr(ring, name) != value:
        raise ProtocolError(f"the virtual machine sent {message.type.name} for a ring that is started")
    setattr(ring, name, value)
    return None, b""


def _set_vring_num(backend: Backend, message: Message) -> Outcome:
    index, num = _unpack(VRING_STATE, message)
    return _set_up(backend, message, index, "num", num)


def _set_vring_addr(backend: Backend, message: Message) -> Outcome:
    index, _, desc, used, avail, _ = _unpack(VRING_ADDR, message)
    return _set_up(backend, message, index, "addresses", Addresses(desc, used, avail))


def _set_vring_base(backend: Backend, message: Message) -> Outcome:
    index, base = _unpack(VRING_STATE, message)
    return _set_up(backend, message, index, "base", base)


def _get_vring_base(backend: Backend, message: Message) -> Outcome:
    index, _ = _unpack(VRING_STATE, message)
    backend.ring(index).started = False
    return RingStopped(index), b""


def _eventfd(message: Message) -> tuple[int, int | None]:
    """The ring's index and the file descriptor that came with the message, None for none."""
    (value,) = _unpack(U64, message)
    wanted = 0 if value & VRING_NOFD_MASK else 1
    if len(message.fds) != wanted:
        raise ProtocolError(f"{message.type.name} brought {len(message.fds)} file descriptors, not {wanted}")
    return value & VRING_IDX_MASK, message.fds[0] if wanted else None


def _set_vring_kick(backend: Backend, message: Message) -> Outcome:
    index, kick = _eventfd(message)
    if kick is None:
        raise ProtocolError("the virtual machine wants a ring to be polled, which is not supported")
    backend.ring(index).started = True
    return RingKick(index, kick), b""


def _set_vring_call(backend: Backend, message: Message) -> Outcome:
    index, call = _eventfd(message)
    backend.ring(index)
    return RingCall(index, call), b""


def _set_vring_enable(backend: Backend, message: Message) -> Outcome:
    index, enabled = _unpack(VRING_STATE, message)
    backend.ring(index).enabled = bool(enabled)
    return RingEnabled(index, bool(enabled)), b""


def _set_device_state_fd(backend: Backend, message: Message) -> Outcome:
    direction, phase = _unpack(STATE_FD, message)
    if len(message.fds) != 1 or direction not in (0, 1) or phase != 0:
        raise ProtocolError(
            f"the virtual machine wants a transfer of state that is not supported: {direction}, {phase}"
        )
    make: Callable[[int], Event] = LoadState if direction else SaveState
    return make(message.fds[0]), encode(message.type, U64.pack(VRING_NOFD_MASK))


def _check_device_state(backend: Backend, message: Message) -> Outcome:
    return CheckState(), b""


_HANDLERS: dict[MessageType, Callable[[Backend, Message], Outcome]] = {
    MessageType.GET_FEATURES: _get_features,
    MessageType.SET_FEATURES: _set_features,
    MessageType.SET_OWNER: _accept,
    MessageType.RESET_OWNER: _accept,
    MessageType.SET_MEM_TABLE: _set_mem_table,
    MessageType.SET_LOG_BASE: _set_log_base,
    MessageType.SET_LOG_FD: _accept,
    MessageType.SET_VRING_NUM: _set_vring_num,
    MessageType.SET_VRING_ADDR: _set_vring_addr,
    MessageType.SET_VRING_BASE: _set_vring_base,
    MessageType.GET_VRING_BASE: _get_vring_base,
    MessageType.SET_VRING_KICK: _set_vring_kick,
    MessageType.SET_VRING_CALL: _set_vring_call,
    MessageType.SET_VRING_ERR: _accept,
    MessageType.GET_PROTOCOL_FEATURES: _get_protocol_features,
    MessageType.SET_PROTOCOL_FEATURES: _set_protocol_features,
    MessageType.GET_QUEUE_NUM: _get_queue_num,
    MessageType.SET_VRING_ENABLE: _set_vring_enable,
    MessageType.SET_DEVICE_STATE_FD: _set_device_state_fd,
    MessageType.CHECK_DEVICE_STATE: _check_device_state,
}
