"""What the bridges to plugins have in common."""

from __future__ import annotations

from typing import Any, Protocol

import pytest

from pytest_smol.artifacts.visible import VisibleFiles

__all__ = ["BasicBridge", "PluginBridge", "RunLimit"]


class PluginBridge(Protocol):
    """One plugin of the host's.

    ``lost``, ``finish`` and ``closing`` may raise whatever the plugin raises; the caller guards them.
    """

    @property
    def patterns(self) -> tuple[str, ...]:
        """Regular expressions of the files below the root that the plugin writes in a guest."""

    @property
    def tells(self) -> bool:
        """Whether the plugin in a guest has data to send when its machine ends."""

    @property
    def boundary(self) -> str | None:
        """The least scope that may share a machine, where it matters."""

    def refusal(self, name: str, data: bytes) -> str:
        """Why a file that only ``patterns`` ask for is not written, or nothing."""

    def take(self, data: dict[str, Any]) -> list[str]:
        """Take what a guest's plugin gathered; gives what was left out and why.

        Raises ValueError for what it cannot be, or whatever the plugin raises.
        """

    def lost(self) -> str:
        """A machine is gone before it sent all; what the user should know of that, or nothing."""

    def finish(self) -> None:
        """Give the plugin all that was taken, before its own end of the run."""

    def closing(self) -> None:
        """The plugin's own end of the run is over."""


class BasicBridge:
    """A bridge that only names files."""

    patterns: tuple[str, ...] = ()
    tells = True
    boundary: str | None = None

    def __init__(self, config: pytest.Config, visible: VisibleFiles) -> None:
        self._config: Any = config
        self._visible = visible

    def refusal(self, name: str, data: bytes) -> str:
        """As :meth:`PluginBridge.refusal`: nothing is refused."""
        return ""

    def take(self, data: dict[str, Any]) -> list[str]:
        """As :meth:`PluginBridge.take`: there is nothing to take."""
        raise ValueError("nothing is expected")

    def lost(self) -> str:
        """As :meth:`PluginBridge.lost`: nothing is lost with a machine."""
        return ""

    def finish(self) -> None:
        """As :meth:`PluginBridge.finish`: there is nothing to do."""
        return

    def closing(self) -> None:
        """As :meth:`PluginBridge.closing`: there is nothing to do."""
        return


class RunLimit:
    """The most of something that a run takes, in units of the caller's."""

    def __init__(self, most: int, what: str) -> None:
        self._left = most
        self._text = f"a run takes at most {what}"

    def take(self, count: int) -> None:
        """Raises ValueError, and takes nothing, where that is too much."""
        if count > self._left:
            raise ValueError(self._text)
        self._left -= count
