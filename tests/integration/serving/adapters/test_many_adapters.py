"""Sixty adapters take turns in three places of memory and two slots of a batch, while another's stream runs."""

import asyncio
from pathlib import Path

import pytest

from support.adapters.random_adapters import publish_random_adapter
from support.adapters.zipf_load import QUESTION, STRENGTH, wrong_rows, zipf_answers
from support.replica_caller import MODEL, ReplicaCaller, chat, claims
from tokenyard.core.ids import OrganizationId

pytestmark = [pytest.mark.long, pytest.mark.timeout(500), pytest.mark.asyncio]

SEEDS, REQUESTS, AT_ONCE = range(1001, 1061), 60, 4


async def metric(caller: ReplicaCaller, name: str) -> float:
    _, text = await caller.get("/metrics")
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(line.rpartition(" ")[2])


async def test_each_gets_its_own_answers_and_none_starves(caller: ReplicaCaller, base_model: Path) -> None:
    blobs, names = caller.cluster.blobs, {seed: f"ft:{MODEL}:test:zipf:{seed:016x}" for seed in SEEDS}
    adapters = [publish_random_adapter(base_model, blobs, names[seed], seed, strength=STRENGTH) for seed in SEEDS]
    streams, going = [0], True

    async def stream(number: int) -> None:
        while going:
            owner = claims(organization=OrganizationId(f"org_base_{number}"))
            body = {**chat(QUESTION, max_tokens=32, stream=True, ignore_eos=True), "cache_salt": f"base{number}"}
            async with caller.send(body, owner) as response:
                assert response.status == 200, await response.text()
                await response.read()
            streams[number] += 1

    running = [asyncio.create_task(stream(number)) for number in range(len(streams))]
    try:
        answers = await zipf_answers(caller, adapters, REQUESTS, at_once=AT_ONCE)
    finally:
        going = False
        await asyncio.gather(*running)
    assert {answer.status for answer in answers} == {200}
    assert len({answer.adapter.name for answer in answers}) > 20
    assert max(answer.first_s for answer in answers) < 15, "nobody waits as long as it may"
    assert all(streams), "the base is served meanwhile"
    assert await wrong_rows(caller, answers) == []
    assert await metric(caller, "tokenyard_adapters_resident") == 3
    assert await metric(caller, "tokenyard_adapters_places") == 3
    evictions = await metric(caller, "tokenyard_adapter_evictions_total")
    assert await metric(caller, "tokenyard_adapter_loads_total") == evictions + 3
    assert evictions > 20
    assert await metric(caller, "tokenyard_adapter_load_failures_total") >= 0
    assert await metric(caller, "tokenyard_adapters_disk_bytes") > len(SEEDS) / 2 * 100_000
    downloads = 'tokenyard_adapter_lookups_total{place="store"}'
    before = await metric(caller, downloads)
    await zipf_answers(caller, adapters[:6], 10, at_once=2)  # which are on the disk by now
    assert await metric(caller, downloads) == before
