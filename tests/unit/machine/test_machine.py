"""A machine's life and talk, against a QEMU that is none."""

from __future__ import annotations

import os
import select
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pytest_smol.engines.protocol import Hardware, Kernel
from pytest_smol.engines.qemu import vm as vm_module
from pytest_smol.engines.qemu.accelerator import Accelerator
from pytest_smol.engines.qemu.command_line import QemuConfig
from pytest_smol.engines.qemu.vm import QemuVm
from pytest_smol.errors import HostError, MachineDied, MachineTimeout, ProtocolError, QmpError, SmolError
from pytest_smol.host.process import ChildProcess
from pytest_smol.machine import channel as channel_module
from pytest_smol.machine.machine import Machine, OutputSink
from pytest_smol.protocol.wire import MARKER, MAX_FRAME, encode
from pytest_smol.virtiofs.filesystem.state import TreeState
from pytest_smol.virtiofs.filesystem.tree import Tree
from pytest_smol.virtiofs.server import Server
from pytest_smol.virtiofs.view import View
from tests.unit.fake_qemu import asked, make_emulator
from tests.unit.fake_vm import FakeVm

Start = Callable[..., Machine]

DONE = {"type": "done"}


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


def config_of(directory: Path, script: str) -> QemuConfig:
    return QemuConfig(make_emulator(directory, script), Accelerator("tcg", "max", ""))


@pytest.fixture
def start(tmp_path: Path, server: Server) -> Iterator[Start]:
    """Starts a machine whose QEMU does what a script says."""
    with ExitStack() as stack:

        def begin(script: str, *, on_output: OutputSink | None = None, **options: object) -> Machine:
            config = config_of(tmp_path, script)
            vm = QemuVm(config, Hardware(memory=1), tmp_path / "ram", **options)  # type: ignore[arg-type]
            return stack.enter_context(Machine(vm, server, Tree(View({})), on_output))

        yield begin


@pytest.fixture
def short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the timeouts short for peers that do nothing."""
    monkeypatch.setattr(vm_module, "_STEP_TIMEOUT", 0.5)
    monkeypatch.setattr(vm_module, "_EXIT_TIMEOUT", 0.5)
    monkeypatch.setattr(channel_module, "_SEND_TIMEOUT", 0.5)
    monkeypatch.setattr(channel_module, "_LAST_WORDS", 0.5)


def process_of(machine: Machine) -> ChildProcess:
    assert isinstance(machine.vm, QemuVm)
    return machine.vm.process


def soon() -> float:
    """A deadline for what a peer does at once, however busy the host is."""
    return time.monotonic() + 60


def alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def death_of(machine: Machine) -> MachineDied:
    with pytest.raises(MachineDied) as caught:
        machine.receive(soon())
    return caught.value


def wait_until(condition: Callable[[], bool], machine: Machine) -> None:
    """Take what ``machine`` brings, whenever it brings anything, until ``condition`` holds."""
    deadline = soon()
    while not condition():
        machine.attend(deadline)


# --- life


def test_a_boot_is_given_its_kernel_and_a_restored_machine_none(start: Start, tmp_path: Path) -> None:
    script = "qemu.send('console', ' '.join(qemu.argv).encode() + b'\\n'); qemu.say('done'); qemu.rest()"
    kernel = Kernel(Path("/k"), Path("/i"), "quiet")
    booted = start(script, kernel=kernel)
    booted.receive(soon())
    assert "-kernel /k -initrd /i -append quiet" in booted.console.text()
    forked = start(script, private=True)
    forked.receive(soon())
    assert "-kernel" not in forked.console.text()
    assert "share=off,readonly=on" in forked.console.text()


def test_restoring_loads_the_state_and_runs(start: Start, tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"state")
    start("qemu.serve(until='cont'); qemu.rest()").start(tmp_path / "state")
    commands = asked(tmp_path)
    assert [command["execute"] for command in commands] == [
        "qmp_capabilities",
        "migrate-set-capabilities",
        "migrate-incoming",
        "cont",
    ]
    wanted = commands[1]["arguments"]["capabilities"]
    assert {each["capability"]: each["state"] for each in wanted} == {"x-ignore-shared": True, "events": True}


def test_freezing_writes_the_state_and_ends_qemu(start: Start, tmp_path: Path) -> None:
    machine = start("qemu.serve(until='quit')")
    assert isinstance(machine.freeze(tmp_path / "state"), TreeState)
    assert (tmp_path / "state").read_bytes() == b"state"
    assert process_of(machine).returncode == 0
    assert [command["execute"] for command in asked(tmp_path)] == [
        "qmp_capabilities",
        "stop",
        "migrate-set-capabilities",
        "migrate",
        "quit",
    ]


def test_a_restored_machine_can_be_frozen_again(start: Start, tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"state")
    machine = start("qemu.serve(until='quit')")
    machine.start(tmp_path / "state")
    machine.freeze(tmp_path / "second")
    commands = [command["execute"] for command in asked(tmp_path)]
    assert commands.count("qmp_capabilities") == 1
    assert (tmp_path / "second").read_bytes() == b"state"


def test_a_state_that_cannot_be_loaded_is_an_error(start: Start, tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"bad")
    machine = start(
        "print('bad state', file=sys.stderr, flush=True); qemu.serve(until='query-migrate'); qemu.rest()"
    )
    with pytest.raises(QmpError, match="could not transfer its state") as caught:
        machine.start(tmp_path / "state")
    assert "bad state" in caught.value.evidence


def test_a_refusal_is_an_error_with_what_qemu_said(start: Start, tmp_path: Path) -> None:
    script = """
    print('qemu: warning: odd', file=sys.stderr, flush=True)
    qemu.qmp({'QMP': {}})
    qemu.request()
    qemu.qmp({'error': {'class': 'GenericError', 'desc': 'not now'}})
    qemu.rest()
    """
    with pytest.raises(QmpError, match="qmp_capabilities: not now") as caught:
        start(script).start(tmp_path / "state")
    assert caught.value.evidence == "qemu: warning: odd\n"


def test_an_end_during_a_restore_is_a_death_with_its_reason(start: Start, tmp_path: Path) -> None:
    machine = start("qemu.serve(until='migrate-set-capabilities'); sys.exit('qemu: no memory')")
    with pytest.raises(MachineDied, match="migrate-incoming") as caught:
        machine.start(tmp_path / "state")
    assert "qemu: no memory" in caught.value.evidence


@pytest.mark.usefixtures("short_steps")
def test_a_qemu_that_says_nothing_is_a_timeout(start: Start, tmp_path: Path) -> None:
    with pytest.raises(MachineTimeout, match="its greeting"):
        start("qemu.rest()").freeze(tmp_path / "state")


def test_a_qemu_that_does_not_quit_is_a_timeout(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = start("qemu.serve(until='quit'); qemu.rest()")
    monkeypatch.setattr(process_of(machine), "wait", lambda timeout: None)
    with pytest.raises(MachineTimeout, match="did not quit"):
        machine.freeze(tmp_path / "state")


def test_a_program_that_is_missing_is_an_error(start: Start, tmp_path: Path, server: Server) -> None:
    config = config_of(tmp_path, "")
    (tmp_path / "qemu").unlink()
    with pytest.raises((HostError, MachineDied)) as caught:  # noqa: SIM117
        with Machine(QemuVm(config, Hardware(memory=1), tmp_path / "ram"), server, Tree(View({}))) as machine:
            machine.start(tmp_path / "state")
    assert "No such file" in str(caught.value)


def test_closing_kills_and_leaves_nothing_open(start: Start) -> None:
    before = set(os.listdir("/proc/self/fd"))
    machine = start("qemu.say('done'); signal.signal(signal.SIGTERM, signal.SIG_IGN); qemu.rest()")
    machine.receive(soon())
    machine.close()
    machine.close()
    assert not alive(machine.vm.pid)
    assert set(os.listdir("/proc/self/fd")) <= before


# --- talk


def test_messages_go_both_ways(start: Start) -> None:
    machine = start("message = qemu.hear(); qemu.say('nodes', rows=message['steps']); qemu.rest()")
    machine.send({"type": "run", "steps": [[1, 2]], "failed": 0})
    assert machine.receive(soon()) == {"type": "nodes", "rows": [[1, 2]]}


def test_a_large_message_crosses_in_both_directions(start: Start) -> None:
    machine = start("message = qemu.hear(); qemu.say('nodes', rows=message['steps']); qemu.rest()")
    rows = ["x" * 1000] * (MAX_FRAME // 1100)
    machine.send({"type": "run", "steps": rows, "failed": 0})
    assert machine.receive(soon())["rows"] == rows


def test_messages_that_arrive_together_come_in_order(start: Start) -> None:
    machine = start(
        "frames = [qemu.frame({'type': 'start', 'index': n}) for n in range(3)]\n"
        "qemu.send('control', b''.join(frames)); qemu.rest()"
    )
    assert [machine.receive(soon())["index"] for _ in range(3)] == [0, 1, 2]


def test_a_message_may_come_in_halves(start: Start) -> None:
    script = """
    data = qemu.frame({'type': 'start', 'index': 5})
    qemu.send('control', data[:6])
    qemu.send('stdout', b'half of it')
    qemu.hear()
    qemu.send('control', data[6:])
    qemu.rest()
    """
    machine = start(script)
    wait_until(lambda: machine.output["stdout"].total > 0, machine)
    machine.drain()  # so that the first half is taken as well
    machine.send(DONE)
    assert machine.receive(soon()) == {"type": "start", "index": 5}


def test_half_a_message_is_none(start: Start) -> None:
    machine = start(
        "qemu.send('control', qemu.frame({'type': 'done'})[:-1]); qemu.say('done', 'stdout'); qemu.rest()"
    )
    wait_until(lambda: machine.output["stdout"].total > 0, machine)
    with pytest.raises(MachineTimeout):
        machine.receive(time.monotonic() + 0.2)


def test_half_a_message_before_the_end_is_a_death(start: Start) -> None:
    assert "status 7" in death_of(start("qemu.send('control', b'\\5\\0'); sys.exit(7)")).message


@pytest.mark.parametrize("left", [0.0, -5.0, 0.2])
def test_silence_is_a_timeout_at_the_deadline(start: Start, left: float) -> None:
    machine = start("qemu.rest()")
    with pytest.raises(MachineTimeout, match="no answer came"):
        machine.receive(time.monotonic() + left)


def test_what_has_arrived_is_given_even_after_the_deadline(start: Start) -> None:
    machine = start("qemu.say('start', index=0); qemu.say('start', index=1); qemu.rest()")
    wait_until(lambda: len(machine.channel.output_order.messages) == 2, machine)
    assert machine.receive(time.monotonic() - 1)["index"] == 0


@pytest.mark.usefixtures("short_steps")
@pytest.mark.parametrize(
    "script",
    [
        "qemu.send('control', b'\\xff\\xff\\xff\\xff')",
        "qemu.send('control', b'\\5\\0\\0\\0hello')",
        "qemu.say('finish')",
        "qemu.say('run', steps=[], failed=0)",
        "qemu.say('died', status=0, signal=None)",
        "qemu.say('done', 'lifecycle')",
        "qemu.send('lifecycle', b'\\xff\\xff\\xff\\xff')",
    ],
)
def test_what_the_protocol_forbids_is_an_error_again_and_again(start: Start, script: str) -> None:
    machine = start(f"{script}\nqemu.rest()")
    with pytest.raises(ProtocolError, match="the guest broke the protocol"):
        machine.receive(soon())
    machine.drain()
    machine.abort_test()


@pytest.mark.usefixtures("short_steps")
def test_nothing_raises_while_a_machine_that_lies_is_given_up(start: Start) -> None:
    script = """
    while True:
        qemu.send('control', b'\\xff' * 1000)
    """
    machine = start(script)
    with pytest.raises(ProtocolError):
        machine.receive(soon())
    for _ in range(3):
        assert select.select([machine.vm.ports["control"]], [], [], 60)[0]
        machine.drain()
    machine.abort_test()


@pytest.mark.usefixtures("short_steps")
def test_a_broken_file_server_protocol_is_an_error(start: Start) -> None:
    machine = start("qemu.send('fs', b'\\xff' * 64); qemu.rest()")
    with pytest.raises(SmolError) as caught:
        machine.receive(soon())
    assert caught.value is machine.backend.failure
    machine.drain()
    machine.abort_test()


@pytest.mark.usefixtures("short_steps")
def test_a_guest_that_does_not_read_is_a_timeout(start: Start) -> None:
    machine = start("qemu.rest()")
    with pytest.raises(MachineTimeout, match="does not read"):
        machine.send({"type": "run", "steps": ["x" * (4 << 20)], "failed": 0})


# --- console and output


def test_console_and_output_are_kept_apart(start: Start) -> None:
    seen: list[tuple[str, bytes]] = []
    script = """
    qemu.send('console', b'booting\\r\\n')
    qemu.send('stdout', b'out')
    qemu.send('stderr', b'err')
    qemu.say('done')
    qemu.rest()
    """
    machine = start(script, on_output=lambda name, data: seen.append((name, data)))
    machine.receive(soon())
    assert machine.console.text() == "booting"
    assert sorted(seen) == [("stderr", b"err"), ("stdout", b"out")]
    assert machine.last_words() == "booting\nout\nerr"


@pytest.mark.parametrize("port", ["stdout", "stderr", "console"])
def test_a_flood_does_not_keep_anyone_from_the_deadline(start: Start, port: str) -> None:
    machine = start(f"while True: qemu.send({port!r}, b'x' * 65536)")
    with pytest.raises(MachineTimeout):
        machine.receive(time.monotonic() + 0.3)
    assert len(machine.last_words()) < 1 << 20


def test_a_message_gets_through_a_flood(start: Start) -> None:
    script = """
    if os.fork():
        while True:
            qemu.send('stdout', b'x' * 65536)
    qemu.hear()
    qemu.say('done')
    """
    machine = start(script)
    wait_until(lambda: machine.output["stdout"].total > 1 << 20, machine)
    machine.send(DONE)
    assert machine.receive(soon()) == DONE


@pytest.mark.usefixtures("short_steps")
def test_a_flood_does_not_keep_an_abort_from_its_end(start: Start) -> None:
    start("while True: qemu.send('stdout', b'x' * 65536)").abort_test()


@pytest.mark.parametrize("end", ["time.sleep(60)", "sys.exit(3)"])
def test_a_flood_of_messages_is_taken_bit_by_bit_and_whole(start: Start, end: str) -> None:
    number = 50_000
    script = f"""
    body = b'{{"type": "start", "index": 1}}'
    data = (len(body).to_bytes(4, "little") + body) * 10
    for _ in range({number // 10}): qemu.send("control", data)
    {end}
    """
    machine = start(script)
    for _ in range(number):
        assert machine.receive(soon())["type"] == "start"
        assert len(machine.channel.output_order.messages) < 10_000


# --- deaths


def test_last_messages_are_given_before_the_death(start: Start) -> None:
    machine = start("qemu.say('start', index=1); qemu.say('done'); sys.exit(3)")
    assert [machine.receive(soon())["type"] for _ in range(2)] == ["start", "done"]
    assert death_of(machine).message == "QEMU ended with status 3"
    assert death_of(machine).message == "QEMU ended with status 3"


class _Last:
    """A console's file: when it is written to, the guest in ``vm`` sends its last message and ends."""

    def __init__(self, vm: FakeVm) -> None:
        self._vm = vm

    def write(self, data: bytes) -> None:
        self._vm.guest_ports["control"].sendall(encode(DONE))
        for end in self._vm.guest_ports.values():
            end.close()


def test_a_message_that_comes_after_its_port_was_read_is_given_before_the_death(server: Server) -> None:
    """Ports are read one after the other; the guest writes and dies between two of them."""
    vm = FakeVm()
    with Machine(vm, server, Tree(View({})), None) as machine:
        machine.channel.keep_console(_Last(vm))  # type: ignore[arg-type]
        vm.guest_ports["console"].sendall(b"x")
        assert machine.receive(soon()) == DONE
        death_of(machine)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("qemu.say('died', 'lifecycle', status=3, signal=None); qemu.rest()", "exited with status 3"),
        ("qemu.say('died', 'lifecycle', status=None, signal=11); qemu.rest()", "killed by SIGSEGV"),
        ("qemu.event('SHUTDOWN', guest=True, reason='guest-reset')", "the guest rebooted itself"),
        ("qemu.send('console', b'Kernel panic - not syncing: oops\\n')", "the guest kernel panicked: oops"),
        ("os.kill(os.getpid(), 9)", "QEMU was killed by SIGKILL on the host"),
        ("sys.exit('qemu: bad')", "QEMU ended with status 1: qemu: bad"),
    ],
)
def test_the_cause_of_a_death_is_named(start: Start, script: str, message: str) -> None:
    assert message in death_of(start(script)).message


def test_a_death_carries_what_qemu_said(start: Start) -> None:
    assert "qemu: bad" in death_of(start("sys.exit('qemu: bad')")).evidence


def test_sending_to_the_dead_is_a_death(start: Start) -> None:
    machine = start("sys.exit(4)")
    process_of(machine).wait(60)
    with pytest.raises(MachineDied, match="status 4"):
        machine.send({"type": "run", "steps": [], "failed": 0})


@pytest.mark.usefixtures("short_steps")
def test_a_port_that_ends_while_qemu_lives_is_a_death(start: Start) -> None:
    machine = start("import socket; qemu.sockets['control'].shutdown(socket.SHUT_RDWR); qemu.rest()")
    assert death_of(machine).message == "QEMU closed its connections"


PAUSED = """
qemu.answers["query-status"] = {"status": "internal-error", "running": False}
print("KVM internal error. Suberror: 1", file=sys.stderr, flush=True)
qemu.event("STOP")
qemu.serve(until="query-status")
qemu.rest()
"""


def test_a_guest_that_qemu_pauses_is_dead_and_the_reason_is_named(start: Start) -> None:
    begin = time.monotonic()
    error = death_of(start(PAUSED))
    assert time.monotonic() - begin < 60
    assert "internal error" in error.message
    assert "KVM internal error. Suberror: 1" in error.message
    assert "Suberror" in error.evidence


def test_a_restored_guest_that_qemu_pauses_is_dead(start: Start, tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"state")
    machine = start("qemu.serve(until='cont')\n" + textwrap.dedent(PAUSED))
    with pytest.raises(MachineDied, match="KVM internal error"):
        machine.start(tmp_path / "state")
        machine.receive(soon())


def test_a_guest_that_is_paused_with_the_answer_to_cont_is_dead(start: Start, tmp_path: Path) -> None:
    """One packet brings both, so that nothing can be read afterwards that would tell."""
    (tmp_path / "state").write_bytes(b"state")
    script = """
    qemu.answers["query-status"] = {"status": "internal-error", "running": False}
    qemu.serve(until='migrate-incoming')
    assert qemu.request()['execute'] == 'cont'
    answers = [{'return': {}}, {'event': 'STOP', 'data': {}}]
    qemu.sockets['qmp'].sendall(b''.join(json.dumps(answer).encode() + b'\\n' for answer in answers))
    qemu.serve(until='query-status')
    qemu.rest()
    """
    with pytest.raises(MachineDied, match="internal error"):
        start(script).start(tmp_path / "state")


def test_a_guest_that_goes_on_after_a_pause_is_alive(start: Start) -> None:
    script = """
    qemu.answers["query-status"] = {"status": "running", "running": True}
    qemu.event("STOP")
    qemu.event("RESUME")
    qemu.serve(until="query-status")
    qemu.say("done")
    qemu.rest()
    """
    assert start(script).receive(soon()) == DONE


@pytest.mark.usefixtures("short_steps")
def test_a_qemu_that_does_not_say_why_it_paused_a_guest_is_no_hang(start: Start) -> None:
    assert "paused" in death_of(start("qemu.event('STOP'); qemu.rest()")).message


# --- aborts


def test_an_aborted_test_says_where_it_hangs(start: Start) -> None:
    script = """
    if qemu.sockets['lifecycle'].recv(1) == b'!':
        qemu.send('stderr', b'Fatal Python error: Aborted')
        qemu.say('start', index=1)
        qemu.say('died', 'lifecycle', status=None, signal=6)
    qemu.rest()
    """
    machine = start(script)
    machine.abort_test()
    assert machine.output["stderr"].text() == "Fatal Python error: Aborted"
    assert "SIGABRT" in death_of(machine).message


@pytest.mark.usefixtures("short_steps")
@pytest.mark.parametrize("script", ["qemu.rest()", "sys.exit(0)"])
def test_an_abort_that_nobody_hears_comes_back(start: Start, script: str) -> None:
    start(script).abort_test()


def test_a_message_waits_for_the_output_that_came_before_it(start: Start) -> None:
    seen: list[tuple[str, bytes]] = []
    script = f"""
    marker = {MARKER!r}
    qemu.say('start', index=0)
    qemu.say('mark', stderr=False)
    qemu.say('finish', index=0)
    qemu.hear()
    qemu.send('stdout', b'said before' + marker)
    qemu.rest()
    """
    machine = start(script, on_output=lambda name, data: seen.append((name, data)))
    assert machine.receive(soon())["type"] == "start"
    wait_until(lambda: len(machine.channel.output_order.messages) > 0, machine)
    assert seen == []
    machine.send(DONE)
    assert machine.receive(soon())["type"] == "finish"
    assert seen == [("stdout", b"said before")]


def test_a_guest_that_marks_no_more_is_not_waited_for(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_smol.machine.channel._MARKER_WAIT", 0.1)
    machine = start(
        "qemu.say('mark', stderr=True); qemu.say('start', index=0); qemu.say('done'); qemu.rest()"
    )
    assert [machine.receive(soon())["type"] for _ in range(2)] == ["start", "done"]
