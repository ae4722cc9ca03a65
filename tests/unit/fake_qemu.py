"""A QEMU without a machine: it takes the inherited sockets and does what a test's script says.

The scripts see ``qemu``, a :class:`FakeQemu`, and run in a process of their
own, started as QEMU would be.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
import textwrap
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from pytest_smol.engines.qemu.program import Emulator

_PROGRAM = """#!{python}
import json, os, select, signal, struct, sys, time
sys.path.insert(0, {root!r})
from tests.unit.fake_qemu import FakeQemu
qemu = FakeQemu(sys.argv, {log!r})
{script}
"""


def make_emulator(directory: Path, script: str) -> Emulator:
    """An emulator that runs ``script``; what it is asked by QMP is written to ``directory/log``."""
    path = directory / "qemu"
    root = str(Path(__file__).parents[2])
    text = _PROGRAM.format(
        python=sys.executable, root=root, log=str(directory / "log"), script=textwrap.dedent(script)
    )
    path.write_text(text)
    path.chmod(0o755)
    return Emulator(str(path), (10, 0, 0), "fake")


def asked(directory: Path) -> list[dict[str, Any]]:
    """The QMP commands that the emulator of ``directory`` was given."""
    return [json.loads(line) for line in (directory / "log").read_text().splitlines()]


class FakeQemu:
    """The emulator's side of all connections."""

    def __init__(self, argv: list[str], log: str) -> None:
        self.argv = argv
        self._log = log
        chardevs = [value for option, value in pairwise(argv) if option == "-chardev"]
        fields = [dict(part.split("=") for part in value.split(",")[1:]) for value in chardevs]
        self.sockets = {each["id"]: socket.socket(fileno=int(each["fd"])) for each in fields}
        self._requests = self.sockets["qmp"].makefile("rb")
        #: What commands return, by name; an empty object for any other.
        self.answers: dict[str, Any] = {}
        self.commands: dict[str, Callable[[dict[str, Any]], None]] = {
            "migrate-incoming": self._load,
            "migrate": self._save,
        }

    # --- QMP

    def qmp(self, message: dict[str, Any]) -> None:
        self.sockets["qmp"].sendall(json.dumps(message).encode() + b"\r\n")

    def event(self, name: str, **data: Any) -> None:
        self.qmp({"event": name, "data": data})

    def request(self) -> dict[str, Any]:
        """The next command."""
        request: dict[str, Any] = json.loads(self._requests.readline())
        return request

    def serve(self, until: str) -> None:
        """Answer QMP commands up to and with ``until``."""
        if not os.path.exists(self._log):
            self.qmp({"QMP": {}})
        while True:
            request = self.request()
            with open(self._log, "a", encoding="utf-8") as log:
                log.write(json.dumps(request) + "\n")
            self.qmp({"return": self.answers.get(request["execute"], {})})
            if command := self.commands.get(request["execute"]):
                command(request["arguments"])
            if request["execute"] == until:
                return

    def _load(self, arguments: dict[str, Any]) -> None:
        data = Path(arguments["channels"][0]["addr"]["filename"]).read_bytes()
        self.event("MIGRATION", status="active")
        self.event("MIGRATION", status="completed" if data == b"state" else "failed")

    def _save(self, arguments: dict[str, Any]) -> None:
        Path(arguments["channels"][0]["addr"]["filename"]).write_bytes(b"state")
        self.event("MIGRATION", status="completed")

    # --- the guest

    def send(self, port: str, data: bytes) -> None:
        self.sockets[port].sendall(data)

    def say(self, kind: str, port: str = "control", **fields: Any) -> None:
        self.send(port, self.frame({"type": kind, **fields}))

    def frame(self, message: object) -> bytes:
        body = json.dumps(message).encode()
        return struct.pack("<I", len(body)) + body

    def hear(self) -> dict[str, Any]:
        """The next message to the guest."""
        (length,) = struct.unpack("<I", self._receive(4))
        message: dict[str, Any] = json.loads(self._receive(length))
        return message

    def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += self.sockets["control"].recv(size - len(data))
        return data

    def rest(self) -> None:
        """Do nothing until killed."""
        while self.sockets["lifecycle"].recv(1):
            pass
        while True:
            signal.pause()
