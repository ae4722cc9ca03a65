from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_smol.virtiofs.hiding.contents import holds_secret
from pytest_smol.virtiofs.hiding.redaction import redacted

LINES = [
    (b"url = https://user:tok@example.com/x.git", b"url = https://xxxxxxxx@example.com/x.git"),
    (b"url = https://gho_abc@example.com/x.git", b"url = https://xxxxxxx@example.com/x.git"),
    (b"url = https://u:p@ss@example.com/x", b"url = https://xxxxxx@example.com/x"),
    (b"url = ssh://git@example.com/x.git", b"url = ssh://git@example.com/x.git"),
    (b"url = ssh://git:pw@example.com/x.git", b"url = ssh://git:xx@example.com/x.git"),
    (b"url = git@example.com:x.git", b"url = git@example.com:x.git"),
    (b'[url "https://t:x@h/"]', b'[url "https://xxx@h/"]'),
    (b"\textraheader = AUTHORIZATION: basic abc=", b"\textraheader = xxxxxxxxxxxxxx xxxxx xxxx"),
    (b'[http "https://h/"] extraHeader = A: b', b'[http "https://h/"] extraHeader = xx x'),
    (b"smtpPass=hunter2", b"smtpPass=xxxxxxx"),
    (b"token = a\\\n  b\nname = c", b"token = xx\n  x\nname = c"),
    (b'npmAuthToken: "abc"', b"npmAuthToken: xxxxx"),
    (b"//registry/:_authToken=abc", b"//registry/:_authToken=xxx"),
    (b"//registry/:_password=abc", b"//registry/:_password=xxx"),
    (b"- https://conda.example/t/to-ken-1234/main", b"- https://conda.example/t/xxxxxxxxxxx/main"),
    (b"email = me@example.com", b"email = me@example.com"),
]


@pytest.mark.parametrize(("line", "shown"), LINES)
def test_credentials_are_blanked_and_nothing_else(line: bytes, shown: bytes) -> None:
    assert redacted(line) == shown
    assert redacted(b"a = b\n" + line + b"\nc = d") == b"a = b\n" + shown + b"\nc = d"


@given(st.binary(max_size=300))
def test_the_length_stays(data: bytes) -> None:
    assert len(redacted(data)) == len(data)


def test_many_lines_that_nearly_match_are_no_burden() -> None:
    for part in (
        b"token",
        b"token ",
        b"a://",
        b"a",
        b"/t/a",
        b"\\\n",
        b"a@",
        b"://a@",
        b"password=\\",
        b" ",
        b"\n",
    ):
        data = (part * 50_000)[: 64 << 10]
        assert len(redacted(data)) == len(data)
    for part in (b"\n", b" ", b"-----BEGIN ", b"-----BEGIN A\n", b'"private_key" ', b"\xef\xbb\xbf", b"-"):
        assert not holds_secret((part * 50_000)[: 64 << 10])


@pytest.mark.parametrize(
    "data",
    [
        b"-----BEGIN PRIVATE KEY-----\n",
        b"-----BEGIN RSA PRIVATE KEY-----\r\n",
        b"-----BEGIN OPENSSH PRIVATE KEY-----",
        b"-----BEGIN PGP PRIVATE KEY BLOCK-----",
        b"-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n  -----BEGIN EC PRIVATE KEY-----",
        b"---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----",
        b"PuTTY-User-Key-File-3: ssh-ed25519",
        b'{"type": "service_account", "private_key" : "x"}',
    ],
)
def test_secrets_are_known_by_content(data: bytes) -> None:
    assert holds_secret(data)


@pytest.mark.parametrize(
    "data",
    [b"", b"-----BEGIN PUBLIC KEY-----", b"-----BEGIN CERTIFICATE-----", b"# a -----BEGIN PRIVATE KEY"],
)
def test_what_is_public_is_none(data: bytes) -> None:
    assert not holds_secret(data)
