"""Files that tests write and that are copied to the host, and the lists of those that are not."""

from __future__ import annotations

import base64
import errno
import os
from pathlib import Path

import pytest

from pytest_smol.artifacts import files as artifact_files
from pytest_smol.artifacts import incoming
from pytest_smol.protocol.wire import Message
from tests.plugin.fakes import Script
from tests.plugin.lab import Lab
from tests.plugin.test_lies import FINISH, FRESH, START, report

WRITES = """
    from pathlib import Path

    def test_writes():
        Path("out").mkdir(exist_ok=True)
        Path("out/a.txt").write_text("one")
        Path("out/b.bin").write_bytes(bytes(range(256)) * 10000)
        Path("stays.txt").write_text("x")
"""

INI = "[pytest]\nsmol_artifacts =\n    out/**\n    *.xml\n"


def sent(lab: Lab, kind: str) -> list[Message]:
    return [said for fork in lab.record.forks for said in fork.received if said["type"] == kind]


def test_what_matches_is_sent_home_whole(lab: Lab) -> None:
    lab.project(test_a=WRITES, pytest_ini=INI)
    outcome = lab.smol("--smol")
    assert outcome.status == 0, outcome
    chunks: dict[str, bytes] = {}
    for message in sent(lab, "file"):
        chunks[message["path"]] = chunks.get(message["path"], b"") + base64.b64decode(message["data"])
    assert chunks["out/b.bin"] == bytes(range(256)) * 10000
    assert chunks["out/a.txt"] == b"one"
    assert set(chunks) == {"out/a.txt", "out/b.bin"}


def test_files_are_home_before_their_test_is_over(lab: Lab) -> None:
    lab.project(
        test_a="""
        import os
        from pathlib import Path

        def test_writes(): Path("a.xml").write_text("x")
        def test_dies(): os._exit(3)
        """,
        pytest_ini=INI,
    )
    outcome = lab.smol("--smol", "--tb=no", "-q")
    assert outcome.status == 1, outcome
    kinds = [
        said.get("path") or said["type"] for said in lab.record.forks[0].received if said["type"] != "report"
    ]
    assert kinds[: kinds.index("finish")] == ["fresh", "start", "a.xml"]


def test_each_test_sends_what_changed_since_the_one_before(lab: Lab) -> None:
    lab.project(
        test_a="""
        from pathlib import Path

        def test_1(): Path("a.xml").write_text("one")
        def test_2(): Path("b.xml").write_text("two")
        def test_3(): Path("c.xml").write_text("three")
        """,
        pytest_ini=INI,
    )
    assert lab.smol("--smol").status == 0
    assert [message["path"] for message in sent(lab, "file")] == ["a.xml", "b.xml", "c.xml"]


def test_without_patterns_nothing_is_looked_for(lab: Lab) -> None:
    lab.project(test_a=WRITES)
    assert lab.smol("--smol").status == 0
    assert not sent(lab, "file")


def test_a_pattern_that_is_none_is_a_usage_error(lab: Lab) -> None:
    lab.project(test_a=WRITES, pytest_ini="[pytest]\nsmol_artifacts = ../out/*\n")
    outcome = lab.smol("--smol")
    assert outcome.status == 4
    assert any("smol_artifacts: '../out/*' is not valid" in line for line in outcome.err)


# --- guests that lie ------------------------------------------------------------------------------


def a_file(path: str, data: bytes = b"evil", **changes: object) -> Message:
    text = base64.b64encode(data).decode()
    return {"type": "file", "path": path, "data": text, "last": True, "executable": False, **changes}


def one_test(*between: Message, finish: bool = True) -> list[Message]:
    """A passed test of a guest that sends ``between`` before it reports the teardown."""
    messages = [FRESH, START, report("setup"), report("call"), *between, report("teardown")]
    return [*messages, FINISH, {"type": "done"}] if finish else messages


ONE_TEST = "def test_1(): pass\n"


@pytest.mark.parametrize(
    "path",
    [
        "../evil.xml",
        "/tmp/smol-evil.xml",
        "conftest.py",
        "",
        ".git/hooks/a.xml",
        "a\0.xml",
        "a\x1b[2J.xml",
        "\udcff.xml",
    ],
)
def test_a_name_that_is_not_allowed_is_told(lab: Lab, path: str) -> None:
    lab.project(test_a=ONE_TEST, pytest_ini="[pytest]\nsmol_artifacts = *.xml\n")
    before = sorted(Path(lab.path).rglob("*"))
    outcome = lab.smol("--smol", "-rP", forks=[Script(one_test(a_file(path)))])
    assert outcome.status == 0, outcome
    assert "PytestWarning: files stayed in the VM" in outcome.text
    assert "\x1b" not in outcome.text
    assert "INTERNALERROR" not in outcome.text
    assert {path.name for path in set(Path(lab.path).rglob("*")) - set(before)} <= {".pytest_cache", *CACHE}
    assert not Path("/tmp/smol-evil.xml").exists()


CACHE = {"README.md", "CACHEDIR.TAG", ".gitignore", "v", "cache", "nodeids", "lastfailed", "stepwise"}


def test_a_file_in_pieces_of_different_files_is_none_of_them(lab: Lab) -> None:
    lab.project(test_a=ONE_TEST, pytest_ini="[pytest]\nsmol_artifacts = *.xml\n")
    pieces = [
        a_file("a.xml", b"one", last=False),
        a_file("b.xml", b"two", last=False),
        a_file("a.xml", b"three"),
    ]
    assert lab.smol("--smol", forks=[Script(one_test(*pieces))]).status == 0
    assert (lab.path / "a.xml").read_bytes() == b"three"
    assert not (lab.path / "b.xml").exists()


def test_more_than_a_test_may_send(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "MAX_TEST_BYTES", 10)
    monkeypatch.setattr(incoming, "MAX_TEST_FILES", 3)
    lab.project(test_a=ONE_TEST, pytest_ini="[pytest]\nsmol_artifacts = *.xml\n")
    files = [a_file("a.xml", b"12345678"), a_file("b.xml", b"123")]
    outcome = lab.smol("--smol", "-rP", forks=[Script(one_test(*files))])
    assert outcome.status == 0, outcome
    assert (lab.path / "a.xml").exists()
    assert not (lab.path / "b.xml").exists()
    assert "b.xml: a test may send" in outcome.text
    files = [a_file(f"{number}.xml", b"") for number in range(5)]
    outcome = lab.smol("--smol", "-rP", forks=[Script(one_test(*files))])
    assert [(lab.path / f"{number}.xml").exists() for number in range(5)] == [True] * 3 + [False] * 2


def test_what_is_no_base64_breaks_the_protocol(lab: Lab) -> None:
    lab.project(test_a=ONE_TEST, pytest_ini="[pytest]\nsmol_artifacts = *.xml\n")
    outcome = lab.smol("--smol", forks=[Script(one_test({**a_file("a.xml"), "data": "*"}))])
    assert outcome.status == 1
    assert "is not base64" in outcome.text


def test_a_file_without_a_pattern_breaks_the_protocol(lab: Lab) -> None:
    lab.project(test_a=ONE_TEST)
    outcome = lab.smol("--smol", forks=[Script(one_test(a_file("a.xml")))])
    assert outcome.status == 1
    assert "out of turn" in outcome.text


def test_a_full_disk_is_one_error_of_the_test_whose_file_it_was(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    lab.project(
        test_a="""
        from pathlib import Path

        def test_1(): Path("a.xml").write_text("one")
        def test_2(): Path("b.xml").write_text("two")
        """,
        pytest_ini=INI,
    )
    monkeypatch.setattr(artifact_files, "_place", full)
    outcome = lab.smol("--smol", "-rA")
    assert outcome.status == 1, outcome
    assert outcome.text.count("hint: free some space") == 1
    assert "2 passed, " in outcome.text
    assert "1 error" in outcome.text


def test_a_machine_that_dies_after_its_last_test_is_a_warning(lab: Lab) -> None:
    lab.project(test_a=ONE_TEST, pytest_ini=INI)
    died: Message = {"type": "died", "status": 1, "signal": None}
    messages = [*one_test(finish=False), FINISH, died]
    outcome = lab.smol("--smol", forks=[Script(messages, gone=True)])
    assert outcome.status == 0, outcome
    assert "the VM went wrong after its last test" in outcome.text


# --- what was written -----------------------------------------------------------------------------


def test_the_paths_that_tests_wrote_are_listed(lab: Lab) -> None:
    lab.project(
        test_a="""
        from pathlib import Path

        def test_1(tmp_path):
            Path("new.txt").write_text("x")
            Path("a.xml").write_text("comes home")
            (tmp_path / "usual").write_text("x")
            Path("__pycache__").mkdir(exist_ok=True)
            Path("__pycache__/usual").write_text("x")

        def test_2(): pass

        def test_3(): Path("old.txt").unlink()
        """,
        old_txt="old",
        pytest_ini=INI,
    )
    outcome = lab.smol("--smol", "--smol-show-writes")
    assert outcome.status == 0, outcome
    section = [line.rstrip() for line in outcome.out]
    begin = next(number for number, line in enumerate(section) if "paths written in VMs" in line)
    assert section[begin + 1 : -1] == [
        "test_a.py::test_1",
        f"  changed {lab.path / 'new.txt'}",  # the fake's layer is the project: it is there by then
        "test_a.py::test_3",
        f"  deleted {lab.path / 'old.txt'}",
    ]


def test_a_long_list_of_writes_is_cut(lab: Lab) -> None:
    lab.project(test_a=ONE_TEST)
    paths = [["new", f"/etc/{number}\x1b"] for number in range(25)]
    says = one_test({"type": "writes", "paths": paths, "more": 7})
    outcome = lab.smol("--smol", "--smol-show-writes", forks=[Script(says)])
    assert "  created /etc/19^[" in outcome.out
    assert "/etc/20" not in outcome.text
    assert "  ... and 12 more" in outcome.out


@pytest.mark.parametrize("paths", [["/etc"], [["new"]], [[1, 2]], [["new", "a", "b"]]])
def test_a_list_of_writes_that_is_none(lab: Lab, paths: list[object]) -> None:
    lab.project(test_a=ONE_TEST)
    says = one_test({"type": "writes", "paths": paths, "more": 0})
    outcome = lab.smol("--smol", "--smol-show-writes", forks=[Script(says)])
    assert outcome.status == 1
    assert "a list of writes that is none" in outcome.text


def test_without_the_option_nothing_is_listed(lab: Lab) -> None:
    lab.project(test_a=WRITES, pytest_ini=INI)
    assert "paths written" not in lab.smol("--smol").text
    assert not sent(lab, "writes")


# --- what plugins gathered ------------------------------------------------------------------------


@pytest.mark.parametrize("plugin", ["coverage", "syrupy", "a\x1bplugin"])
def test_what_no_plugin_asked_for_is_a_warning(lab: Lab, plugin: str) -> None:
    lab.project(test_a=ONE_TEST, pytest_ini=INI)
    says = [*one_test(), {"type": "state", "plugin": plugin, "data": {}}]
    says.insert(-2, says.pop())
    outcome = lab.smol("--smol", forks=[Script(says)])
    assert outcome.status == 0, outcome
    assert "gathered in a VM is lost: no such plugin is in use" in outcome.text
    assert "\x1b" not in outcome.text


HIDDEN = {
    ".env": "PASSWORD=home\n",
    "keys/server.pem": "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n",
    ".netrc": "machine there login me password secret\n",
    ".npmrc": "//there/:_authToken=secret\n",
    "a/.env.local": "PASSWORD=home\n",
}


@pytest.mark.parametrize("path", sorted(HIDDEN))
def test_what_a_guest_must_not_see_it_does_not_replace(lab: Lab, path: str) -> None:
    lab.project(test_a=ONE_TEST, pytest_ini="[pytest]\nsmol_artifacts = **\n")
    file = Path(lab.path, path)
    file.parent.mkdir(exist_ok=True)
    file.write_text(HIDDEN[path])
    outcome = lab.smol("--smol", "-rP", forks=[Script(one_test(a_file(path), a_file("fine.txt", b"fine")))])
    assert outcome.status == 0, outcome
    assert "no guest may see" in outcome.text
    assert file.read_text() == HIDDEN[path]
    assert Path(lab.path, "fine.txt").read_bytes() == b"fine"


def test_a_name_on_a_way_that_cannot_be_followed_is_told(lab: Lab) -> None:
    lab.project(test_a=ONE_TEST, pytest_ini="[pytest]\nsmol_artifacts = **\n")
    Path(lab.path, "file").write_text("x")
    Path(lab.path, "loop").symlink_to("loop")
    # 4,095 bytes: as long as a name may be, and too long for a path below any directory.
    long = "/".join(["d" * 250] * 16 + ["d" * 79])
    paths = ("file/a", "file/a/b/c", "loop/a", "loop", long)
    outcome = lab.smol("--smol", "-rP", forks=[Script(one_test(*map(a_file, paths)))])
    assert outcome.status == 0, outcome
    for path in paths:
        assert f"{path[:100]}" in outcome.text
    assert "INTERNALERROR" not in outcome.text
    assert Path(lab.path, "file").read_text() == "x"
    assert Path(lab.path, "loop").is_symlink()


@pytest.mark.parametrize("show", ["", "smol_show = **\n"])
def test_no_guest_replaces_what_runs_keep(lab: Lab, monkeypatch: pytest.MonkeyPatch, show: str) -> None:
    """Also where the root of the project is reached through a symbolic link."""
    lab.project(test_a=ONE_TEST, pytest_ini=f"[pytest]\nsmol_artifacts = **\n{show}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(lab.path.resolve() / "cache"))
    kept = ["cache/pytest-smol/base/memory", "tmp/pytest-smol-run-1/memory", "pytest-smol-new-2/lock"]
    for name in kept:
        Path(lab.path, name).parent.mkdir(parents=True)
        Path(lab.path, name).write_bytes(b"old")
    link = lab.path.with_name(f"link-to-{lab.path.name}")
    link.symlink_to(lab.path)
    says = one_test(*map(a_file, kept), a_file("cache/pytest-smol/new"))
    outcome = lab.smol("--smol", "-rP", f"--rootdir={link}", forks=[Script(says)])
    assert outcome.status == 0, outcome
    assert outcome.text.count("no guest may see") >= len(kept)
    assert {Path(lab.path, name).read_bytes() for name in kept} == {b"old"}
    assert not Path(lab.path, "cache/pytest-smol/new").exists()
