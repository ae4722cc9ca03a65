"""The test process of the guest.

In order: it warms up and sends ``ready`` (the base snapshot is taken then); receives
``session``, starts pytest, collects, and sends ``collected`` (the session snapshot is
taken then); receives ``identity`` and becomes distinct; receives ``run``, runs the
steps and reports.
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import platform
import socket
import sys
from typing import Any

import pytest

from pytest_smol.guest.artifacts.sender import ArtifactSender
from pytest_smol.guest.artifacts.written_files import Layer
from pytest_smol.guest.identity import become_distinct, drop_caches, seed_generators, set_user
from pytest_smol.guest.port import Port
from pytest_smol.guest.process_state import take_on
from pytest_smol.guest.scratch_disks import give_to
from pytest_smol.guest.session.host_options import HostOptions
from pytest_smol.guest.session.plugin import GuestPlugin, settle_memory
from pytest_smol.guest.session.reporter import ReporterPlugin
from pytest_smol.guest.session.xdist import NoDistribution
from pytest_smol.guest.storage import Storage
from pytest_smol.guest.terminal.debugging import Debugging, open_before_debuggers
from pytest_smol.guest.terminal.pty import Terminal, standard_input
from pytest_smol.guest.terminal.streams import mark_output
from pytest_smol.guest.warmup import warm_up


def begin_session(message: dict[str, Any]) -> None:
    """Take the directory, environment, import path and user from ``message``, a ``session`` message."""
    become_distinct(message["fresh"])
    if message["seed"] is not None:
        seed_generators(message["seed"])
    if message["drop_caches"]:
        drop_caches()
    os.environ.update(message["env"])
    sys.argv[:] = message["argv"]
    os.umask(message["umask"])
    take_on(message["process"])
    sys.path[:] = message["sys_path"]
    importlib.invalidate_caches()
    give_to(message["uid"], message["gid"])
    set_user(message["uid"], message["gid"], message["groups"])
    os.chdir(message["cwd"])


def main(control: int, pumps: socket.socket) -> None:
    """Run one pytest session for the host, over the port with the fd ``control``.

    Over the socket ``pumps``, PID 1 is asked to serve a terminal. Raises WireError where the host
    closes the port; else the host ends the machine while this waits for a message.
    """
    faulthandler.enable()
    port = Port(control)
    warm_up()
    settle_memory()
    port.send("ready", python=platform.python_version())
    message = port.receive()
    begin_session(message)
    sys.stdin = standard_input(port)
    terminal = Terminal(port, pumps)
    open_before_debuggers(terminal)
    port.largest_report = message["output_limit"] // 2  # a report repeats the output of earlier ones
    files = message["files"]
    artifacts = ArtifactSender(port.send, Layer.of(files["rootdir"]) if files else None, files)
    mark_output(port, message["uncaptured"])
    reporter = ReporterPlugin(port, message["screen"])
    by_module = message["collect"] == "module"
    guest = GuestPlugin(port, reporter, message["plugins"], artifacts.end, message["seed"], by_module)
    options = HostOptions(message["options"])
    distribution = NoDistribution(message["dist"])
    storage = Storage(message["storage"])
    plugins = [guest, reporter, artifacts, options, distribution, storage, Debugging(port, terminal)]
    status = pytest.main(message["args"], plugins=plugins)
    sys.stdout.flush()
    sys.stderr.flush()
    port.send("exit", status=int(status))
    port.receive()
