"""Tests that destroy the machine they run on, and pass. Each has a machine of its own.

Every file of examples like these carries its own guard: should anything ever go wrong with
the plugin, the guard stops the test before it harms a real machine.
"""

import ctypes
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def only_in_a_guest():
    """Only a guest of pytest-smol has this word on its kernel's command line."""
    if "smol.guest" not in Path("/proc/cmdline").read_text().split():
        pytest.fail("this test destroys its machine, and this is not a virtual machine", pytrace=False)


@pytest.mark.smol(user="root")
def test_delete_etc():
    shutil.rmtree("/etc")
    assert not Path("/etc").exists()


@pytest.mark.smol(user="root")
def test_etc_is_back():
    assert "root" in Path("/etc/passwd").read_text()


@pytest.mark.smol(user="root")
def test_delete_every_program():
    subprocess.run(["rm", "-rf", "/bin/", "/usr/bin", "/sbin/", "/usr/sbin"], check=False)
    with pytest.raises(FileNotFoundError):
        subprocess.run(["ls"], check=False)


@pytest.mark.smol(user="root")
def test_overwrite_the_interpreter():
    interpreter = Path(sys.executable).resolve()
    interpreter.unlink()
    interpreter.write_bytes(bytes(4096))
    interpreter.chmod(0o755)
    with pytest.raises(OSError, match="Exec format error"):
        subprocess.run([interpreter], check=False)


@pytest.mark.smol(user="root")
def test_the_interpreter_is_back():
    done = subprocess.run([sys.executable, "-c", "print(6 * 7)"], capture_output=True, text=True, check=True)
    assert done.stdout == "42\n"


@pytest.mark.smol(user="root")
def test_fill_the_disk():
    with pytest.raises(OSError, match="No space left on device"), open("/filler", "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 20))


@pytest.mark.smol(user="root")
def test_hide_the_root_file_system():
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"none", b"/usr", b"tmpfs", 0, None) == 0, os.strerror(ctypes.get_errno())
    assert os.listdir("/usr") == []


@pytest.mark.smol(user="root")
def test_set_the_clock_to_1970():
    time.clock_settime(time.CLOCK_REALTIME, 86400.0)
    assert time.localtime().tm_year == 1970


@pytest.mark.smol(user="root")
def test_rename_the_machine():
    socket.sethostname("broken")
    assert socket.gethostname() == "broken"


@pytest.mark.smol(user="root")
def test_the_name_and_the_clock_are_back():
    assert socket.gethostname() != "broken"
    assert time.localtime().tm_year > 2000
