"""How long a guest may collect: a limit for each collector, and one for all of them."""

from __future__ import annotations

import time

from pytest_smol.errors import MachineTimeout
from pytest_smol.machine.dispatcher import Deadline
from pytest_smol.machine.machine import Machine

__all__ = ["MIN_COLLECTION_TIME", "CollectionDeadline"]

#: The least time that collection may take altogether, in seconds, however short a test's own limit is.
MIN_COLLECTION_TIME = 600.0

#: The least time until the first collector begins, in seconds: that is when conftest files are loaded.
MIN_START_TIME = 60.0


class CollectionDeadline(Deadline):
    """Collecting may take ``timeout`` seconds for each collector, which a guest names when it begins it.

    All of it may take ``timeout`` seconds too, but no less than MIN_COLLECTION_TIME; what comes before
    the first collector no less than MIN_START_TIME.
    """

    def __init__(self, timeout: float) -> None:
        super().__init__(max(timeout, MIN_COLLECTION_TIME))
        self._timeout = timeout
        self._step_at = time.monotonic() + max(timeout, MIN_START_TIME)

    def progress(self) -> None:
        """The guest has begun the next collector, or sends what it found."""
        self._step_at = time.monotonic() + self._timeout

    def extend(self, seconds: float) -> None:
        """As :meth:`Deadline.extend`."""
        super().extend(seconds)
        self._step_at += seconds

    def next(self) -> float:
        """As :meth:`Deadline.next`."""
        return min(self.at, self._step_at)

    def missed(self, machine: Machine, error: MachineTimeout) -> None:
        """Abort pytest in the guest, which lets it say where it is. Raises :class:`MachineTimeout`."""
        machine.abort_test()
        raise MachineTimeout(
            f"collection was not over in time ({self._timeout:g} s for each module)",
            remedy="if it needs longer, raise --smol-timeout",
        ) from None
