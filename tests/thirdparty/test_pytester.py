"""A plugin's own tests, which run pytest in a test: with --smol that pytest runs in the machine."""

from __future__ import annotations

import pytest

from tests.thirdparty.bench import Bench

pytestmark = pytest.mark.vm

TESTS = """
    import pytest

    @pytest.fixture
    def inner(pytester):
        pytester.makeconftest("import pytest; answer = pytest.fixture(lambda: 42, name='answer')")
        pytester.makepyfile('''
            def test_passes(answer): assert answer == 42
            def test_fails(answer): assert answer == 43
        ''')
        return pytester

    @pytest.mark.parametrize("method", ["inprocess", "subprocess"])
    def test_runs_pytest(inner, method):
        result = getattr(inner, f"runpytest_{method}")("-p", "no:cacheprovider")
        result.assert_outcomes(passed=1, failed=1)
        result.stdout.fnmatch_lines(["*assert 42 == 43*"])

    def test_shows_what_failed_within(inner):
        inner.runpytest_inprocess("-k", "fails").assert_outcomes()
"""


def test_pytest_runs_in_tests(bench: Bench) -> None:
    bench.write("test_it.py", TESTS)
    outcome = bench.same("-v -p pytester")
    assert "1 failed, 2 passed" in outcome.text
