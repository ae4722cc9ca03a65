"""Projects that are run plain and with fake machines. None does harm: fake machines are this host."""

EVERY_OUTCOME = """
    import sys
    import unittest
    import warnings

    import pytest

    @pytest.fixture
    def breaks_in_setup():
        print("in setup")
        raise ValueError("setup broke")

    @pytest.fixture
    def breaks_in_teardown():
        yield
        print("in teardown")
        raise ValueError("teardown broke")

    def test_passes():
        print("said on stdout")
        print("said on stderr", file=sys.stderr)

    def test_fails():
        "A failing test with a docstring."
        print("said before it failed")
        value = {"a": [1, 2, 3], "b": "x" * 30}
        assert value == {"a": [1, 2, 4], "b": "x" * 30}

    def test_fails_in_chain():
        try:
            int("seven")
        except ValueError as error:
            raise RuntimeError("chained") from error

    def test_fails_deeply():
        def inner(argument):
            local = argument + 1
            raise KeyError(local)
        inner(41)

    def test_pytest_fail():
        pytest.fail("no trace please", pytrace=False)

    def test_setup(breaks_in_setup): pass
    def test_teardown(breaks_in_teardown): pass
    def test_call_and_teardown(breaks_in_teardown): assert not "this"

    @pytest.mark.skip(reason="skipped by mark")
    def test_skip_mark(): pass

    @pytest.mark.skipif(sys.version_info > (3,), reason="skipped by condition")
    def test_skip_if(): pass

    def test_skip_call(): pytest.skip("skipped by call")
    def test_import_or_skip(): pytest.importorskip("no_such_module_anywhere")

    @pytest.mark.xfail(reason="known")
    def test_xfail(): assert 0

    @pytest.mark.xfail
    def test_xpass(): pass

    @pytest.mark.xfail(strict=True, reason="must not pass")
    def test_xpass_strict(): pass

    @pytest.mark.xfail(raises=KeyError)
    def test_xfail_raises(): raise KeyError("x")

    @pytest.mark.xfail(raises=KeyError)
    def test_xfail_raises_other(): raise ValueError("x")

    @pytest.mark.xfail(run=False, reason="not run")
    def test_xfail_not_run(): raise SystemExit

    def test_xfail_call(): pytest.xfail("by call")

    def test_warns():
        warnings.warn("a warning of the test")
        warnings.warn(DeprecationWarning("an old thing"))

    def test_system_exit(): raise SystemExit(3)
    def test_unicode(): assert "zürich €" == "tab\\tbed"

    def test_returns(): return 7

    class TestClass:
        def test_in_class(self): pass
        def test_fails_in_class(self): assert self is None

    class Unit(unittest.TestCase):
        def setUp(self): self.three = 3
        def test_equal(self): self.assertEqual(self.three, 3)
        def test_unequal(self): self.assertEqual(self.three, 4)
        @unittest.skip("unittest's skip")
        def test_skipped(self): pass
        @unittest.expectedFailure
        def test_expected(self): self.fail()
        @unittest.expectedFailure
        def test_unexpected(self): pass
"""

SEVERAL_MODULES = {
    "pytest_ini": "[pytest]\nmarkers =\n    slow: a marker\n    fast: another\n",
    "conftest": """
        import pytest

        @pytest.fixture(scope="session")
        def of_session():
            print("session up")
            yield "session"
            print("session down")
    """,
    "test_first": """
        import pytest

        def test_alpha(of_session): pass
        @pytest.mark.slow
        def test_beta(): assert 0, "beta"
        @pytest.mark.fast
        @pytest.mark.parametrize("n", [1, 2, 3])
        def test_gamma(n): assert n != 2
    """,
    "sub__test_second": """
        import pytest

        @pytest.mark.slow
        def test_alpha(of_session): pass

        class TestGroup:
            def test_beta(self): assert 0
            @pytest.mark.fast
            def test_delta(self): pass
            class TestInner:
                def test_deep(self): pass
    """,
    "sub__test_third": """
        def test_omega(): pass
        def test_psi(): raise OSError("psi")
    """,
}

SCOPES = """
    import pytest

    @pytest.fixture(scope="session")
    def s():
        print("up session")
        yield
        print("down session")

    @pytest.fixture(scope="module")
    def m(s):
        print("up module")
        yield
        print("down module")

    @pytest.fixture(scope="class")
    def c(m):
        print("up class")
        yield
        print("down class")

    @pytest.fixture
    def f(c):
        print("up function")
        yield
        print("down function")

    @pytest.fixture(autouse=True)
    def always():
        print("always")

    def test_one(f): assert 0
    def test_two(f): assert 0

    class TestA:
        def test_three(self, f): assert 0
        def test_four(self, f): assert 0

    class TestB:
        @classmethod
        def setup_class(cls): print("setup_class")
        @classmethod
        def teardown_class(cls): print("teardown_class")
        def setup_method(self): print("setup_method")
        def test_five(self, f): assert 0

    def setup_module(): print("setup_module")
    def teardown_module(): print("teardown_module")
"""

REORDERED = """
    import pytest

    @pytest.fixture(scope="module", params=["x", "y"])
    def letter(request): return request.param

    @pytest.fixture(scope="session", params=[1, 2], ids=["one", "two"])
    def number(request): return request.param

    def test_letter(letter): pass
    def test_number(number): pass
    def test_both(letter, number): assert (letter, number) != ("y", 2)
    def test_none(): pass
"""
