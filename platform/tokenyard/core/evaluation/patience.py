"""Asks a model again where it may answer later, such as over a rate limit."""

import asyncio
from collections.abc import Awaitable, Callable

from tokenyard.core.evaluation.questions import Answered, NotAnswered

FIRST_PAUSE_S, LAST_PAUSE_S = 1.0, 10.0


async def answered_within(patience_s: float, ask: Callable[[], Awaitable[Answered]]) -> Answered | NotAnswered:
    """Return what a model answers, or why it did not, once it will not or `patience_s` have passed."""
    loop = asyncio.get_running_loop()
    until, pause_s = loop.time() + patience_s, FIRST_PAUSE_S
    while True:
        try:
            return await ask()
        except NotAnswered as why:
            if not why.passing or loop.time() + pause_s > until:
                return why
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, LAST_PAUSE_S)
