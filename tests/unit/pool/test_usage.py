"""What the end of a run says of files that tests asked for and that are hidden from them."""

from __future__ import annotations

from pytest_smol.pool.usage import describe_hidden


def test_files_are_named_from_the_projects_directory() -> None:
    assert describe_hidden({"/p/.env", "/elsewhere/.netrc", "/p/conf/key.pem"}, "/p") == (
        "smol: hidden from tests: .env, /elsewhere/.netrc, conf/key.pem (smol_show makes exceptions)"
    )


def test_only_some_are_named() -> None:
    assert "4.pem and 3 more (smol_show" in describe_hidden({f"/p/{n}.pem" for n in range(8)}, "/p")
