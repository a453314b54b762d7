"""Clients that ask one gateway again and again, and write down what each of them got."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from support.ray_cluster.served_platform import ServedPlatform
from support.ray_cluster.small_model import MODEL

REQUEST_LIMIT_S = 240.0
PAUSE_S = 0.2
"""After a refusal, as a client would wait."""
DATA = b"data: "


@dataclass
class Asked:
    """A request as its client saw it. `tokens` came, of which `usage` (prompt, completion) tells where it ended well.

    `at_s` is when it was sent, by the monotonic clock.
    """

    model: str
    streamed: bool
    at_s: float = field(default_factory=time.monotonic)
    request: str = ""
    status: int = 0
    tokens: int = 0
    usage: tuple[int, int] | None = None
    said: str = ""

    @property
    def cut(self) -> bool:
        """Whether its answer had begun to come, and broke off."""
        return self.streamed and self.status == 200 and self.usage is None

    @property
    def failed(self) -> bool:
        """Whether nothing came of it at all."""
        return self.usage is None and not self.cut


class GatewayLoad:
    """Each client sends its next request once it has its answer: of base model and adapter, streamed and whole.

    The base model says a few words and ends; the adapter, which is random, mostly goes on as long as it may.
    """

    def __init__(self, platform: ServedPlatform) -> None:
        self.platform = platform
        self.asked: list[Asked] = []

    @asynccontextmanager
    async def clients(self, number: int, *, max_tokens: int, short: bool = True) -> AsyncIterator[None]:
        """Let so many ask meanwhile, for `short` answers too; at the end each waits for the answer it has asked for."""
        over = asyncio.Event()
        models = (MODEL, self.platform.adapter) if short else (self.platform.adapter,)
        turns = itertools.cycle(itertools.product((True, False), models))
        async with asyncio.TaskGroup() as group:
            for _ in range(number):
                group.create_task(self._ask_until(over, turns, max_tokens))
            try:
                yield
            finally:
                over.set()

    async def ask(self, model: str, *, max_tokens: int, streamed: bool) -> Asked:
        one = Asked(model, streamed)
        self.asked.append(one)
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": "Count from one to one thousand."}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "logprobs": True,  # so that every token is told apart
        }
        if streamed:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        try:
            await self._send(one, body)
        except aiohttp.ClientError as error:
            one.said += f" {error!r}"
        return one

    async def _ask_until(self, over: asyncio.Event, kinds: Iterator[tuple[bool, str]], max_tokens: int) -> None:
        while not over.is_set():
            streamed, model = next(kinds)
            one = await self.ask(model, max_tokens=max_tokens, streamed=streamed)
            if one.usage is None:
                await asyncio.sleep(PAUSE_S)

    async def _send(self, one: Asked, body: dict[str, Any]) -> None:
        url = f"{self.platform.url}/v1/chat/completions"
        headers = {"authorization": f"Bearer {self.platform.key}"}
        limit = aiohttp.ClientTimeout(REQUEST_LIMIT_S)
        async with self.platform.http.post(url, json=body, headers=headers, timeout=limit) as answer:
            one.request, one.status = answer.headers["x-request-id"], answer.status
            if answer.status != 200:
                one.said = await answer.text()
            elif not one.streamed:
                _take(one, await answer.json())
            else:
                async for line in answer.content:
                    if line.startswith(DATA + b"{"):
                        _take(one, json.loads(line.removeprefix(DATA)))


def _take(one: Asked, part: dict[str, Any]) -> None:
    if "error" in part:
        one.said = json.dumps(part)
        return
    for choice in part["choices"]:
        one.tokens += len((choice.get("logprobs") or {}).get("content") or ())
    if usage := part.get("usage"):
        one.usage = usage["prompt_tokens"], usage["completion_tokens"]
