"""The whole platform: how fast it starts, what the gateway takes from the engine, how soon a new model answers."""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import openai

from support.servers.whole_stack import (
    MODEL,
    Stack,
    eventually,
    private_environment,
    replica_url,
    start,
    stop,
)
from tokenyard.core.ids import ApiKeyId, AttemptId, OrganizationId, PriceId, ProjectId, new_request_id
from tokenyard.core.usage import MeterClaims
from tokenyard.metering import header as meter

STREAMS = 32
TOKENS = 64
ROUNDS = 3
LOAD_IS_NOTICED_S = 10.0  # and torch is loaded
TRAINING_FILE = Path(__file__).parents[2] / "deployments" / "recipes" / "tour" / "train.jsonl"
PROMPT = [{"role": "user", "content": "Tell me a long story about a river and the people who live beside it."}]


@dataclass(frozen=True)
class StackFigures:
    """Seconds, and generated tokens a second over 32 streams of 64 tokens."""

    start_to_ready_s: float
    tokens_per_s: float
    direct_tokens_per_s: float
    direct_tokens_per_s_beside_training: float
    job_to_first_token_s: float
    job_s: float


def measure(folder: Path) -> StackFigures:
    """Run the benchmark with its data in `folder`."""
    environment = private_environment(folder)
    first = start(environment)  # fetches and converts the model
    stop(first)
    began = time.monotonic()
    stack = start(environment, first.admin_key)
    start_to_ready_s = time.monotonic() - began
    try:
        _, client = stack.tenant("bench")
        through, direct = asyncio.run(_throughput(stack, client.api_key))
        with _training_like_load():
            _, beside_training = asyncio.run(_throughput(stack, client.api_key))
        job_s, first_token_s = _job(client)
    finally:
        stop(stack)
    return StackFigures(start_to_ready_s, through, direct, beside_training, first_token_s, job_s)


@contextmanager
def _training_like_load() -> Iterator[None]:
    """Matrix products on all cores but one, at the priority that training gives itself."""
    script = (
        "import os, torch\n"
        "os.nice(15)\n"
        "torch.set_num_threads(max(1, os.cpu_count() - 1))\n"
        "a = torch.randn(1024, 1024)\n"
        "while True: a @ a"
    )
    with subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}) as process:
        time.sleep(LOAD_IS_NOTICED_S)
        yield
        process.kill()


async def _throughput(stack: Stack, key: str) -> tuple[float, float]:
    """Return the medians of interleaved rounds, through the gateway and straight to the replica."""
    replica, bearer = await replica_url(stack), stack.replica_bearer
    secret = stack.settings.derived_secret("meter")
    through: list[float] = []
    direct: list[float] = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300)) as session:

        def by_gateway() -> dict[str, str]:
            return {"authorization": f"Bearer {key}"}

        def straight() -> dict[str, str]:
            return {"authorization": f"Bearer {bearer}", meter.HEADER: meter.sign(_claims(), secret)}

        await _round(session, replica, straight)  # warm
        for _ in range(ROUNDS):
            through.append(await _round(session, stack.url, by_gateway))
            direct.append(await _round(session, replica, straight))
    return statistics.median(through), statistics.median(direct)


async def _round(session: aiohttp.ClientSession, url: str, headers: Callable[[], dict[str, str]]) -> float:
    began = time.monotonic()
    counts = await asyncio.gather(*(_stream(session, url, headers()) for _ in range(STREAMS)))
    assert set(counts) == {TOKENS}, counts
    return sum(counts) / (time.monotonic() - began)


async def _stream(session: aiohttp.ClientSession, url: str, headers: dict[str, str]) -> int:
    body = {"model": MODEL, "messages": PROMPT, "max_tokens": TOKENS, "temperature": 0, "stream": True}
    body["stream_options"] = {"include_usage": True}
    tokens = 0
    async with session.post(f"{url}/v1/chat/completions", json=body, headers=headers) as reply:
        assert reply.status == 200, await reply.text()
        async for line in reply.content:
            if line.startswith(b"data: {") and (usage := json.loads(line[6:]).get("usage")):
                tokens = usage["completion_tokens"]
    return int(tokens)


def _claims() -> MeterClaims:
    return MeterClaims(
        attempt=AttemptId(f"{new_request_id()}.1"),
        organization=OrganizationId("org_bench"),
        project=ProjectId("proj_bench"),
        key=ApiKeyId("key_bench"),
        model=MODEL,
        base_model=MODEL,
        price=PriceId(f"2026-01-01/{MODEL}"),
        admitted_at_ms=int(time.time() * 1000),
        endpoint="/v1/chat/completions",
    )


def _job(client: openai.OpenAI) -> tuple[float, float]:
    """Return how long a small job took, and from its success to the first token of its model."""
    file = client.files.create(file=TRAINING_FILE, purpose="fine-tune")
    began = time.monotonic()
    job = client.fine_tuning.jobs.create(
        model=MODEL,
        training_file=file.id,
        suffix="bench",
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": 4}}},
    )

    def ended() -> openai.types.fine_tuning.FineTuningJob | None:
        now = client.fine_tuning.jobs.retrieve(job.id)
        return now if now.status in ("succeeded", "failed", "cancelled") else None

    done = eventually(ended, limit_s=600)
    succeeded = time.monotonic()
    assert done.status == "succeeded", done.error
    stream = client.chat.completions.create(
        model=done.fine_tuned_model, messages=[{"role": "user", "content": "Who are you?"}], max_tokens=8, stream=True
    )
    next(iter(stream))
    first = time.monotonic()
    stream.close()
    return succeeded - began, first - succeeded
