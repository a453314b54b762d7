"""Asks a part whether it is ready: over HTTP or the Redis protocol. Every question has a limit."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import aiohttp
import redis

from tokenyard.storage.redis import connect_redis

POLL_S = 0.2
QUESTION_TIMEOUT_S = 3.0

Probe = Callable[[], Awaitable[str | None]]
"""Returns None when ready, else what is still missing."""


def answers_http(url: str, headers: Mapping[str, str] | None = None) -> Probe:
    """Return a probe that wants a 200 from `url`."""

    async def ask() -> str | None:
        timeout = aiohttp.ClientTimeout(total=QUESTION_TIMEOUT_S)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as http, http.get(url, headers=headers) as reply:
                if reply.status == 200:
                    return None
                return f"{url} answers {reply.status}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return f"{url} does not answer ({type(error).__name__})"

    return ask


def able_to_serve(url: str) -> Probe:
    """Return a probe that wants a gateway at `url` which has all that it stands on."""

    async def ask() -> str | None:
        timeout = aiohttp.ClientTimeout(total=QUESTION_TIMEOUT_S)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as http, http.get(f"{url}/ready") as reply:
                checks: dict[str, str] = (await reply.json())["checks"]
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError) as error:
            return f"{url} does not answer ({type(error).__name__})"
        failing = ", ".join(name for name, state in checks.items() if state != "ok")
        return f"{url} lacks: {failing}" if failing else None

    return ask


def answers_redis(url: str) -> Probe:
    """Return a probe that wants a server which has finished loading its data."""

    async def ask() -> str | None:
        client = connect_redis(url)
        try:
            await client.ping()
        except (redis.RedisError, OSError) as error:
            return f"it does not answer ({type(error).__name__})"
        finally:
            await client.aclose()
        return None

    return ask


async def until_ready(probe: Probe, *, limit_s: float, on_wait: Callable[[str], None] = lambda _missing: None) -> None:
    """Ask until ready.

    Raises:
        TimeoutError: not ready within `limit_s`; the text says what was missing at last.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit_s
    while (missing := await probe()) is not None:
        on_wait(missing)
        if loop.time() >= deadline:
            raise TimeoutError(missing)
        await asyncio.sleep(POLL_S)
