"""A well-behaved organization beside an attack: one short stream after another, each wait measured."""

import asyncio
import itertools
from typing import Any

from aiohttp import ClientError, ClientSession

from tokenyard.gateway.endpoints.table import CHAT

PAUSE_S = 0.1
LIMIT_S = 30.0


class Bystander:
    """`waits` are the seconds to the first event of each stream, `silences` the longest without one after that."""

    def __init__(self, http: ClientSession, url: str, key: str, model: str, **more: Any) -> None:
        self.waits: list[float] = []
        self.silences: list[float] = []
        self.errors: list[str] = []
        self._http = http
        self._url = url + CHAT.path
        self._headers = {"authorization": f"Bearer {key}"}
        messages = [{"role": "user", "content": "Please say hello to the sea."}]
        self._body = {"model": model, "messages": messages, "max_tokens": 8, "stream": True, **more}

    async def run(self, number: int) -> None:
        for _ in range(number):
            await self._ask()

    async def run_until(self, over: asyncio.Event) -> None:
        while not over.is_set():
            await self._ask()
            await asyncio.sleep(PAUSE_S)

    async def _ask(self) -> None:
        now = asyncio.get_running_loop().time
        arrivals, ended = [now()], b""
        try:
            async with (
                asyncio.timeout(LIMIT_S),
                self._http.post(self._url, json=self._body, headers=self._headers) as response,
            ):
                if response.status != 200:
                    self.errors.append(f"{response.status} {await response.text()}")
                    return
                async for line in response.content:
                    if line.startswith(b"data: "):
                        arrivals.append(now())
                        ended = line
        except (TimeoutError, ClientError) as error:
            self.errors.append(repr(error))
            return
        if ended.strip() != b"data: [DONE]":
            self.errors.append(f"cut off: {ended!r}")
            return
        between = [later - before for before, later in itertools.pairwise(arrivals)]
        self.waits.append(between[0])
        self.silences.append(max(between[1:]))
