"""pytest-mock with tests in machines: its comparison of calls is part of a failure's text."""

from __future__ import annotations

import pytest

from tests.thirdparty.bench import Bench

pytestmark = pytest.mark.vm


def test_mocks_end_with_their_test_and_their_failures_explain(bench: Bench) -> None:
    bench.write(
        "test_it.py",
        """
        import os
        import pytest

        @pytest.fixture(scope="module", autouse=True)
        def where(module_mocker):
            return module_mocker.patch("os.getlogin", return_value="somebody")

        def test_patched(mocker):
            mocker.patch("os.getcwd", return_value="/nowhere")
            assert (os.getcwd(), os.getlogin()) == ("/nowhere", "somebody")

        def test_undone():
            assert os.getcwd() != "/nowhere" and os.getlogin() == "somebody"

        def test_spied(mocker):
            spy = mocker.spy(os.path, "join")
            os.path.join("a", "b")
            spy.assert_called_once_with("a", "c")
        """,
    )
    outcome = bench.same("-v", plugins=("pytest_mock",))
    assert "pytest introspection follows" in outcome.text
