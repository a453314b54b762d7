"""An HTTP session with one service that wants a bearer token."""

import asyncio
from typing import Self

import aiohttp

CONNECT_TIMEOUT_S = 2.0
LOSSES = (aiohttp.ClientError, OSError, asyncio.TimeoutError)  # what a request raises that got no answer


class BearerSession:
    """Used as `async with`; a request that is not answered within `answer_timeout_s` seconds is lost."""

    def __init__(self, token: str, *, answer_timeout_s: float) -> None:
        self._headers = {"authorization": f"Bearer {token}"}
        self._timeout = aiohttp.ClientTimeout(total=answer_timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers=self._headers, timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar()
        )
        return self

    async def __aexit__(self, *_raised: object) -> None:
        assert self._session is not None
        await self._session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        assert self._session is not None, "use `async with`"
        return self._session
