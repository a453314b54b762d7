"""Speaks to a real replica as the gateway does, and reads its reports as the ledger does."""

import asyncio
import json
import secrets
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import psutil
from redis.asyncio import Redis

from support.redis_reader import read_usage
from tokenyard.clients.replica import ReplicaClient
from tokenyard.core.adapters import AdapterRef
from tokenyard.core.ids import ApiKeyId, AttemptId, OrganizationId, PriceId, ProjectId
from tokenyard.core.replica import Replica
from tokenyard.core.usage import MeterClaims
from tokenyard.metering import header as meter
from tokenyard.metering.events import ReplicaReported

MODEL = "smollm2-135m-instruct"
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
ORGANIZATION = OrganizationId("org_test")
REPORT_TIMEOUT_S = 60.0
DATA = b"data: "


class ReplicaCluster(Protocol):
    """A started cluster of replicas, as far as a caller must know it."""

    redis_url: str
    meter_secret: bytes
    bearer: str
    blobs: Path

    def processes(self) -> list[psutil.Process]: ...


def engines(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return the engines' processes: a replica's server forks them, under a command line that stays the server's.

    It forks those that try grammars out, too, which are nicer than it.
    """
    return [
        one
        for one in processes
        if (server := one.parent()) is not None
        and "multiprocessing.forkserver" in " ".join(server.cmdline())
        and one.nice() == server.nice()
        and (replica := server.parent()) is not None
        and "ray::ServeReplica" in " ".join(replica.cmdline())
    ]


def claims(
    adapter: AdapterRef | None = None, endpoint: str = CHAT, organization: OrganizationId = ORGANIZATION
) -> MeterClaims:
    """Return the claims of a new attempt."""
    return MeterClaims(
        attempt=AttemptId(f"req_{secrets.token_hex(16)}.1"),
        organization=organization,
        project=ProjectId("proj_test"),
        key=ApiKeyId("key_test"),
        model=adapter.name if adapter else MODEL,
        base_model=MODEL,
        price=PriceId("2026-01-01/test"),
        admitted_at_ms=1,
        endpoint=endpoint,
        adapter=adapter,
    )


def chat(content: str, *, max_tokens: int = 8, **more: Any) -> dict[str, Any]:
    """Return the body of a chat of one message."""
    messages = [{"role": "user", "content": content}]
    return {"model": MODEL, "messages": messages, "max_tokens": max_tokens, "temperature": 0, **more}


class ReplicaCaller:
    """One replica, called with all that it demands."""

    def __init__(
        self, cluster: ReplicaCluster, target: Replica, http: aiohttp.ClientSession, control: ReplicaClient
    ) -> None:
        self.target = target
        self.control = control
        self.replica = Replica(name=target.name, model=MODEL, url=target.url)
        self.cluster = cluster
        self._http = http

    def send(
        self, body: dict[str, Any], claims: MeterClaims, **headers: str
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        sent = {
            "authorization": f"Bearer {self.cluster.bearer}",
            meter.HEADER: meter.sign(claims, self.cluster.meter_secret),
            "x-request-id": claims.attempt,
            **headers,
        }
        return self._http.post(self.target.url + claims.endpoint, json=body, headers=sent)

    async def ask(self, body: dict[str, Any], claims: MeterClaims) -> dict[str, Any]:
        async with self.send(body, claims) as response:
            answer: dict[str, Any] = await response.json()
            assert response.status == 200, answer
            return answer

    async def stream(self, body: dict[str, Any], claims: MeterClaims) -> list[dict[str, Any]]:
        """Return every event of a stream but its last, `[DONE]`."""
        async with self.send({**body, "stream": True}, claims) as response:
            assert response.status == 200, await response.text()
            events = [line.removeprefix(DATA).strip() async for line in response.content if line.startswith(DATA)]
        assert events.pop() == b"[DONE]"
        return [json.loads(event) for event in events]

    async def get(self, path: str) -> tuple[int, str]:
        headers = {"authorization": f"Bearer {self.cluster.bearer}"}
        async with self._http.get(self.target.url + path, headers=headers) as response:
            return response.status, await response.text()

    async def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Ask for what nobody is billed for."""
        headers = {"authorization": f"Bearer {self.cluster.bearer}"}
        async with self._http.post(self.target.url + path, json=body, headers=headers) as response:
            return response.status, await response.json()

    async def report(self, attempt: str) -> ReplicaReported:
        """Wait for the one report of `attempt`."""
        async with asyncio.timeout(REPORT_TIMEOUT_S):
            while not (found := await reports(self.cluster.redis_url, ORGANIZATION, attempt)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert len(found) == 1
        return found[0]

    async def generated(self) -> float:
        """Return how many tokens the engine says it has made."""
        _, text = await self.get("/metrics")
        lines = [line for line in text.splitlines() if line.startswith("vllm:generation_tokens_total")]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    async def idle(self) -> None:
        """Wait until nothing runs and nothing waits."""
        async with asyncio.timeout(REPORT_TIMEOUT_S):
            while (state := await self.control.stats(self.target)).running or state.waiting:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def reports(redis_url: str, organization: OrganizationId, attempt: str) -> list[ReplicaReported]:
    """Return the replicas' reports of `attempt` that are on the stream."""
    async with Redis.from_url(redis_url) as redis:
        events = await read_usage(redis, organization)
    return [one for one in events if isinstance(one, ReplicaReported) and one.claims.attempt == attempt]
