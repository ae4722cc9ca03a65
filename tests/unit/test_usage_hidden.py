"""What the end of a run says of files that tests asked for and that are hidden from them."""

from __future__ import annotations

from pytest_smol.usage import Usage


def test_nothing_is_said_where_nothing_was_asked_for() -> None:
    usage = Usage()
    assert usage.describe_hidden("/p") == ""


def test_files_are_named_from_the_projects_directory_() -> None:
    usage = Usage()
    usage.hidden.update(["/p/.env", "/elsewhere/.netrc", "/p/.env", "/p/conf/key.pem"])
    assert usage.describe_hidden("/p") == (
        "smol: hidden from tests: .env, /elsewhere/.netrc, conf/key.pem (smol_show makes exceptions)"
    )


def test_only_some_are_named() -> None:
    usage = Usage()
    usage.hidden.update(f"/p/{n}.pem" for n in range(8))
    assert "4.pem and 3 more (smol_show" in usage.describe_hidden("/p")
