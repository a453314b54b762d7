"""What happens when the engine or the whole replica is killed while it serves: cut streams, true reports, a new one."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import aiohttp
import msgspec
import psutil
import pytest

from support.replica_caller import CHAT, ORGANIZATION, chat, claims, engines, reports
from tokenyard.clients.ray_serve import RayServe
from tokenyard.clients.replica import ReplicaClient
from tokenyard.core.ids import AttemptId
from tokenyard.core.replica import ENGINE_DEAD, Replica, ReplicaLost
from tokenyard.metering import header as meter

if TYPE_CHECKING:
    from support.ray_cluster.serving_cluster import Cluster

pytestmark = [pytest.mark.timeout(900), pytest.mark.asyncio]

GONE_TIMEOUT_S = 30.0
REPLACED_TIMEOUT_S = 300.0
TOKENS_BEFORE_DEATH = 8


@pytest.fixture
async def serve(deployed: "Cluster") -> AsyncIterator[RayServe]:
    async with RayServe(deployed.dashboard_url, deployed.token) as client:
        yield client


async def answering(serve: RayServe, bearer: str, *, other_than: str = "") -> Replica:
    """Wait for a replica that answers."""
    async with ReplicaClient(bearer) as control, asyncio.timeout(REPLACED_TIMEOUT_S):
        while True:
            for target in await serve.targets():
                if target.name != other_than:
                    try:
                        await control.stats(target)
                    except ReplicaLost:
                        continue
                    return target
            await asyncio.sleep(0.2)


def stream(
    http: aiohttp.ClientSession, deployed: "Cluster", target: Replica, attempt: str
) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
    signed = msgspec.structs.replace(claims(), attempt=AttemptId(attempt))
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = chat("Tell me about the sea.", max_tokens=900, ignore_eos=True, stream=True, stream_options=options)
    headers = {
        "authorization": f"Bearer {deployed.bearer}",
        meter.HEADER: meter.sign(signed, deployed.meter_secret),
    }
    return http.post(target.url + CHAT, json=body, headers=headers)


async def relayed_until_cut(response: aiohttp.ClientResponse, victim: psutil.Process) -> tuple[int, bool]:
    """Read a stream, kill `victim` in its midst; return the tokens seen and whether the stream came to its end."""
    seen, ended = 0, False
    try:
        async for line in response.content:
            if line.startswith(b"data: {") and b'"usage"' in line:
                usage = json.loads(line.removeprefix(b"data: ")).get("usage")
                seen = usage["completion_tokens"] if usage else seen
            ended = ended or line.startswith(b"data: [DONE]")
            if seen >= TOKENS_BEFORE_DEATH and victim.is_running():
                victim.kill()
    except aiohttp.ClientError:
        return seen, False
    return seen, ended


async def comes_to_its_end(response: aiohttp.ClientResponse) -> bool:
    try:
        return any([line.startswith(b"data: [DONE]") async for line in response.content])
    except aiohttp.ClientError:
        return False


def process(deployed: "Cluster", title: str) -> psutil.Process:
    (found,) = [one for one in deployed.processes() if title in " ".join(one.cmdline())]
    return found


async def gone(victims: list[psutil.Process]) -> None:
    async with asyncio.timeout(GONE_TIMEOUT_S):
        while any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in victims):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_the_replica_follows_its_engine_and_reports_first(deployed: "Cluster", serve: RayServe) -> None:
    target = await answering(serve, deployed.bearer)
    replica, (engine,) = process(deployed, "ray::ServeReplica"), engines(deployed.processes())
    attempt = f"req_{secrets.token_hex(8)}.1"
    async with aiohttp.ClientSession() as http, stream(http, deployed, target, attempt) as response:
        seen, _ = await relayed_until_cut(response, engine)
    await gone([replica, engine])
    async with asyncio.timeout(GONE_TIMEOUT_S):
        while not (found := await reports(deployed.redis_url, ORGANIZATION, attempt)):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert len(found) == 1
    assert not found[0].finished
    assert found[0].usage.completion_tokens >= seen >= TOKENS_BEFORE_DEATH
    replacement = await answering(serve, deployed.bearer, other_than=target.name)
    assert replacement.name != target.name


async def test_a_killed_replica_is_replaced_and_leaves_no_engine(deployed: "Cluster", serve: RayServe) -> None:
    target = await answering(serve, deployed.bearer)
    replica = process(deployed, "ray::ServeReplica")
    engine = engines(replica.children(recursive=True))
    assert engine
    attempt = f"req_{secrets.token_hex(8)}.1"
    async with aiohttp.ClientSession() as http, stream(http, deployed, target, attempt) as response:
        seen, ended = await relayed_until_cut(response, replica)
    assert not ended
    assert seen >= TOKENS_BEFORE_DEATH
    await gone([replica, *engine])
    # Nobody is left to report it: the gateway's count of what it relayed is billed.
    assert await reports(deployed.redis_url, ORGANIZATION, attempt) == []
    replacement = await answering(serve, deployed.bearer, other_than=target.name)
    assert replacement.name != target.name


async def answer_to(
    http: aiohttp.ClientSession, deployed: "Cluster", target: Replica, attempt: str
) -> tuple[int, str | None]:
    """Ask for a whole answer; return its status and the code of its error."""
    signed = msgspec.structs.replace(claims(), attempt=AttemptId(attempt))
    headers = {"authorization": f"Bearer {deployed.bearer}", meter.HEADER: meter.sign(signed, deployed.meter_secret)}
    async with http.post(target.url + CHAT, json=chat("Hello"), headers=headers) as response:
        return response.status, (await response.json()).get("error", {}).get("code")


@pytest.mark.long
async def test_an_engine_that_hangs_ends_its_replica(deployed: "Cluster", serve: RayServe) -> None:
    """Its process is stopped: it lives, and says nothing. Here silence is noticed after 10 s, and a wait ends at 15."""
    target = await answering(serve, deployed.bearer)
    replica, (engine,) = process(deployed, "ray::ServeReplica"), engines(deployed.processes())
    begun, waiting, late = (f"req_{secrets.token_hex(8)}.1" for _ in range(3))
    seen = 0
    async with aiohttp.ClientSession() as http, stream(http, deployed, target, begun) as response:
        async for line in response.content:
            if line.startswith(b"data: {") and b'"usage"' in line:
                usage = json.loads(line.removeprefix(b"data: ")).get("usage")
                seen = usage["completion_tokens"] if usage else seen
            if seen >= TOKENS_BEFORE_DEATH:
                break
        engine.suspend()
        waits = asyncio.create_task(answer_to(http, deployed, target, waiting))
        await asyncio.sleep(8)
        comes_late = asyncio.create_task(answer_to(http, deployed, target, late))
        assert not await comes_to_its_end(response)
        assert await waits == (503, "server_is_overloaded")
        assert await comes_late == (503, ENGINE_DEAD)
    await gone([replica, engine])
    (of_begun,) = await reports(deployed.redis_url, ORGANIZATION, begun)
    assert not of_begun.finished
    assert of_begun.usage.completion_tokens >= seen
    for attempt in (waiting, late):
        (report,) = await reports(deployed.redis_url, ORGANIZATION, attempt)
        assert report.usage.total_tokens == 0
    replacement = await answering(serve, deployed.bearer, other_than=target.name)
    assert replacement.name != target.name
