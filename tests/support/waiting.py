"""Waiting for what is to come about while Redis comes and goes."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from redis.exceptions import RedisError


async def until(true: Callable[[], Awaitable[bool]], what: str, *, limit_s: float) -> None:
    """Wait until `true`; a Redis that is away is no answer. The test fails where it takes over `limit_s`."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        try:
            if await true():
                return
        except (RedisError, OSError):
            pass
        await asyncio.sleep(0.05)
    pytest.fail(f"not in time: {what}")
