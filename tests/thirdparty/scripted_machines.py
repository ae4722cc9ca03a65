"""A plugin of pytest: machines that say what the files of a directory hold, for runs with real plugins.

``SMOL_SCRIPTS`` names the directory. ``session`` holds what the guest says that collects, ``N`` what a fork
says that is told to run the test of that number. Each file holds frames, deflated. Processes of
pytest-xdist, which all load this, share the session's snapshot as they do with real machines.
"""

from __future__ import annotations

import os
import socket
import threading
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import pytest_smol.session.run as smol_session
from pytest_smol.engines.protocol import Hardware
from pytest_smol.protocol.wire import TO_GUEST, Decoder, Message, encode
from pytest_smol.settings import Settings
from tests.plugin.fakes import Ends, FakeEngine, FakeFactory, GuestVm, Record

__all__ = ["SCRIPTS", "write_script"]

#: The variable that names the directory.
SCRIPTS = "SMOL_SCRIPTS"


def write_script(directory: Path, name: str, says: Sequence[Message | bytes]) -> None:
    """Let ``name`` say messages, and bytes as they are."""
    frames = b"".join(each if isinstance(each, bytes) else encode(each) for each in says)
    (directory / name).write_bytes(zlib.compress(frames, 1))


class _Scripted:
    """A guest that answers what it is told, as far as the scripts of ``directory`` know an answer."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def start(self, ends: Ends) -> Callable[[], None]:
        """As :class:`tests.plugin.fakes.Guest` has it."""
        kept = {name: end.dup() for name, end in ends.items()}
        thread = threading.Thread(target=self._talk, args=(kept["control"],), daemon=True)
        thread.start()

        def close() -> None:
            for end in kept.values():
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            thread.join()
            for end in kept.values():
                end.close()

        return close

    def _talk(self, control: socket.socket) -> None:
        decoder = Decoder(TO_GUEST)
        with suppress(OSError):  # the host has closed its end
            while data := control.recv(1 << 16):
                for message in decoder.feed(data):
                    self._answer(control, message)

    def _answer(self, control: socket.socket, message: Message) -> None:
        if message["type"] == "session":
            self._say(control, "session")
        elif message["type"] == "identity":
            control.sendall(encode({"type": "fresh"}))
        elif message["type"] in ("run", "more"):
            for number, following in message["steps"]:
                self._say(control, str(number))
                if following is None:
                    control.sendall(encode({"type": "done"}))
                    control.shutdown(socket.SHUT_WR)

    def _say(self, control: socket.socket, name: str) -> None:
        control.sendall(zlib.decompress((self._directory / name).read_bytes()))


class _Engine(FakeEngine):
    def __init__(self, directory: Path) -> None:
        super().__init__(_Scripted(directory), ())

    def fork(self, hardware: Hardware, ram: Path, state: Path, disks: Sequence[Path | None] = ()) -> GuestVm:
        return GuestVm(self._session_guest, self._frozen)


class _Factory(FakeFactory):
    def base_key_fields(self, hardware: Hardware) -> dict[str, Any]:
        return self.engine.identity(hardware)


def _factory(
    settings: Settings,
    progress: Callable[[str], None],
    parent: Path | None = None,
    hidden: set[str] | None = None,
) -> _Factory:
    return _Factory(_Engine(Path(os.environ[SCRIPTS])), Record(), hidden)


def pytest_configure(config: pytest.Config) -> None:
    """Have machines of this run be scripted."""
    vars(smol_session)["MachineFactory"] = _factory
