"""500 adapters on one real replica: its part of build/bench/serving.json."""

import asyncio
import contextlib
import os
import random
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec

from benchmarks.fairness_load import percentile
from benchmarks.figures import ROOT, add_figures
from support.adapters.random_adapters import publish_random_adapter
from support.adapters.zipf_load import QUESTION, STRENGTH, AdapterAnswer, wrong_rows, zipf_answers
from support.ray_cluster.serving_cluster import Cluster, deploy
from support.replica_caller import MODEL, ReplicaCaller, chat, claims
from support.servers.free_ports import free_port
from support.servers.valkey import running_valkey
from tokenyard.clients.ray_serve import RayServe
from tokenyard.clients.replica import ReplicaClient
from tokenyard.core.adapters import AdapterRef
from tokenyard.core.ids import OrganizationId
from tokenyard.core.model_files.accelerators import LoraRoomSpec
from tokenyard.core.model_files.reading import read_model_spec
from tokenyard.core.models import LoraSpec
from tokenyard_deployments.base_models.fetch import pull, shipped_specs, source_of
from tokenyard_deployments.serving.app import ServedModel, serve_config

ADAPTERS, SLOTS, PLACES = 500, 8, 32
REQUESTS, AT_ONCE, STREAMS = 400, 8, 4
CHECKED = 150
"""Of so many answers it is asked whether they are what their adapter says alone."""


@dataclass(frozen=True)
class AdapterFigures:
    """Of requests whose adapter was in memory when they were sent (hot), or was not (cold); TTFT in seconds."""

    errors: int
    rows_wrong: int
    hit_rate: float
    hot_p50_s: float
    hot_p95_s: float
    cold_p50_s: float
    cold_p95_s: float
    longest_s: float
    requests_per_s: float

    def parts(self) -> dict[str, float]:
        return {f"adapters_{ADAPTERS}_{name}": value for name, value in msgspec.to_builtins(self).items()}


def measure(folder: Path, base: Path) -> AdapterFigures:
    with running_valkey(folder, free_port()) as redis_url:
        cluster = Cluster(folder, redis_url)
        names = [f"ft:{MODEL}:bench:zipf:{seed:016x}" for seed in range(1, 1 + ADAPTERS)]
        adapters = [
            publish_random_adapter(base, cluster.blobs, name, seed, strength=STRENGTH)
            for seed, name in enumerate(names, 1)
        ]
        try:
            cluster.start()
            return asyncio.run(_measure(cluster, base, adapters))
        finally:
            cluster.stop()


async def _measure(cluster: Cluster, base: Path, adapters: Sequence[AdapterRef]) -> AdapterFigures:
    shipped = read_model_spec((shipped_specs() / f"{MODEL}.yaml").read_bytes())
    room = msgspec.structs.replace(shipped.accelerator("cpu"), lora=LoraRoomSpec(SLOTS, PLACES))
    spec = msgspec.structs.replace(shipped, lora=LoraSpec(max_lora_rank=8), accelerators={"cpu": room})
    config = serve_config([ServedModel(spec, str(base))], host="127.0.0.1", port=cluster.proxy_port)
    await deploy(cluster, MODEL, config)
    patient = aiohttp.ClientTimeout(total=300)
    async with (
        RayServe(cluster.dashboard_url, cluster.token) as serve,
        ReplicaClient(cluster.bearer) as control,
        aiohttp.ClientSession(timeout=patient, connector=aiohttp.TCPConnector(limit=0)) as http,
    ):
        (target,) = await serve.targets()
        caller = ReplicaCaller(cluster, target, http, control)
        await zipf_answers(caller, adapters, 64, at_once=8, seed=2)  # warm
        began = time.monotonic()
        async with _streams(caller):
            answers = await zipf_answers(caller, adapters, REQUESTS, at_once=AT_ONCE)
        took_s = time.monotonic() - began
        checked = random.Random(3).sample([answer for answer in answers if answer.status == 200], CHECKED)
        return _figures(answers, len(await wrong_rows(caller, checked)), took_s)


def _figures(answers: Sequence[AdapterAnswer], wrong: int, took_s: float) -> AdapterFigures:
    fine = [answer for answer in answers if answer.status == 200]
    hot = [answer.first_s for answer in fine if answer.resident]
    cold = [answer.first_s for answer in fine if not answer.resident]
    return AdapterFigures(
        errors=len(answers) - len(fine),
        rows_wrong=wrong,
        hit_rate=round(len(hot) / len(fine), 3),
        hot_p50_s=round(percentile(hot, 0.5), 3),
        hot_p95_s=round(percentile(hot, 0.95), 3),
        cold_p50_s=round(percentile(cold, 0.5), 3),
        cold_p95_s=round(percentile(cold, 0.95), 3),
        longest_s=round(max(hot + cold), 3),
        requests_per_s=round(len(answers) / took_s, 2),
    )


@contextlib.asynccontextmanager
async def _streams(caller: ReplicaCaller) -> AsyncIterator[None]:
    """Keep streams of the base running meanwhile, each of another organization."""

    async def keep_asking(number: int) -> None:
        owner = OrganizationId(f"org_stream_{number}")
        body = {**chat(QUESTION, max_tokens=64, stream=True, ignore_eos=True), "cache_salt": f"stream{number}"}
        while True:
            async with caller.send(body, claims(organization=owner)) as response:
                assert response.status == 200, await response.text()
                await response.read()

    tasks = [asyncio.create_task(keep_asking(number)) for number in range(STREAMS)]
    try:
        yield
        assert not any(task.done() for task in tasks), "a stream failed"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _base() -> Path:
    folder = Path(os.environ.get("TOKENYARD_TEST_MODEL") or ROOT / "build" / "models" / MODEL)
    source, spec = source_of(MODEL, shipped_specs())
    assert spec is not None
    pull(source, folder, lambda _step: None, template=spec.chat_template)
    return folder


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="tokenyard-bench-", ignore_cleanup_errors=True) as name:
        print("500 adapters on one replica, eight in a batch, 32 in memory ...", flush=True)  # noqa: T201
        figures = measure(Path(name), _base())
    add_figures("serving", figures.parts())


if __name__ == "__main__":
    main()
