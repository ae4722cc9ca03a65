from __future__ import annotations

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_smol.virtiofs.hiding.globs import Globs

PATTERNS = [
    *(".env*", "id_rsa", "*.ppk", ".config/gcloud", "conf/*/s?[!0-9].y", "/abs/x", "a/**/b", "d/**", "e/"),
    "Caf\u00e9",
]


@pytest.mark.parametrize(
    ("path", "matches"),
    [
        (b"/p/.env", True),
        (b"/p/.envrc", True),
        (b"/p/env", False),
        (b"/.env/f", False),
        (b"/p/x.ppk", True),
        (b"/p/x.ppk2", False),
        (b"/h/.config/gcloud", True),
        (b"/h/x.config/gcloud", False),
        (b"/p/conf/a/sxa.y", True),
        (b"/p/conf/a/sx1.y", False),
        (b"/p/conf/a/b/sxa.y", False),
        (b"/abs/x", True),
        (b"/p/abs/x", False),
        (b"/q/a/b", True),
        (b"/q/a/x/y/b", True),
        (b"/q/a/xb", False),
        (b"/d/x/y", True),
        (b"/p/e", True),
        (b"/p/id_rsa.pub", False),
        (b"/p/id_rsa\n", False),
        (b"/p/.env\xff", True),
        (b"/P/X.PPK", True),
        (b"/h/.Config/GCloud", True),
        ("/p/caf\u00e9".encode(), True),
        ("/p/CAF\u00e9".encode(), True),
    ],
)
def test_what_matches(path: bytes, matches: bool) -> None:
    globs = Globs(PATTERNS)
    assert globs.match(path) is matches
    assert globs.may_match(path.rpartition(b"/")[2]) or not matches


def test_what_is_in_a_matching_directory() -> None:
    globs = Globs(["certs", "conf/*.d"])
    assert globs.match_above(b"/tests/certs/deep/key.pem")
    assert globs.match_above(b"/tests/certs")
    assert globs.match_above(b"/conf/x.d/f")
    assert not globs.match_above(b"/tests/mycerts/key.pem")


def test_no_patterns_match_nothing() -> None:
    assert not Globs(["", "/"]).match(b"/x")
    assert not Globs([]).match_above(b"/x")
    assert not Globs([]).may_match(b"x")


def test_what_is_no_glob_is_refused() -> None:
    with pytest.raises(ValueError, match="bad character range"):
        Globs(["[z-a]"])


NAMES = st.text(alphabet="ab.*?[]!-", min_size=1, max_size=6).filter(lambda text: "[" not in text)


@given(NAMES, st.text(alphabet="ab.", min_size=1, max_size=6))
def test_names_match_as_with_fnmatch(pattern: str, name: str) -> None:
    globs = Globs([pattern])
    expected = re.match(fnmatch.translate(pattern), name) is not None
    if pattern != "**":
        assert globs.match(b"/x/" + name.encode()) is expected
        assert globs.may_match(name.encode()) is expected
