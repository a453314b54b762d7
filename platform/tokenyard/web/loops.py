"""A worker process is a list of named loops; each is repeated for ever, and a failure never ends the others."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

_LOG = logging.getLogger(__name__)
MAX_BACKOFF_S = 30.0
MAX_DOUBLINGS = 20  # a number this size still fits a float, however long an outage


@dataclass(frozen=True)
class Loop:
    """`step` does one round of work and is called again `interval_s` after it ended, later after failures."""

    name: str
    step: Callable[[], Awaitable[None]]
    interval_s: float
    max_backoff_s: float = MAX_BACKOFF_S


async def run_loops(loops: Sequence[Loop], on_failure: Callable[[str], None] = lambda _name: None) -> None:
    """Run all loops until cancelled. A failing step is logged, counted by `on_failure`, and backed off."""
    async with asyncio.TaskGroup() as group:
        for loop in loops:
            group.create_task(_run(loop, on_failure), name=loop.name)


def is_cancelled() -> bool:
    """Tell whether the running task was told to end, also where the error that says so was lost on its way.

    Before Python 3.12 `asyncio.wait_for` loses a cancellation that comes as what it waits for ends; redis-py sends
    every command through it. So what has no end of its own asks this in each round.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _run(loop: Loop, on_failure: Callable[[str], None]) -> None:
    failures = 0
    while not is_cancelled():
        try:
            await loop.step()
            failures = 0
        except Exception:  # the loop outlives any failure of one step; the log and the metric tell of it
            failures += 1
            on_failure(loop.name)
            _LOG.exception("loop %s failed (%d times in a row)", loop.name, failures)
        backoff_s = min(loop.max_backoff_s, loop.interval_s * 2 ** min(failures, MAX_DOUBLINGS))
        await asyncio.sleep(max(loop.interval_s, backoff_s))
