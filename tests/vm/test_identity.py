"""Forks of one frozen machine are not the same machine: what must differ differs, and the clock is right."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.vm.project import Project

pytestmark = pytest.mark.vm

FORKS = 20

IDENTITY = """
import json, os, random, secrets, socket, tempfile, time, uuid
from pathlib import Path
import pytest

# Made while the tests were collected: the one thing that all forks share.
COLLECTED = uuid.uuid4().hex

@pytest.mark.parametrize("number", range({forks}))
def test_fork(number, record_property):
    handle, temporary = tempfile.mkstemp()
    identity = {{
        "urandom": os.urandom(16).hex(),
        "getrandom": os.getrandom(16, os.GRND_NONBLOCK).hex(),
        "random": random.random(),
        "secrets": secrets.token_hex(),
        "uuid4": uuid.uuid4().hex,
        "kernel_uuid": Path("/proc/sys/kernel/random/uuid").read_text(),
        "hostname": socket.gethostname(),
        "machine_id": Path("/etc/machine-id").read_text(),
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text(),
        "temporary": temporary,
        "collected": COLLECTED,
        "pid": os.getpid(),
        "time": time.time(),
        "monotonic": time.monotonic(),
    }}
    record_property("identity", json.dumps(identity))
"""

CLOCK = '''
"""A plugin for the host: when each test began and ended by its clock."""
import json, os, pathlib, time

TIMES = {}

def pytest_runtest_logstart(nodeid):
    TIMES[nodeid] = [time.time()]

def pytest_runtest_logfinish(nodeid):
    TIMES[nodeid].append(time.time())

def pytest_sessionfinish():
    if TIMES:
        pathlib.Path(os.environ["TIMES"]).write_text(json.dumps(list(TIMES.values())))
'''

#: What no two forks may have in common.
DISTINCT = (
    *("urandom", "getrandom", "random", "secrets", "uuid4", "kernel_uuid"),
    *("hostname", "machine_id", "boot_id", "temporary"),
)


@pytest.mark.kvm
@pytest.mark.kvm_long
def test_forks_are_distinct(project: Project) -> None:
    project.write("clock.py", CLOCK)
    project.write("test_identity.py", IDENTITY.format(forks=FORKS))
    times = project.home / "times.json"
    result = project.run("--smol", "--smol-scope=test", "-p", "clock", TIMES=str(times))
    assert set(result.outcomes().values()) == {"passed"}, result.output
    identities = [json.loads(case.properties["identity"]) for case in result.cases.values()]
    assert len(identities) == FORKS
    for name in DISTINCT:
        assert len({identity[name] for identity in identities}) == FORKS, name
    assert len({identity["collected"] for identity in identities}) == 1
    check_forms(identities[0])
    # The clock is set when a fork starts, so a correct one lies between begin and end of its test.
    for identity, (begin, end) in zip(identities, json.loads(times.read_text()), strict=True):
        assert begin - 1 <= identity["time"] <= end + 1


def check_forms(identity: dict[str, str]) -> None:
    """Names have the forms that programs expect: machine-id(5), random(4), hostname(7)."""
    assert re.fullmatch(r"[0-9a-f]{32}\n", identity["machine_id"])
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\n", identity["boot_id"])
    assert re.fullmatch(r"[a-z0-9-]{1,63}", identity["hostname"])
    assert identity["hostname"] != Path("/proc/sys/kernel/hostname").read_text().strip()


@pytest.mark.kvm
@pytest.mark.kvm_long
def test_two_runs_are_distinct(project: Project) -> None:
    """The snapshots of two runs come of the same base."""
    project.write("test_identity.py", IDENTITY.format(forks=1))
    seen = []
    for _ in range(2):
        (case,) = project.run("--smol").cases.values()
        seen.append(json.loads(case.properties["identity"]))
    for name in (*DISTINCT, "collected"):
        assert seen[0][name] != seen[1][name], name


GENERATORS = """
import json, random, ssl, tempfile, uuid
import pytest

def drawn():
    return {
        "openssl": ssl.RAND_bytes(16).hex(),
        "random": random.random(),
        "tempfile": tempfile.mktemp(),
        "uuid.getnode": uuid.getnode(),
        "uuid1": [uuid.uuid1().node, uuid.uuid1().clock_seq],
    }

drawn()  # all generators are in use when the machine is frozen

@pytest.mark.parametrize("number", range(3))
def test_fork(number, record_property):
    record_property("drawn", json.dumps(drawn()))
"""


def test_generators_that_were_used_at_import_give_each_fork_other_values(project: Project) -> None:
    project.write("test_generators.py", GENERATORS)
    result = project.run("--smol", "--smol-scope=test")
    assert set(result.outcomes().values()) == {"passed"}, result.output
    drawn = [json.loads(case.properties["drawn"]) for case in result.cases.values()]
    for name in drawn[0]:
        assert len({str(each[name]) for each in drawn}) == 3, name
