"""PID 1 of the guest: how it reports a death, and which port is which."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_smol.guest import supervisor
from pytest_smol.guest.supervisor import death
from pytest_smol.protocol.wire import FROM_GUEST, Decoder, encode


def ended(script: str) -> int:
    """The wait status of a shell that ran ``script``."""
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", script], {})
    return os.waitpid(pid, 0)[1]


@pytest.mark.parametrize(
    ("script", "status", "signal"),
    [
        ("exit 0", 0, None),
        ("exit 3", 3, None),
        ("exit 255", 255, None),
        ("kill -9 $$", None, 9),
        ("kill -ABRT $$", None, 6),
        ("kill -SEGV $$", None, 11),
    ],
)
def test_a_death_says_how(script: str, status: int | None, signal: int | None) -> None:
    message = death(ended(script))
    assert message == {"type": "died", "status": status, "signal": signal}
    assert list(Decoder(FROM_GUEST).feed(encode(message))) == [message]


#: A supervisor whose runner runs what it is given; its lifecycle port is a socket. File descriptor 9 of the
#: runner is a pipe that ends when all other children have ended.
SUPERVISOR = """
import os, signal, sys
from pytest_smol.guest.supervisor import watch
children, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
signal.set_wakeup_fd(wakeup)
signal.signal(signal.SIGCHLD, lambda number, frame: None)
ended, lives = os.pipe()
def start(script, fd):
    actions = [(os.POSIX_SPAWN_DUP2, fd, 9)]
    return os.posix_spawn("/bin/sh", ["sh", "-c", script], {}, file_actions=actions)
for script in sys.argv[3:]:
    start(script, lives)
os.close(lives)
runner = start(sys.argv[2], ended)
watch(runner, int(sys.argv[1]), children)
"""


def watched(script: str, *orphans: str, ask: bytes = b"") -> dict[str, Any]:
    """What a supervisor says of a runner that runs ``script`` while it has other children."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        argv = [sys.executable, "-c", SUPERVISOR, str(theirs.fileno()), script, *orphans]
        process = subprocess.Popen(argv, pass_fds=[theirs.fileno()])
        try:
            ours.sendall(ask)
            ours.settimeout(60)
            (message,) = Decoder(FROM_GUEST).feed(ours.recv(1000))
            assert process.poll() is None
        finally:
            process.kill()
            process.wait()
    return message


def test_the_runners_death_is_told() -> None:
    assert watched("exit 4") == {"type": "died", "status": 4, "signal": None}


def test_the_death_of_others_is_not_told() -> None:
    assert watched("read end <&9; exit 5", "exit 1", "kill -9 $$")["status"] == 5


def test_the_host_can_have_the_runner_aborted() -> None:
    assert watched("exec sleep 1000", ask=b"!") == {"type": "died", "status": None, "signal": 6}


def test_ports_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for device, name in (("vport0p1", "smol.control"), ("vport0p2", "smol.lifecycle")):
        (tmp_path / device).mkdir()
        (tmp_path / device / "name").write_text(name + "\n")
    opened: list[str] = []
    monkeypatch.setattr(supervisor, "_PORTS", str(tmp_path))

    def fake_open(path: str, flags: int) -> int:
        opened.append(path)
        return 7

    monkeypatch.setattr(os, "open", fake_open)
    assert supervisor.open_port("lifecycle") == 7
    assert opened == ["/dev/vport0p2"]
    with pytest.raises(LookupError, match=r"smol\.stdout"):
        supervisor.open_port("stdout")
