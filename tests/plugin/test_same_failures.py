"""With --smol failures, warnings and ends of a run look as in a plain run."""

from __future__ import annotations

import pytest

from tests.plugin.lab import Lab

EXCEPTIONS = """
    import sys
    import pytest

    if sys.version_info < (3, 11):
        from exceptiongroup import ExceptionGroup

    class Unpicklable(Exception):
        def __init__(self, a, *, b):
            super().__init__(a)
            self.file = open(__file__)
            self.function = lambda: b
        def __reduce__(self): raise TypeError("not to be pickled")

    class BadRepr:
        def __repr__(self): raise RuntimeError("in repr")

    class BadStr(Exception):
        def __str__(self): raise RuntimeError("in str")

    def test_unpicklable(): raise Unpicklable("message", b=2)

    def test_chain():
        try:
            try:
                {}["a"]
            except KeyError as error:
                raise ValueError("second") from error
        except ValueError:
            raise TypeError("third")

    def test_suppressed():
        try:
            1 / 0
        except ZeroDivisionError:
            raise OSError(2, "No such", "file") from None

    def test_group():
        def failing(n): raise ValueError(n)
        errors = []
        for n in range(3):
            try:
                failing(n)
            except ValueError as error:
                errors.append(error)
        raise ExceptionGroup("several", [*errors, ExceptionGroup("inner", [TypeError("x")])])

    def test_notes():
        error = ValueError("noted")
        error.__notes__ = ["a note", "another\\nin two lines"]
        raise error

    def test_bad_repr(): assert BadRepr() == 1
    def test_bad_str(): raise BadStr
    def test_base(): raise BaseException("base")
    def test_generator_exit(): raise GeneratorExit
    def test_stop(): raise StopIteration
    def test_syntax(): compile("a b", "file", "exec")
    def test_long_line(): assert "x" * 5000 == "y" * 5000
    def test_exec(): exec("def f():\\n    raise ValueError('no source')\\nf()", {})
    def test_hidden():
        __tracebackhide__ = True
        raise ValueError("hidden")
    def test_fail(): pytest.fail("with trace")
    def test_empty(): raise ValueError
    def test_lines(): raise ValueError("a\\n\\nb\\n")
"""


@pytest.mark.parametrize("args", ["", "--tb=short -rA", "--tb=line -vv", "-l", "--color=yes"])
def test_exceptions(lab: Lab, args: str) -> None:
    lab.project(test_a=EXCEPTIONS)
    lab.same(args, apart=True)  # with Python 3.10 an exception group shows all frames


OUTPUT = """
    import os, sys
    def test_huge():
        sys.stdout.write("x" * 3_000_000 + "\\n")
        sys.stderr.write("y\\n" * 100_000)
        assert 0
    def test_unicode():
        print("zürich € \\u202e \\U0001f600")
        assert 0, "€"
    def test_not_utf8():
        os.write(1, b"bytes \\xff\\xfe\\n")
        assert 0
    def test_surrogate():
        raise ValueError("lone \\udc80 surrogate")
    def test_ids(): pass
"""


@pytest.mark.parametrize(
    "args", ["", "--show-capture=stderr", "--junitxml=result.xml -o junit_logging=all -q"]
)
def test_output(lab: Lab, args: str) -> None:
    lab.project(test_a=OUTPUT)
    [(plain, smol)] = lab.both(args)
    assert smol.comparable() == plain.comparable()


WARNS = """
    import warnings
    import pytest

    class Own(UserWarning): pass

    warnings.warn("while it is imported", FutureWarning)

    @pytest.fixture(scope="module")
    def warned():
        warnings.warn("in setup")
        yield
        warnings.warn("in teardown")

    @pytest.mark.parametrize("n", range(5))
    def test_same_line(n): warnings.warn("the same")

    @pytest.mark.parametrize("n", range(5))
    def test_other_text(n): warnings.warn(f"number {n}")

    def test_own(warned): warnings.warn(Own("of its own class"))
    def test_stacklevel(): warnings.warn("elsewhere", stacklevel=2)
    @pytest.mark.filterwarnings("error")
    def test_error(): warnings.warn("raised")
    @pytest.mark.filterwarnings("ignore:not shown")
    def test_ignored(): warnings.warn("not shown")
    def test_resource(): warnings.warn(ResourceWarning("hidden by default?"))
    def test_pending(): warnings.warn(PendingDeprecationWarning("pending"))
    def test_several():
        for n in range(3): warnings.warn("several\\nlines")
    def test_unraisable():
        class Bad:
            def __del__(self): raise ValueError("in del")
        Bad()
    def test_thread():
        import threading
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start(); thread.join()
"""


@pytest.mark.parametrize(
    "args",
    [
        "",
        "-q",
        "-v --color=yes",
        "-W error -p no:unraisableexception -p no:threadexception",
        "-W ignore",
        "-W error::FutureWarning",
        "-W always -rw",
        pytest.param(
            "-p no:warnings",
            marks=pytest.mark.skipif(
                pytest.version_tuple < (8, 4),
                reason="it warns of threads between tests, on a standard error that is not shown",
            ),
        ),
        "-p no:warnings -p no:unraisableexception -p no:threadexception",
        "--disable-warnings",
    ],
)
def test_warnings(lab: Lab, args: str) -> None:
    lab.project(test_a=WARNS)
    lab.same(args, apart=True)


@pytest.mark.parametrize(
    "filters", ["error", "ignore", "once", "error\n    ignore::FutureWarning\n    ignore:.*same"]
)
def test_filterwarnings_of_the_project(lab: Lab, filters: str) -> None:
    lab.project(test_a=WARNS, pytest_ini=f"[pytest]\nfilterwarnings =\n    {filters}\n")
    lab.same("-p no:unraisableexception -p no:threadexception", apart=True)


ENDS = {
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "KeyboardInterrupt with words": "raise KeyboardInterrupt('by hand')",
    "exit": "pytest.exit('reason')",
    "exit with a status": "pytest.exit('reason', returncode=6)",
    "sys.exit": "sys.exit('words')",
    "sys.exit 0": "sys.exit(0)",
    "SystemExit": "raise SystemExit",
    "shouldstop": "request.session.shouldstop = 'enough of it'",
    "shouldfail": "request.session.shouldfail = 'failed enough'",
}


@pytest.mark.parametrize("args", ["", "-v", "-q"])
@pytest.mark.parametrize("deed", ENDS.values(), ids=ENDS)
def test_ends_in_a_test(lab: Lab, deed: str, args: str) -> None:
    lab.project(
        test_a=f"""
            import sys, pytest
            def test_before(): pass
            def test_ends(request):
                print("said before")
                {deed}
            def test_after(): pass
        """,
        test_b="def test_later(): pass\n",
    )
    lab.same(args)


@pytest.mark.parametrize("deed", [ENDS["KeyboardInterrupt"], ENDS["exit"], ENDS["sys.exit"]])
@pytest.mark.parametrize("where", ["setup", "teardown"])
def test_ends_in_a_fixture(lab: Lab, where: str, deed: str) -> None:
    lab.project(
        test_a=f"""
            import sys, pytest
            @pytest.fixture
            def fix():
                {deed if where == "setup" else "yield"}
                {deed}
            def test_ends(fix): pass
            def test_after(): pass
        """
    )
    lab.same("")


@pytest.mark.parametrize("deed", [ENDS["KeyboardInterrupt"], ENDS["exit with a status"]])
@pytest.mark.parametrize("where", ["import", "fixture of a module"])
def test_ends_elsewhere(lab: Lab, where: str, deed: str) -> None:
    head = (
        f"import pytest, sys\n{deed}\n"
        if where == "import"
        else (f"import pytest, sys\n@pytest.fixture(scope='module', autouse=True)\ndef fix():\n    {deed}\n")
    )
    lab.project(test_a="def test_before(): pass\n", test_b=head + "def test_ends(): pass\n")
    lab.same("")


@pytest.mark.parametrize(
    "args", ["", "--no-header", "--no-summary", "-qq", "-p no:terminal", "--no-header -q"]
)
def test_what_is_left_out(lab: Lab, args: str) -> None:
    lab.project(
        test_a="import pytest\ndef test_a(): pass\ndef test_b(): assert 0\ndef test_c(): pytest.exit('x')\n"
    )
    lab.same(args)
