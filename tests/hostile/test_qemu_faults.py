"""QEMUs that are killed or stopped, and guests that fault or reach out: one failed test, and no more."""

from __future__ import annotations

import json
import socket
import xml.etree.ElementTree as ET
from dataclasses import dataclass

import pytest

from tests.vm.project import Project, Result

pytestmark = pytest.mark.vm

#: Of the test whose QEMU is stopped, in seconds. The others are over long before.
TIMEOUT = 12

PLUGIN = '''
"""A plugin for the host: does to QEMU what a name says, in the midst of the request that looks it up."""
import atexit, json, os, pathlib, signal, threading

def held():
    fds = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            fds[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:  # the listing itself
            pass
    tasks = pathlib.Path("/proc/self/task").iterdir()
    children = sum(((task / "children").read_text().split() for task in tasks), [])
    return {"fds": sorted(fds.values()), "children": children}

def dies(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

FAULTS = {
    b"killed-in-the-request\\0": dies,
    b"killed-soon\\0": lambda pid: threading.Timer(0.5, dies, [pid]).start(),
    b"stopped\\0": lambda pid: os.kill(pid, signal.SIGSTOP),
}

def answer(backend, request, room):
    fault = FAULTS.get(request[40:])
    if fault is not None:
        fault(backend._memory.pid)
    return ANSWER(backend, request, room)

if "SMOL_GUEST" not in os.environ:
    from pytest_smol.virtiofs.backend import FsBackend
    ANSWER = FsBackend._answer
    FsBackend._answer = answer
    BEFORE = held()
    atexit.register(lambda: pathlib.Path(os.environ["HELD"]).write_text(json.dumps([BEFORE, held()])))
'''

MODULE = """
import errno, os, socket, time
from pathlib import Path
import pytest

HERE = Path(__file__).parent

def reach(name):
    (HERE / name).exists()
    time.sleep(600)

def test_first():
    pass

def test_killed():
    reach("killed-soon")

def test_killed_in_a_request():
    reach("killed-in-the-request")

def test_between():
    assert not (HERE / "other").exists()

def test_stopped():
    reach("stopped")

@pytest.mark.smol(user="root")
def test_triple_fault():
    Path("/sys/kernel/reboot/type").write_text("triple")
    Path("/proc/sysrq-trigger").write_text("b")
    time.sleep(600)

@pytest.mark.smol(user="root")
def test_network():
    assert os.getuid() == 0
    assert socket.if_nameindex() == [(1, "lo")]
    for host in os.environ["HOSTS"].split():
        family, *_, address = socket.getaddrinfo(host, int(os.environ["PORT"]), type=socket.SOCK_STREAM)[0]
        with pytest.raises(OSError) as caught, socket.socket(family) as client:
            client.settimeout(5)
            client.connect(address)
        assert caught.value.errno in (errno.ENETUNREACH, errno.ECONNREFUSED, errno.EADDRNOTAVAIL), host
        with pytest.raises(OSError), socket.socket(family, socket.SOCK_DGRAM) as client:
            client.connect(address)
            client.send(b"there")
            client.settimeout(1)
            client.recv(1)

@pytest.mark.smol(user="root")
def test_other_ways_to_the_host():
    with pytest.raises(OSError), socket.socket(socket.AF_VSOCK) as client:
        client.connect((2, int(os.environ["PORT"])))
    with pytest.raises(OSError), socket.socket(socket.AF_UNIX) as client:
        client.connect(os.environ["UNIX"])
    with pytest.raises(OSError), socket.socket(socket.AF_UNIX) as client:
        client.connect("\\0" + os.environ["UNIX"])

def test_last():
    pass
"""

REASONS = {
    "test_killed": "QEMU was killed by SIGKILL on the host",
    "test_killed_in_a_request": "QEMU was killed by SIGKILL on the host",
    "test_stopped": f"the test was not over after {TIMEOUT} s",
    "test_triple_fault": "the guest rebooted itself",
}


def duration(result: Result, name: str) -> float:
    """Seconds of the test ``name``, from its report."""
    (case,) = (case for case in ET.fromstring(result.junit).iter("testcase") if case.get("name") == name)
    return float(case.get("time", "inf"))


def own_addresses() -> list[str]:
    """Where this host can be reached, and where it could with QEMU's own network."""
    found = {"127.0.0.1", "::1", "10.0.2.2"}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # nothing is sent
            found.add(sock.getsockname()[0])
        except OSError:  # a host without a network
            pass
    return sorted(found)


@dataclass(frozen=True)
class Faults:
    """The result of a run in which all of it happened, and the connections that the host got meanwhile."""

    project: Project
    result: Result
    reached: list[str]


def _connected(listener: socket.socket) -> bool:
    listener.setblocking(False)
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Faults:
    project = Project(tmp_path_factory.mktemp("faults"))
    project.write("pytest.ini", "[pytest]\naddopts = -p no:cacheprovider\nsmol_env = HOSTS PORT UNIX\n")
    project.write("faults.py", PLUGIN)
    project.write("test_faults.py", MODULE)
    path = str(project.root / "listens")
    with (
        socket.create_server(("0.0.0.0", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        for sock, address in ((unix, path), (abstract, "\0" + path)):
            sock.bind(address)
            sock.listen()
        result = project.run(
            *("--smol", "--smol-scope=test", f"--smol-timeout={TIMEOUT}", "-p", "faults"),
            HOSTS=" ".join(own_addresses()),
            PORT=str(tcp.getsockname()[1]),
            UNIX=path,
            HELD=str(project.home / "held.json"),
        )
        listeners = {"tcp": tcp, "unix": unix, "abstract": abstract}
        return Faults(project, result, [name for name, each in listeners.items() if _connected(each)])


def check(faults: Faults, name: str, *outcomes: str) -> None:
    case = faults.result.cases[name]
    assert (case.outcome in outcomes, REASONS[name] in case.message) == (True, True), case.message + case.text


@pytest.mark.kvm
@pytest.mark.kvm_long
def test_a_qemu_that_is_killed(faults: Faults) -> None:
    check(faults, "test_killed", "failed")


@pytest.mark.kvm
@pytest.mark.kvm_long
def test_a_qemu_that_is_killed_in_the_middle_of_a_request(faults: Faults) -> None:
    # SIGKILL may come before QEMU has passed on the report of the setup: then it is the setup that failed.
    check(faults, "test_killed_in_a_request", "failed", "error")


@pytest.mark.kvm
@pytest.mark.kvm_long
def test_a_qemu_that_is_stopped_costs_its_test_the_time_limit(faults: Faults) -> None:
    check(faults, "test_stopped", "failed")
    assert duration(faults.result, "test_stopped") < TIMEOUT + 5


@pytest.mark.kvm
@pytest.mark.kvm_long
def test_a_triple_fault(faults: Faults) -> None:
    check(faults, "test_triple_fault", "failed")


@pytest.mark.kvm
@pytest.mark.kvm_long
def test_a_guest_reaches_neither_network_nor_host(faults: Faults) -> None:
    for name in ("test_network", "test_other_ways_to_the_host"):
        assert faults.result.cases[name].outcome == "passed", faults.result.cases[name].text
    assert faults.reached == []


@pytest.mark.kvm
@pytest.mark.kvm_long
def test_siblings_of_machines_that_fault_pass(faults: Faults) -> None:
    failed = {name for name, case in faults.result.cases.items() if case.outcome != "passed"}
    assert failed == REASONS.keys(), faults.result.output
    assert len(faults.result.cases) == 9
    assert faults.result.status == 1
    assert "INTERNALERROR" not in faults.result.output


@pytest.mark.kvm
@pytest.mark.kvm_long
def test_nothing_is_left_of_machines_that_fault(faults: Faults) -> None:
    assert faults.project.left_behind() == []
    before, after = json.loads((faults.project.home / "held.json").read_text())
    assert after == before
