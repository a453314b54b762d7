"""Adapters for the serving benchmark, brought through the API; and whether each row of a mixed batch is its own."""

import asyncio
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import openai

from benchmarks.serving.load import Target, stream
from support.adapters.random_adapters import write_random_adapter
from support.adapters.zipf_load import QUESTION, TOP
from support.servers.whole_stack import MODEL
from tokenyard.core.adapters import LINEAR_LAYERS
from tokenyard.core.training import ADAPTER_CONFIG, ADAPTER_WEIGHTS

PURPOSE: Any = "adapter"
STRENGTH = 0.5
TOKENS, LIMIT_S, LOOK_EVERY_S, AT_ONCE = 6, 300.0, 0.1, 6
ENDED = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class Tenant:
    """Who brings adapters over the model whose weights are in `base`; `target` is asked in its name."""

    client: openai.AsyncOpenAI
    target: Target
    base: Path

    async def bring(self, folder: Path, count: int) -> tuple[list[str], float]:
        """Bring so many, of the rank and the layers that training gives them, a few at once.

        Return their models, and how long after its job had succeeded the first token of one came (median).
        """
        few = asyncio.Semaphore(AT_ONCE)
        async with aiohttp.ClientSession() as http:

            async def one(seed: int) -> tuple[str, float]:
                async with few:
                    return await self._bring(http, folder / str(seed), seed)

            made = await asyncio.gather(*(one(seed) for seed in range(1, 1 + count)))
        return [model for model, _ in made], statistics.median(waited_s for _, waited_s in made)

    async def _bring(self, http: aiohttp.ClientSession, folder: Path, seed: int) -> tuple[str, float]:
        await asyncio.to_thread(write_random_adapter, self.base, folder, seed, strength=STRENGTH, modules=LINEAR_LAYERS)
        file = await self.client.files.create(file=folder / ADAPTER_WEIGHTS, purpose=PURPOSE)
        config = json.loads((folder / ADAPTER_CONFIG).read_bytes())
        del config["base_model_name_or_path"]
        method: Any = {"type": "adapter", "adapter": {"config": config}}
        jobs = self.client.fine_tuning.jobs
        job = await jobs.create(model=MODEL, training_file=file.id, suffix=f"bench{seed}", method=method)
        async with asyncio.timeout(LIMIT_S):
            while (job := await jobs.retrieve(job.id)).status not in ENDED:  # noqa: ASYNC110
                await asyncio.sleep(LOOK_EVERY_S)
        assert job.status == "succeeded", job.error
        assert job.fine_tuned_model
        own = replace(self.target, models=[job.fine_tuned_model])
        return job.fine_tuned_model, await stream(http, own, 0, seed, 2)


async def wrong_rows(http: aiohttp.ClientSession, target: Target, adapters: Sequence[str]) -> int:
    """Return how many of twice all models in one batch, the base among them, answer as another model does alone.

    Where a batch has another shape, bfloat16 moves some of the likeliest tokens: a row belongs to whom it is nearest.
    """
    models = [MODEL, *adapters]
    alone = [await _likeliest(http, target, model) for model in models]
    assert max(_in_common(alone, known) for known in alone) < TOP, "they must differ, or this shows nothing"
    mixed = await asyncio.gather(*(_likeliest(http, target, model) for model in models * 2))
    return sum(
        len(answer & known) < _in_common(alone, answer, but=known)
        for answer, known in zip(mixed, alone * 2, strict=True)
    )


def _in_common(alone: Sequence[frozenset[str]], answer: frozenset[str], *, but: frozenset[str] | None = None) -> int:
    """Return how many tokens `answer` shares with that of `alone` which is nearest to it; not with itself or `but`."""
    return max(len(answer & other) for other in alone if other is not answer and other is not but)


async def _likeliest(http: aiohttp.ClientSession, target: Target, model: str) -> frozenset[str]:
    """Return the likeliest first tokens of an answer."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": TOKENS,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": TOP,
    }
    async with http.post(f"{target.url}/v1/chat/completions", json=body, headers=target.headers) as answer:
        told = await answer.json()
        assert answer.status == 200, told
        return frozenset(one["token"] for one in told["choices"][0]["logprobs"]["content"][0]["top_logprobs"])
