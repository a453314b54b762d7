"""Loops go on after any failure, for however long, and end when they are told to."""

import asyncio

import pytest

from tokenyard.web.loops import Loop, run_loops


async def test_a_loop_outlives_more_failures_than_a_float_can_double() -> None:
    failures = 1100  # 2.0 ** 1024 is too large for a float
    left = iter(range(failures))
    recovered = asyncio.Event()

    async def step() -> None:
        if next(left, None) is not None:
            raise ConnectionRefusedError
        recovered.set()

    counted: list[str] = []
    running = asyncio.create_task(run_loops([Loop("weak", step, 0.0, max_backoff_s=0.0)], counted.append))
    waiting = asyncio.create_task(recovered.wait())
    await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    assert not running.done(), running.exception()
    assert counted == ["weak"] * failures
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_loop_ends_also_where_the_cancellation_is_lost_in_a_step() -> None:
    """As `asyncio.wait_for` may lose it, through which redis-py sends."""
    began = asyncio.Event()

    async def deaf() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    running = asyncio.create_task(run_loops([Loop("deaf", deaf, 0.0)]))
    await began.wait()
    running.cancel()
    ended, _ = await asyncio.wait([running], timeout=10)
    assert ended == {running}
