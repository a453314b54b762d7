"""A replica that says it is ready has nothing left to prepare: no first request of any kind stalls the engine."""

import asyncio
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tokenyard.clients.ray_serve import RayServe
from tokenyard.clients.replica import ReplicaClient
from tokenyard.core.adapters import AdapterRef
from tokenyard.core.ids import ApiKeyId, AttemptId, OrganizationId, PriceId, ProjectId
from tokenyard.core.replica import Replica, ReplicaLost
from tokenyard.core.usage import MeterClaims
from tokenyard.metering import header as meter

pytestmark = [pytest.mark.long, pytest.mark.timeout(900), pytest.mark.asyncio]

MODEL = "smollm2-135m-instruct"
CHAT = "/v1/chat/completions"
REPLACED_TIMEOUT_S = 300.0
# A first request may well be slower, by caches of the processor and the like, but not by a compiler or an import.
TIMES_SLOWER = 3.0
SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "pattern": "^[A-Z][a-z]{1,9}$"}}}

KINDS: dict[str, dict[str, Any]] = {
    "logprobs": {"logprobs": True, "top_logprobs": 3},
    "sampled": {"temperature": 0.9, "top_p": 0.8},
    "seeded": {"temperature": 0.9, "top_k": 7, "min_p": 0.05, "seed": 11},
    "penalties": {"frequency_penalty": 0.3, "presence_penalty": 0.3, "repetition_penalty": 1.2, "logit_bias": {"7": 2}},
    "json": {"response_format": {"type": "json_object"}},
    "schema": {"response_format": {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}},
}


class FreshReplica:
    """A replica on which nothing but its own preparation has run."""

    def __init__(self, cluster: Any, target: Replica, http: aiohttp.ClientSession) -> None:
        self._cluster = cluster
        self._target = target
        self._http = http

    async def seconds(self, body: dict[str, Any], adapter: AdapterRef | None = None) -> float:
        """Ask, and return how long the answer took; each prompt is new, so that no cache answers."""
        claims = MeterClaims(
            attempt=AttemptId(f"req_{secrets.token_hex(8)}.1"),
            organization=OrganizationId("org_first"),
            project=ProjectId("p"),
            key=ApiKeyId("k"),
            model=adapter.name if adapter else MODEL,
            base_model=MODEL,
            price=PriceId("c/m"),
            admitted_at_ms=1,
            endpoint=CHAT,
            adapter=adapter,
        )
        headers = {
            "authorization": f"Bearer {self._cluster.bearer}",
            meter.HEADER: meter.sign(claims, self._cluster.meter_secret),
        }
        messages = [{"role": "user", "content": f"{secrets.token_hex(8)}: name a city"}]
        sent = {"model": claims.model, "messages": messages, "max_tokens": 8, "temperature": 0, **body}
        began = time.monotonic()
        async with self._http.post(self._target.url + CHAT, json=sent, headers=headers) as response:
            assert response.status == 200, await response.text()
            await response.read()
        return time.monotonic() - began


async def replaced(cluster: Any) -> Replica:
    """Kill the replica; return the one that comes instead."""
    async with (
        RayServe(cluster.dashboard_url, cluster.token) as serve,
        ReplicaClient(cluster.bearer) as control,
        asyncio.timeout(REPLACED_TIMEOUT_S),
    ):
        (before,) = await serve.targets()
        for process in cluster.processes():
            if "ray::ServeReplica" in " ".join(process.cmdline()):
                process.kill()
        while True:
            for target in await serve.targets():
                if target.name != before.name:
                    try:
                        await control.stats(target)
                    except ReplicaLost:
                        continue
                    return target
            await asyncio.sleep(0.2)


async def test_no_first_request_after_ready_waits_for_something_to_be_made(
    deployed: Any, publish_adapter: Callable[[Path, str, int], AdapterRef]
) -> None:
    adapter = publish_adapter(deployed.blobs, "ft:smollm2-135m-instruct:test:first:0000000000000051", 51)
    target = await replaced(deployed)
    async with aiohttp.ClientSession() as http, ReplicaClient(deployed.bearer) as control:
        fresh = FreshReplica(deployed, target, http)
        first = {kind: await fresh.seconds(body) for kind, body in KINDS.items()}
        # Loading its files is another matter.
        await control.load(Replica(name=target.name, model=MODEL, url=target.url), adapter)
        first["adapter"] = await fresh.seconds({}, adapter)
        later = {kind: await typical(fresh, body) for kind, body in KINDS.items()}
        later["adapter"] = await typical(fresh, {}, adapter)
    slow = {kind: (first[kind], later[kind]) for kind in first if first[kind] > TIMES_SLOWER * later[kind]}
    assert not slow, "seconds of the first and of a later request"


async def typical(replica: FreshReplica, body: dict[str, Any], adapter: AdapterRef | None = None) -> float:
    """Return the slowest of three: the machine may be busy with something else at any time."""
    return max([await replica.seconds(body, adapter) for _ in range(3)])
