"""pytest-timeout with tests in machines: what hangs there fails there, named and with its stacks."""

from __future__ import annotations

import pytest

from tests.thirdparty.bench import Bench

pytestmark = pytest.mark.vm

HANGS = """
    import time

    def wait():
        time.sleep(100)

    def test_hangs():
        print("before it hangs")
        wait()

    def test_is_over():
        pass
"""

WITH_A_THREAD = """
    import threading

    def test_hangs_beside_a_thread():
        held = threading.Event()
        threading.Thread(target=held.wait, name="second", daemon=True).start()
        held.wait()
"""


def test_a_hanging_test_fails_by_signal_and_the_next_goes_on(bench: Bench) -> None:
    bench.write("test_it.py", HANGS)
    outcome = bench.same("-v --timeout=1", plugins=("timeout",))
    assert "Failed: Timeout (>1.0s) from pytest-timeout." in outcome.text
    assert "1 failed, 1 passed" in outcome.text


def test_the_stacks_of_other_threads_are_shown(bench: Bench) -> None:
    bench.write("test_it.py", WITH_A_THREAD)
    for outcome in (
        bench.plain("--timeout=1", plugins=("timeout",)),
        bench.smol("--timeout=1", plugins=("timeout",)),
    ):
        assert outcome.text.count("~ Stack of second (") == outcome.text.count("~ Stack of ") == 1
        assert "1 failed" in outcome.text


def test_the_thread_method_ends_the_process_and_costs_only_its_own_test(bench: Bench) -> None:
    """At home it ends the whole run: no other way is left to it."""
    bench.write("test_it.py", HANGS)
    outcome = bench.smol("-v", "--timeout=1", "--timeout-method=thread", plugins=("timeout",))
    assert "+ Timeout +" in outcome.text
    assert "before it hangs" in outcome.text
    assert ", in wait" in outcome.text
    assert "1 failed, 1 passed" in outcome.text


def test_tests_with_markers_are_watched_where_they_run(bench: Bench) -> None:
    bench.write(
        "test_it.py",
        """
        import time
        import pytest

        @pytest.mark.smol
        @pytest.mark.timeout(1)
        def test_hangs_in_a_machine():
            time.sleep(100)

        @pytest.mark.timeout(1)
        def test_hangs_on_the_host():
            time.sleep(100)

        @pytest.mark.smol
        @pytest.mark.timeout(200)
        def test_is_over():
            pass
        """,
    )
    outcome = bench.run("-v", plugins=("timeout",))
    assert bench.ran_in_machines() == {"test_it.py::test_hangs_in_a_machine", "test_it.py::test_is_over"}
    assert outcome.text.count("Failed: Timeout (>1.0s) from pytest-timeout.") >= 2
    assert "2 failed, 1 passed" in outcome.text
