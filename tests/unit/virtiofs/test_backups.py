"""From the name of a backup, or of compiled code, to the file it was made from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_smol.virtiofs.hiding.backups import original, source


@pytest.mark.parametrize(
    "name",
    [
        *(".npmrc~", ".npmrc.~1~", "#.npmrc#", ".npmrc.bak", ".npmrc.BAK", ".npmrc.bak2", ".npmrc.bak.3"),
        *(".npmrc.orig", ".npmrc.old", ".npmrc.swp", ".npmrc.swo", ".npmrc.save", ".npmrc.1", ".npmrc_old"),
        *(".npmrc-copy", ".npmrc.tmp", ".npmrc.rej", ".npmrc.un~", ".npmrc.dpkg-old", ".npmrc.rpmsave"),
        *(
            ".npmrc.txt",
            ".npmrc.disabled",
            ".npmrc.bak~",
            ".npmrc.orig.bak",
            ".npmrc.20240131",
            ".npmrc.old-1",
        ),
    ],
)
def test_a_backup_of_npmrc(name: str) -> None:
    assert b".npmrc" in original(name.encode())


@pytest.mark.parametrize(
    "name", ["id_rsa~", ".id_rsa.swp", ".id_rsa.swn", "id_rsa.bak", "#id_rsa#", "id_rsa.old"]
)
def test_a_backup_of_a_key(name: str) -> None:
    assert b"id_rsa" in original(name.encode())


@pytest.mark.parametrize(
    "name", [b"", b"~", b"#", b"##", b"a", b"module.py", b".env", b"old", b"tmp", b"backup", b"x.py"]
)
def test_no_backup(name: bytes) -> None:
    assert original(name) == ()


@given(st.binary(max_size=40))
def test_originals_are_shorter(name: bytes) -> None:
    assert all(0 < len(found) < len(name) for found in original(name))


@pytest.mark.parametrize(
    ("name", "module"),
    [
        (b"x.cpython-312.pyc", b"x.py"),
        (b"x.cpython-312.opt-2.pyc", b"x.py"),
        (b"test_x.cpython-312-pytest-8.4.1.pyc", b"test_x.py"),
        (b"x.pyc", b"x.py"),
        (b"x.PYO", b"x.py"),
        (b"x.py", None),
        (b"pyc", None),
        (b".pyc", None),
    ],
)
def test_the_source_of_compiled_code(name: bytes, module: bytes | None) -> None:
    assert source(name) == module
