"""What fairness costs the engine: vLLM's own scheduler and ours side by side, in rounds that alternate."""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import httpx

from benchmarks.fairness_load import Caller, Reply, complete, digits
from support.servers.free_ports import free_port
from support.servers.whole_stack import MODEL, eventually
from tokenyard.core.model_files.reading import read_model_spec
from tokenyard.core.models import ModelSpec
from tokenyard_deployments.base_models.fetch import pull, shipped_specs, source_of
from tokenyard_deployments.serving.app import llm_config
from tokenyard_deployments.serving.engine.scheduling.settings import scheduler_arguments

ROOT = Path(__file__).parents[2]
STREAM_ROUNDS, PREFIX_ROUNDS = 10, 2  # one round of streams tells 0.95 or 1.07, whatever is measured
STREAMS, STORY_TOKENS = 64, 64
STORY = "Tell a long story about a river and the people who live beside it."
# Of 1,000 tokens each, so all of them are more than an engine of this memory holds (11,500), as it is in service.
PREFIXES, PREFIX_DIGITS, SHARERS, ANSWER_TOKENS = 16, 500, 4, 8
MEMORY_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class Throughput:
    """Of each round, in generated tokens a second."""

    streams: list[float] = field(default_factory=list)
    shared_prefixes: list[float] = field(default_factory=list)


def median_ratio(ours: Sequence[float], own: Sequence[float]) -> float:
    """Compare round by round: the machine's speed drifts, and what stands side by side drifts together."""
    return statistics.median(one / other for one, other in zip(ours, own, strict=True))


def measure(folder: Path) -> tuple[Throughput, Throughput]:
    """Return vLLM's own, then ours."""
    with ExitStack() as engines:
        own = engines.enter_context(engine(folder / "own.log", fair=False))
        ours = engines.enter_context(engine(folder / "fair.log", fair=True))
        return asyncio.run(_measure(own, ours))


async def _measure(own: str, ours: str) -> tuple[Throughput, Throughput]:
    patient = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(timeout=patient, connector=aiohttp.TCPConnector(limit=0)) as http:
        found = {own: Throughput(), ours: Throughput()}
        for url in found:
            await _streams(http, url, 0)
        for number in range(1, STREAM_ROUNDS + 1):
            # Who begins changes, so that a machine that slows down slows both.
            for url in (own, ours) if number % 2 else (ours, own):
                found[url].streams.append(await _streams(http, url, number))
        for number in range(1, PREFIX_ROUNDS + 1):
            for url in (own, ours) if number % 2 else (ours, own):
                found[url].shared_prefixes.append(await _shared_prefixes(http, url, number))
    return found[own], found[ours]


async def _streams(http: aiohttp.ClientSession, url: str, number: int) -> float:
    """Two organizations, twice as many streams as the engine has slots."""
    return await _tokens_per_s(
        complete(http, _caller(url, f"organization {at % 2}"), f"{number} {at} {STORY}", STORY_TOKENS)
        for at in range(STREAMS)
    )


async def _shared_prefixes(http: aiohttp.ClientSession, url: str, number: int) -> float:
    """Each prefix is asked for by several requests of one organization, all prefixes in turn."""
    return await _tokens_per_s(
        complete(
            http,
            _caller(url, f"organization {prefix % 4}"),
            f"{digits(PREFIX_DIGITS, 1000 * number + prefix)} and then? {sharer}",
            ANSWER_TOKENS,
        )
        for sharer in range(SHARERS)
        for prefix in range(PREFIXES)
    )


async def _tokens_per_s(requests: Iterable[Awaitable[Reply]]) -> float:
    began = time.monotonic()
    replies = await asyncio.gather(*requests)
    return sum(one.tokens for one in replies) / (time.monotonic() - began)


def _caller(url: str, organization: str) -> Caller:
    return Caller(organization, url, MODEL, salt=organization)


@contextmanager
def engine(log: Path, *, fair: bool, memory_bytes: int = MEMORY_BYTES, more: Sequence[str] = ()) -> Iterator[str]:
    """Run vLLM's own server with the engine arguments of a replica and `more`, and yield its URL."""
    spec = _spec()
    config = llm_config(spec, path=str(model_folder()), kind="cpu", overrides={})
    arguments = {**config["engine_kwargs"], "kv_cache_memory_bytes": memory_bytes, "disable_log_stats": True}
    if not fair:
        for name in scheduler_arguments(spec.accelerator("cpu").fairness):
            del arguments[name]
    environment = {**config["runtime_env"]["env_vars"], "OMP_NUM_THREADS": "1"}
    with vllm_server(log, arguments, environment, more) as url:
        yield url


@contextmanager
def vllm_server(
    log: Path, arguments: Mapping[str, object], environment: Mapping[str, str], more: Sequence[str] = ()
) -> Iterator[str]:
    """Run vLLM's own server and yield its URL."""
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model_folder())]
    command += ["--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port), *_flags(arguments), *more]
    own = {**os.environ, **environment}
    with log.open("wb") as output, subprocess.Popen(command, env=own, stdout=output, stderr=output) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            eventually(_answers(url, process, log), limit_s=300)
            yield url
        finally:
            process.terminate()
            process.wait(60)


def _answers(url: str, process: "subprocess.Popen[bytes]", log: Path) -> Callable[[], bool]:
    def answers() -> bool:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            return httpx.get(f"{url}/health", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    return answers


def _flags(arguments: Mapping[str, object]) -> Iterator[str]:
    for name, value in arguments.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            yield flag
        elif isinstance(value, list):
            yield from (flag, *map(str, value))
        elif value is not False:
            yield from (flag, json.dumps(value) if isinstance(value, dict) else str(value))


def _spec() -> ModelSpec:
    return read_model_spec((shipped_specs() / f"{MODEL}.yaml").read_bytes())


def model_folder() -> Path:
    folder = Path(os.environ.get("TOKENYARD_TEST_MODEL") or ROOT / "build" / "models" / MODEL)
    source, _ = source_of(MODEL, shipped_specs())
    pull(source, folder, lambda _step: None)
    return folder
