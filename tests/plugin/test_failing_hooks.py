"""Plugins on the host whose hooks fail at the end: results and summary are shown all the same."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

import pytest

from tests.plugin.lab import Lab

HOOKS = {
    "a report": "def pytest_runtest_logreport(report): raise ValueError('what a guest said')",
    "the end": "def pytest_sessionfinish(): raise ValueError('what a guest said')",
    "the end, first": """
        import pytest
        @pytest.hookimpl(tryfirst=True)
        def pytest_sessionfinish(): raise ValueError('what a guest said')
    """,
    "before the end": """
        import pytest
        @pytest.hookimpl(wrapper=True)
        def pytest_sessionfinish():
            raise ValueError('what a guest said')
            yield
    """,
    "after the end": """
        import pytest
        @pytest.hookimpl(wrapper=True)
        def pytest_sessionfinish():
            yield
            raise ValueError('what a guest said')
    """,
    "after the end, in the old way": """
        import pytest
        @pytest.hookimpl(hookwrapper=True)
        def pytest_sessionfinish():
            yield
            raise ValueError('what a guest said')
    """,
    "the summary": "def pytest_terminal_summary(): raise ValueError('what a guest said')",
    "around the summary": """
        import pytest
        @pytest.hookimpl(wrapper=True, tryfirst=True)
        def pytest_terminal_summary():
            raise ValueError('what a guest said')
            yield
    """,
}

TESTS = "def test_passes(): pass\ndef test_fails(): assert 0, 'the reason'\n"


Write = Callable[[str], None]


@pytest.fixture
def breaking(lab: Lab, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a plugin of the user's, outside of the project, that has hooks on the host only."""
    folder = tmp_path_factory.mktemp("plugins")
    monkeypatch.syspath_prepend(folder)

    def write(hooks: str) -> None:
        body = textwrap.indent(textwrap.dedent(hooks), "    ")
        text = f"import os\nif 'SMOL_GUEST' not in os.environ:\n{body}\n"
        (folder / "breaking_plugin.py").write_text(text)

    return write


@pytest.mark.parametrize("hook", HOOKS.values(), ids=HOOKS)
def test_results_are_shown_and_the_status_tells(lab: Lab, breaking: Write, hook: str) -> None:
    breaking(hook)
    lab.project(test_a=TESTS)
    outcome = lab.smol("--smol", "-p", "breaking_plugin")
    assert "INTERNALERROR" not in outcome.text, outcome
    assert "1 failed, 1 passed" in outcome.text
    assert "the reason" in outcome.text
    assert "of the plugin breaking_plugin failed: ValueError: what a guest said" in outcome.text
    assert outcome.status == pytest.ExitCode.INTERNAL_ERROR


def test_other_plugins_still_have_their_turn(lab: Lab, breaking: Write) -> None:
    breaking("import pytest\n@pytest.hookimpl(tryfirst=True)\ndef pytest_sessionfinish(): raise ValueError\n")
    lab.project(test_a=TESTS)
    outcome = lab.smol("--smol", "-p", "breaking_plugin", "--junitxml=out.xml")
    assert 'failures="1"' in outcome.files["out.xml"]


def test_a_plugin_that_stops_the_run_stops_it(lab: Lab, breaking: Write) -> None:
    breaking("import pytest\ndef pytest_runtest_logreport(): pytest.exit('enough', returncode=7)\n")
    lab.project(test_a=TESTS)
    outcome = lab.smol("--smol", "-p", "breaking_plugin")
    assert outcome.status == 7
    assert "enough" in outcome.text


def test_a_wrapper_sees_what_another_hook_raises(lab: Lab, breaking: Write) -> None:
    breaking("""
import pytest
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_logreport():
    try:
        return (yield)
    except pytest.exit.Exception as stop:
        print("seen:", stop)
        raise
class Other:
    def pytest_runtest_logreport(self): pytest.exit("enough")
def pytest_configure(config): config.pluginmanager.register(Other())
""")
    lab.project(test_a=TESTS)
    outcome = lab.smol("--smol", "-s", "-p", "breaking_plugin")
    assert "seen: enough" in outcome.text
