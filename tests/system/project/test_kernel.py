"""Kernel interfaces: control groups, namespaces, tracing, core dumps, FUSE, queues, watchdog, BPF."""

import ctypes
import errno
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def group():
    path = Path("/sys/fs/cgroup/tested")
    path.mkdir()
    yield path
    path.joinpath("cgroup.kill").write_text("1")


def run_in(group, code):
    """A Python that joins ``group`` and then runs ``code``."""
    join = f"open('{group}/cgroup.procs', 'w').write('0')\n"
    return subprocess.run([sys.executable, "-c", join + code], capture_output=True, text=True, check=False)


def test_control_groups_have_all_controllers(group):
    controllers = set((group / "cgroup.controllers").read_text().split())
    assert {"cpu", "memory", "io", "pids", "cpuset"} <= controllers


def test_a_memory_limit_kills(group):
    (group / "memory.max").write_text(str(64 << 20))
    done = run_in(group, "x = bytearray(128 << 20)")
    assert done.returncode == -signal.SIGKILL
    assert "oom_kill 1" in (group / "memory.events").read_text()


def test_kernel_memory_counts(group):
    (group / "memory.max").write_text(str(64 << 20))
    code = f"import os; pipes = [os.pipe() for _ in range(200)]; print(open('{group}/memory.stat').read())"
    rows = dict(line.split() for line in run_in(group, code).stdout.splitlines() if line)
    assert int(rows["slab"]) > 100_000


BOMB = """
import os, signal
try:
    while os.fork():
        continue
    signal.pause()
except BlockingIOError:
    print("no more", flush=True)
    open("{group}/cgroup.kill", "w").write("1")
"""


def test_a_limit_of_processes_stops_a_fork_bomb(group):
    (group / "pids.max").write_text("8")
    done = run_in(group, BOMB.format(group=group))
    assert done.stdout == "no more\n"
    assert done.returncode == -signal.SIGKILL


def test_a_group_is_frozen(group):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    (group / "cgroup.procs").write_text(str(child.pid))
    (group / "cgroup.freeze").write_text("1")
    while "frozen 1" not in (group / "cgroup.events").read_text():
        time.sleep(0.01)
    (group / "cgroup.freeze").write_text("0")
    child.communicate(b"\n")
    assert child.returncode == 0


def test_a_user_namespace_maps_root(sh):
    assert sh("unshare --user --map-root-user --pid --fork --mount-proc sh -c 'id -u; echo $$'") == "0\n1"


def test_a_mount_namespace_is_private(sh):
    sh("unshare --mount sh -c 'mount -t tmpfs none /mnt && touch /mnt/inside'")
    assert not Path("/mnt/inside").exists()


def test_a_core_dump_is_found(tmp_path):
    Path("/proc/sys/kernel/core_pattern").write_text(f"{tmp_path}/core.%e.%p\n")
    limit = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_CORE, limit)
    child = subprocess.Popen([sys.executable, "-c", "import os; os.abort()"])
    assert child.wait() == -signal.SIGABRT
    (core,) = tmp_path.glob(f"core.*.{child.pid}")
    assert core.read_bytes()[:4] == b"\x7fELF"


def test_a_process_is_traced():
    pid = os.fork()
    if pid == 0:
        libc.ptrace(0, 0, None, None)  # PTRACE_TRACEME
        os.kill(os.getpid(), signal.SIGUSR1)
        os._exit(3)
    assert os.WSTOPSIG(os.waitpid(pid, 0)[1]) == signal.SIGUSR1
    assert libc.ptrace(7, pid, None, None) == 0  # PTRACE_CONT
    assert os.WEXITSTATUS(os.waitpid(pid, 0)[1]) == 3


def test_seccomp_kills():
    pid = os.fork()
    if pid == 0:
        libc.prctl(22, 1)  # PR_SET_SECCOMP, SECCOMP_MODE_STRICT
        libc.getppid()
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL


def test_kexec_is_refused():
    assert libc.syscall(246, 0, 0, None, 0) == -1  # kexec_load
    assert ctypes.get_errno() == errno.EPERM
    assert Path("/proc/sys/kernel/kexec_load_disabled").read_text() == "1\n"


def test_a_bpf_program_is_loaded_and_pinned():
    code = struct.pack("<BBhi", 0xB7, 0, 0, 0) + struct.pack("<BBhi", 0x95, 0, 0, 0)  # r0 = 0; exit
    program = ctypes.create_string_buffer(code)
    license = ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack("<IIQQ", 1, 2, ctypes.addressof(program), ctypes.addressof(license)).ljust(
        120, b"\0"
    )
    fd = libc.syscall(321, 5, attributes, len(attributes))  # BPF_PROG_LOAD of a socket filter
    assert fd >= 0, os.strerror(ctypes.get_errno())
    place = ctypes.create_string_buffer(b"/sys/fs/bpf/tested")
    attributes = struct.pack("<QII", ctypes.addressof(place), fd, 0)
    assert libc.syscall(321, 6, attributes, len(attributes)) == 0  # BPF_OBJ_PIN
    assert Path("/sys/fs/bpf/tested").exists()


def test_tracing_counts_a_system_call(sh):
    trace = Path("/sys/kernel/tracing")
    sh(f"mount -t tracefs none {trace}")
    event = trace / "events/sched/sched_process_fork/enable"
    event.write_text("1")
    subprocess.run(["true"], check=False)
    event.write_text("0")
    assert "sched_process_fork" in (trace / "trace").read_text()


def test_debugfs_is_mounted(sh):
    sh("mount -t debugfs none /sys/kernel/debug")
    assert Path("/sys/kernel/debug/block").is_dir()


def test_a_message_queue_is_listed():
    assert libc.syscall(240, b"tested", os.O_CREAT | os.O_RDWR, 0o600, None) >= 0  # mq_open
    assert "tested" in os.listdir("/dev/mqueue")


def test_huge_pages_are_mounted(sh):
    sh("echo 2 > /proc/sys/vm/nr_hugepages && mkdir /mnt/huge && mount -t hugetlbfs none /mnt/huge")
    assert " /mnt/huge hugetlbfs " in Path("/proc/mounts").read_text()


def test_a_watchdog_is_fed_and_stopped(sh):
    sh("modprobe softdog soft_noboot=1")
    with open("/dev/watchdog", "wb", 0) as watchdog:
        watchdog.write(b"1")
        watchdog.write(b"V")
    assert Path("/sys/class/watchdog/watchdog0").exists()


def test_an_interpreter_is_registered(sh, tmp_path):
    sh("mount -t binfmt_misc none /proc/sys/fs/binfmt_misc")
    Path("/proc/sys/fs/binfmt_misc/register").write_text(":tested:M::TEST::/bin/cat:")
    script = tmp_path / "script"
    script.write_text("TESTED\n")
    script.chmod(0o755)
    assert sh(str(script)) == "TESTED"


def test_a_tap_device_takes_frames():
    import fcntl

    with open("/dev/net/tun", "r+b", 0) as tap:
        fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", b"tested", 0x1002))  # TUNSETIFF: TAP, NO_PI
        assert "tested" in os.listdir("/sys/class/net")


class Hello(threading.Thread):
    """A FUSE file system with one file, which answers what mount, stat and read ask."""

    TEXT = b"hello\n"

    def __init__(self, fd):
        super().__init__(daemon=True)
        self.fd = fd

    def attributes(self, node):
        mode, size = (0o040755, 0) if node == 1 else (0o100644, len(self.TEXT))
        return struct.pack("<QQQQQQIIIIIIIIII", node, size, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def answer(self, opcode, node, body):
        if opcode == 26:  # INIT
            return struct.pack("<IIIIHHIIHHI28x", 7, 31, 0, 0, 0, 0, 4096, 0, 0, 0, 0)
        if opcode == 1 and body == b"hello\0":  # LOOKUP
            return struct.pack("<QQQQII", 2, 0, 0, 0, 0, 0) + self.attributes(2)
        if opcode == 3:  # GETATTR
            return struct.pack("<QII", 0, 0, 0) + self.attributes(node)
        if opcode == 14:  # OPEN
            return struct.pack("<QII", 0, 0, 0)
        if opcode == 15:  # READ
            offset = struct.unpack_from("<8xQ", body)[0]
            return self.TEXT[offset:]
        if opcode in (18, 25):  # RELEASE, FLUSH
            return b""
        return None

    def run(self):
        while True:
            try:
                request = os.read(self.fd, 1 << 17)
            except OSError:  # unmounted
                return
            _, opcode, unique, node = struct.unpack_from("<IIQQ", request)
            if opcode == 2:  # FORGET has no answer
                continue
            answer = self.answer(opcode, node, request[40:])
            error = -errno.ENOENT if answer is None else 0
            os.write(self.fd, struct.pack("<IiQ", 16 + len(answer or b""), error, unique) + (answer or b""))


def test_a_fuse_file_system_is_served():
    fd = os.open("/dev/fuse", os.O_RDWR)
    os.mkdir("/mnt/fuse")
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0".encode()
    assert libc.mount(b"tested", b"/mnt/fuse", b"fuse", 0, options) == 0, os.strerror(ctypes.get_errno())
    Hello(fd).start()
    assert subprocess.run(["cat", "/mnt/fuse/hello"], capture_output=True, check=False).stdout == Hello.TEXT
    assert libc.umount2(b"/mnt/fuse", 2) == 0
