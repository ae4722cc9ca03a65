"""Files and lists of writes that come home from real guests."""

from __future__ import annotations

import os
import stat

import pytest

from tests.vm.project import Project

pytestmark = pytest.mark.vm

INI = "[pytest]\naddopts = -p no:cacheprovider\nsmol_artifacts =\n    out/**\n    *.xml\n"

TESTS = """
    import os
    from pathlib import Path

    Path("early.xml").write_text("written while it was collected")

    def test_writes(tmp_path):
        Path("out/deep").mkdir(parents=True)
        Path("out/deep/a.txt").write_text("one")
        Path("out/tool").write_text("x")
        Path("out/tool").chmod(0o755)
        Path("other.txt").write_text("stays")
        (tmp_path / "usual").write_text("x")

    def test_changes():
        Path("out/deep/a.txt").write_text("two")
        Path("old.xml").write_text("new")
        Path("gone.xml").unlink()
        Path("/tmp/elsewhere").write_text("x")

    def test_special():
        os.symlink("/etc/passwd", "link.xml")
        os.mkfifo("fifo.xml")
        Path("big.xml").write_bytes(bytes(3 << 20))

    def test_dies(): os._exit(3)
"""


@pytest.fixture
def writing(project: Project) -> Project:
    project.write("pytest.ini", INI)
    project.write("test_it.py", "\n".join(line.removeprefix("    ") for line in TESTS.splitlines()))
    project.write("old.xml", "old")
    project.write("gone.xml", "kept on the host")
    return project


def test_files_come_home_and_other_writes_are_listed(writing: Project) -> None:
    root = writing.root
    result = writing.run("--smol", "--smol-show-writes")
    assert result.outcomes() == {
        "test_writes": "passed",
        "test_changes": "passed",
        "test_special": "passed",
        "test_dies": "failed",
    }
    assert (root / "out/deep/a.txt").read_text() == "two"
    assert (root / "old.xml").read_text() == "new"
    assert (root / "gone.xml").read_text() == "kept on the host"
    assert (root / "early.xml").exists()
    assert (root / "big.xml").stat().st_size == 3 << 20
    assert stat.S_IMODE((root / "out/tool").stat().st_mode) & 0o111
    assert (root / "out/tool").stat().st_uid == os.getuid()
    names = {str(path.relative_to(root)) for path in root.rglob("*") if "__pycache__" not in path.parts}
    expected = {
        "out",
        "out/deep",
        "out/deep/a.txt",
        "out/tool",
        "old.xml",
        "gone.xml",
        "early.xml",
        "big.xml",
    }
    assert names == expected | {"pytest.ini", "test_it.py"}
    for name in ("link.xml", "fifo.xml"):
        assert f"{name}: it is no regular file" in result.stdout
    listed = result.stdout.partition("paths written in VMs")[2].splitlines()[1:]
    assert listed[:8] == [
        "test_it.py::test_writes",
        f"  created {root}/other.txt",
        "test_it.py::test_changes",
        "  created /tmp/elsewhere",
        f"  deleted {root}/gone.xml",
        "test_it.py::test_special",
        f"  created {root}/fifo.xml",
        f"  created {root}/link.xml",
    ]


def test_a_test_that_takes_the_machine_apart_still_sends_its_files(project: Project) -> None:
    project.write("pytest.ini", INI)
    project.write(
        "test_it.py",
        "import pytest, shutil\n"
        "from pathlib import Path\n"
        "@pytest.mark.smol(user='root')\n"
        "def test_destroys():\n"
        "    Path('a.xml').write_text('last words')\n"
        "    Path('secret.xml').write_text('for root')\n"
        "    Path('secret.xml').chmod(0o600)\n"
        "    shutil.rmtree('/etc')\n",
    )
    result = project.run("--smol-show-writes")
    assert result.outcomes() == {"test_destroys": "passed"}
    assert (project.root / "a.xml").read_text() == "last words"
    assert (project.root / "secret.xml").stat().st_uid == os.getuid()
    assert "  deleted /etc" in result.stdout
