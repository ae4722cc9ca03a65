"""With --smol fixtures, state and helpers of tests are set up and torn down in the same order."""

from __future__ import annotations

import pytest

from tests.plugin.lab import Lab

#: Notes each step; the last test shows them all.
STEPS = """
    import pytest

    steps = []

    def pytest_fixture_setup(fixturedef, request):
        steps.append(f"setup {fixturedef.argname} {fixturedef.scope}")

    def pytest_fixture_post_finalizer(fixturedef, request):
        steps.append(f"finished {fixturedef.argname}")

    def pytest_runtest_setup(item): steps.append(f"runtest_setup {item.name}")
    def pytest_runtest_teardown(item, nextitem):
        steps.append(f"runtest_teardown {item.name} before {nextitem and nextitem.name}")

    @pytest.fixture(scope="session", params=["a", "b"])
    def of_session(request): yield request.param

    @pytest.fixture(scope="package")
    def of_package(of_session): yield of_session

    @pytest.fixture(scope="module", params=[1, 2])
    def of_module(request, of_package): yield (of_package, request.param)

    @pytest.fixture(scope="class")
    def of_class(of_module): yield of_module

    @pytest.fixture
    def all_steps():
        yield steps
"""

USES = """
    import pytest

    count = 0

    @pytest.fixture(autouse=True)
    def counted():
        global count
        count += 1
        yield
        count += 100

    class TestOne:
        state = []
        def test_a(self, of_class): self.state.append(of_class)
        def test_b(self, of_class): print(self.state); assert len(self.state) > 9, count

    @pytest.mark.parametrize("of_module", ["given"], indirect=True)
    def test_indirect(of_module): print(of_module)

    def test_module_state(): assert count > 10_000, count

    def test_last(all_steps): pytest.fail("\\n".join(all_steps), pytrace=False)
"""


def test_order_of_fixtures_of_every_scope(lab: Lab) -> None:
    lab.project(conftest=STEPS, test_a=USES)
    lab.same("-v", "--setup-show", "--setup-plan -q")


def test_order_of_fixtures_in_several_modules(lab: Lab) -> None:
    lab.project(conftest=STEPS, test_a=USES, sub__test_b=USES)
    lab.same("-v --smol-scope=session")


def test_teardowns_that_fail(lab: Lab) -> None:
    lab.project(
        test_a="""
            import pytest
            @pytest.fixture(scope="module")
            def module():
                yield
                print("module down")
                raise OSError("of the module")
            @pytest.fixture(scope="class")
            def clazz():
                yield
                raise OSError("of the class")
            @pytest.fixture
            def two(request):
                request.addfinalizer(lambda: 1 / 0)
                yield
                raise KeyError("second")
            class TestC:
                def test_c(self, clazz, module): pass
                def test_d(self, two): pass
            def teardown_module(): raise ValueError("teardown_module")
            def test_e(module): assert 0
        """,
        test_b="def test_after(): pass\n",
    )
    lab.same("", "-v", "--tb=short --junitxml=result.xml", apart=True)


@pytest.mark.parametrize("args", ["-x", "-x -v", "--maxfail=1 -s"])
def test_a_run_that_stops_tears_down(lab: Lab, args: str) -> None:
    lab.project(
        test_a="""
            import pytest
            @pytest.fixture(scope="module")
            def module():
                yield
                print("module down")
            def teardown_module(): print("teardown_module")
            class TestC:
                @classmethod
                def teardown_class(cls): print("teardown_class")
                def test_c(self, module): assert 0
                def test_d(self): pass
        """
    )
    outcome = lab.same(args)
    assert "module down" in outcome.text


def test_setups_that_fail(lab: Lab) -> None:
    lab.project(
        test_a="""
            import pytest
            def setup_module(): print("once"); raise ValueError("setup_module")
            def test_a(): pass
            def test_b(): pass
        """,
        test_b="""
            import pytest
            @pytest.fixture(scope="module")
            def module(): print("once"); raise ValueError("of the module")
            def test_a(module): pass
            def test_b(module): pass
            class TestC:
                @classmethod
                def setup_class(cls): raise ValueError("setup_class")
                def test_c(self): pass
                def test_d(self): pass
        """,
    )
    lab.same("", "-v", "-rA")


UNITTEST = """
    import unittest

    def setUpModule(): print("setUpModule")
    def tearDownModule(): print("tearDownModule")

    class Classes(unittest.TestCase):
        @classmethod
        def setUpClass(cls): print("setUpClass"); cls.seen = []
        @classmethod
        def tearDownClass(cls): print("tearDownClass", cls.seen)
        def setUp(self): self.addCleanup(print, "cleaned"); print("setUp")
        def tearDown(self): print("tearDown")
        def test_a(self): self.seen.append("a")
        def test_b(self): self.seen.append("b"); self.assertEqual(self.seen, [])
        def test_skip(self): self.skipTest("at run time")
        def test_raises(self):
            with self.assertRaises(ValueError): raise KeyError("other")
        @unittest.skipIf(True, "a condition")
        def test_skip_if(self): pass

    class Broken(unittest.TestCase):
        @classmethod
        def setUpClass(cls): raise OSError("setUpClass")
        def test_never(self): pass

    @unittest.skip("a class")
    class Skipped(unittest.TestCase):
        def test_never(self): pass

    class Async(unittest.IsolatedAsyncioTestCase):
        async def asyncSetUp(self): self.value = 1
        async def test_a(self): self.assertEqual(self.value, 2)
"""


@pytest.mark.parametrize("args", ["", "-v -rA", "--tb=short -rs"])
def test_unittest(lab: Lab, args: str) -> None:
    lab.project(test_a=UNITTEST)
    lab.same(args)


BUILT_IN = """
    import logging, os, sys, warnings
    import pytest

    def test_capsys(capsys):
        print("out"); print("err", file=sys.stderr)
        assert capsys.readouterr() == ("out\\n", "err\\n")
        print("left")
        assert 0

    def test_capfd(capfd):
        os.write(1, b"out"); os.write(2, b"err")
        assert capfd.readouterr() == ("out", "err")

    def test_capsysbinary(capsysbinary):
        sys.stdout.buffer.write(b"\\xff\\x00")
        assert capsysbinary.readouterr().out == b"\\xff\\x00"

    def test_caplog(caplog):
        with caplog.at_level(logging.DEBUG):
            logging.getLogger("a").debug("%s", "said")
        assert caplog.record_tuples == [("a", 10, "said")]
        assert caplog.get_records("setup") == []
        assert 0

    def test_tmp_path(tmp_path, tmp_path_factory):
        (tmp_path / "f").write_text("x")
        assert tmp_path.parent == tmp_path_factory.getbasetemp()
        assert tmp_path.name == "test_tmp_path0"

    def test_tmpdir(tmpdir): assert tmpdir.join("x").write("y") is None

    def test_monkeypatch(monkeypatch, tmp_path):
        monkeypatch.setenv("SOME", "thing")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(os, "sep", "|")
        monkeypatch.syspath_prepend(tmp_path)
    def test_undone():
        assert "SOME" not in os.environ
        assert os.sep == "/"

    def test_recwarn(recwarn):
        warnings.warn("x", UserWarning)
        assert len(recwarn) == 1
    def test_warns():
        with pytest.warns(DeprecationWarning): warnings.warn("x", UserWarning)
    def test_raises():
        with pytest.raises(ValueError, match="no"): raise ValueError("yes")
    def test_approx(): assert [0.1 + 0.2, 1] == pytest.approx([0.3, 2])

    def test_request(request, pytestconfig):
        assert request.node.nodeid.endswith("test_request")
        assert request.config is pytestconfig
        assert request.node.listchain()[-2].name == "test_a.py"
        print(request.fixturenames, request.path.name, request.module.__name__)
        assert 0

    @pytest.mark.usefixtures("tmp_path")
    def test_dynamic(request):
        request.node.add_marker(pytest.mark.xfail(reason="added"))
        assert 0
    def test_dynamic_strict(request):
        request.applymarker(pytest.mark.xfail(strict=True, reason="added"))
    def test_getfixturevalue(request): assert request.getfixturevalue("no_such")
    def test_deprecated():
        with pytest.deprecated_call(): pass
    @pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.skip), 2])
    @pytest.mark.skipif("sys.version_info > (3,)", reason="text")
    def test_marks(x): pass
"""


def test_built_in_fixtures(lab: Lab) -> None:
    lab.project(test_a=BUILT_IN)
    lab.same("-v -rA")


def test_assertions_are_rewritten_where_plain_pytest_does(lab: Lab) -> None:
    lab.project(
        pytest_ini="[pytest]\npythonpath = .\n",
        conftest="""
            import pytest
            pytest_plugins = ["of_plugin"]
            pytest.register_assert_rewrite("registered")
            def check(value): assert value == {"in": "conftest"}
            @pytest.fixture
            def checked(): return check
            def pytest_assertrepr_compare(config, op, left, right):
                if isinstance(left, complex):
                    return ["complex numbers", f"   differ by {abs(left - right)}"]
            def pytest_assertion_pass(item, lineno, orig, expl):
                print("passed:", expl)
        """,
        of_plugin="""
            import pytest
            @pytest.fixture
            def of_plugin(): return lambda value: value
            def compare(value): assert value == ["of", "plugin"]
        """,
        registered="def compare(value): assert value == ['registered']\n",
        helper="def compare(value): assert value == ['not', 'rewritten']\n",
        test_a="""
            import of_plugin as plugin, registered, helper
            def test_conftest(checked): checked({"in": "test"})
            def test_plugin(): plugin.compare(["x"])
            def test_registered(): registered.compare([])
            def test_helper(): helper.compare(["x"])
            def test_repr(): assert 1j == 2j
            def test_pass(): assert 1 + 1 == 2; assert 0
            def test_message(): assert [] == [1], {"a": "message"}
            def test_walrus(): assert (x := 3) == 4
        """,
    )
    lab.same("", "-o enable_assertion_pass_hook=true", "-vv")


def test_records_for_junit(lab: Lab) -> None:
    # Names of their own: a warning here names its file without a directory, and Python remembers its lines.
    lab.project(
        test_records="""
            import pytest
            @pytest.fixture(scope="session", autouse=True)
            def records(record_testsuite_property):
                record_testsuite_property("of the suite", "value \\x07 <&>")
                record_testsuite_property("number", 7)
            def test_a(record_property, record_xml_attribute, record_testsuite_property):
                record_property("object", object)
                record_property("list", [1, {2}])
                record_xml_attribute("classname", "own")
                record_testsuite_property("of a test", None)
            def test_b(): assert 0
        """,
        test_records_more="def test_c(): pass\n",
    )
    outcome = lab.same("--junitxml=result.xml -o junit_family=xunit1 --smol-scope=module")
    written = outcome.files["result.xml"]
    assert written.count('<property name="number" value="7" />') == 1
    assert '<property name="of a test" value="None" />' in written
