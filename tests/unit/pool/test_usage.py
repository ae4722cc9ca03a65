"""What the end of a run says of files that tests asked for and that are hidden from them."""

from __future__ import annotations

from pytest_smol.pool.usage import describe_hidden


def test_files_are_named_from_the_projects_directory() -> None:
    assert describe_hidden({"/p/.env", "/elsewhere/.netrc", "/p/conf/key.pem"}, "/p") == (
        "smol: hidden from tests: .env, /elsewhere/.netrc, conf/key.pem (smol_show makes exceptions)"
    )


def test_only_some_are_named() -> None:
    assert "4.pem and 3 more (smol_show" in describe_hidden({f"/p/{n}.pem" for n in range(8)}, "/p")


def test_the_hint_says_what_makes_test_data_of_a_file() -> None:
    assert describe_hidden({"/p/tests/fixtures/.netrc", "/p/src/settings.py (its tokens)"}, "/p") == (
        "smol: hidden from tests: src/settings.py (its tokens), tests/fixtures/.netrc"
        " (smol_show makes exceptions; test data that git tracks is shown)"
    )
    assert "git" not in describe_hidden({"/tests/p/.netrc"}, "/tests/p")
