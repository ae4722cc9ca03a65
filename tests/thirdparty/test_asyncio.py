"""pytest-asyncio with tests in machines: modes, loop scopes, and what goes wrong."""

from __future__ import annotations

import pytest

from tests.thirdparty.bench import Bench

pytestmark = pytest.mark.vm


STRICT = """
    import asyncio
    import pytest
    import pytest_asyncio

    loops = []

    @pytest_asyncio.fixture(loop_scope="module", scope="module")
    async def server():
        async def answer(reader, writer):
            writer.write((await reader.readline()).upper())
            await writer.drain()
            writer.close()
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        yield server.sockets[0].getsockname()[1]
        print("server closes")
        server.close()

    @pytest.mark.asyncio(loop_scope="module")
    async def test_talks(server):
        reader, writer = await asyncio.open_connection("127.0.0.1", server)
        writer.write(b"hello\\n")
        assert await reader.readline() == b"HELLO\\n"
        writer.close()
        loops.append(asyncio.get_running_loop())

    @pytest.mark.asyncio(loop_scope="module")
    async def test_same_loop(server):
        assert loops == [asyncio.get_running_loop()]

    @pytest.mark.asyncio
    async def test_loop_of_its_own():
        assert asyncio.get_running_loop() not in loops

    @pytest.mark.asyncio
    async def test_fails():
        await asyncio.sleep(0)
        assert {"a": 1} == {"a": 2}

    @pytest.mark.asyncio
    async def test_leaves_a_task():
        asyncio.ensure_future(asyncio.sleep(100))

    @pytest.mark.asyncio
    async def test_too_late():
        await asyncio.wait_for(asyncio.sleep(100), 0.1)

    async def test_not_marked():
        assert 0
"""

AUTO = """
    import asyncio
    import pytest

    async def test_passes():
        await asyncio.sleep(0)

    @pytest.mark.timeout(1)
    async def test_hangs():
        await asyncio.sleep(100)

    async def test_after():
        assert asyncio.get_running_loop().is_running()
"""


def test_strict_mode(bench: Bench) -> None:
    bench.write("test_it.py", STRICT)
    outcome = bench.same("-v -rA", plugins=("asyncio",))
    assert "3 failed, 4 passed" in outcome.text


def test_auto_mode_with_a_hanging_test(bench: Bench) -> None:
    bench.write("pytest.ini", "[pytest]\nasyncio_mode = auto\nasyncio_default_test_loop_scope = session")
    bench.write("test_it.py", AUTO)
    outcome = bench.same(
        "-v --smol-scope=test", plugins=("asyncio", "timeout"), volatile=(r"timeout = [\d.]+",)
    )
    assert "1 failed, 2 passed" in outcome.text
