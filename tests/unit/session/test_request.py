"""What guests are told: the fields of the request are those of the message."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_smol.protocol.wire import TO_GUEST
from pytest_smol.session.guests.request import SessionRequest

REQUEST = SessionRequest(("-q",), ("pytest", "-q"), Path("/root"), Path("/cwd"), ("/lib",), {"PATH": "/bin"})


def test_the_message_has_the_fields_and_types_of_the_protocol() -> None:
    message = REQUEST.message("host", {"entropy": "00"}, drop_caches=True)
    assert message.pop("type") == "session"
    table = TO_GUEST["session"]
    assert message.keys() == table.keys()
    for name, value in message.items():
        assert type(value) in table[name], name
    assert json.dumps(message)


def test_what_differs_each_time_is_not_content() -> None:
    message = REQUEST.message("host", {"entropy": "00"})
    content = REQUEST.content("host")
    assert {**content, "type": "session", "fresh": {"entropy": "00"}, "drop_caches": False} == message
    assert not content.keys() & {"fresh", "drop_caches", "rootdir"}


@pytest.mark.parametrize(("user", "uid"), [("host", 1234), ("root", 0)])
def test_the_account(monkeypatch: pytest.MonkeyPatch, user: str, uid: int) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    content = REQUEST.content(user)
    assert content["uid"] == uid
    assert (content["groups"] == [0]) is (user == "root")


def test_the_umask_is_told_and_not_changed() -> None:
    before = os.umask(0o027)
    try:
        assert REQUEST.content("host")["umask"] == 0o027
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_workers_take_what_all_have_in_common() -> None:
    own = replace(
        REQUEST, args=("x",), cwd=Path("/"), env={}, plugins=("p",), seed=3, output_limit=5, dist="load"
    )
    common = json.loads(json.dumps(REQUEST.common()))
    taken = own.with_common(REQUEST.common())
    assert common["cwd"] == "/cwd"
    assert taken == replace(REQUEST, seed=3, output_limit=5, dist="load")


def test_some_fields_in_common_are_taken_too() -> None:
    assert REQUEST.with_common({"cwd": "/other", "seed": 9}) == replace(REQUEST, cwd=Path("/other"))


def test_the_umask_is_read_without_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    previous = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            patch.delattr(os, "umask")
            assert REQUEST.content("host")["umask"] == 0o027
    finally:
        os.umask(previous)
