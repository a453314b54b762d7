"""Streams for the serving benchmark: what a client sends, when its first token came, how many it got."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp

TOKENS = 32
_ENDS = ("0", "2")
"""The ids of the model's tokens that end a text."""
_STORY = "Tell a long story about a river and the people who live beside it."


@dataclass(frozen=True)
class Target:
    """Somewhere to ask; stream n is of the n-th of `models`, and over again."""

    url: str
    models: Sequence[str]
    headers: dict[str, str] = field(default_factory=dict)


async def tokens_per_s(http: aiohttp.ClientSession, target: Target, streams: int, number: int) -> float:
    """Return what so many streams get together; `number` keeps the prompts of rounds apart."""
    began = time.monotonic()
    await asyncio.gather(*(stream(http, target, at, number) for at in range(streams)))
    return streams * TOKENS / (time.monotonic() - began)


async def stream(http: aiohttp.ClientSession, target: Target, at: int, number: int, tokens: int = TOKENS) -> float:
    """Stream an answer of exactly `tokens` tokens; return the seconds to its first."""
    body = {
        "model": target.models[at % len(target.models)],
        "prompt": f"{number} {at} {_STORY}",
        "max_tokens": tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "logit_bias": dict.fromkeys(_ENDS, -100),
    }
    began, first_s, counted = time.monotonic(), 0.0, 0
    async with http.post(f"{target.url}/v1/completions", json=body, headers=target.headers) as answer:
        assert answer.status == 200, await answer.text()
        async for line in answer.content:
            if line.startswith(b"data: {"):
                event = json.loads(line[6:])
                assert "error" not in event, event
                if event["choices"]:
                    first_s = first_s or time.monotonic() - began
                if event.get("usage"):
                    counted = event["usage"]["completion_tokens"]
    assert counted == tokens, counted
    return first_s
