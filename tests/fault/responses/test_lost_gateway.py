"""A gateway process is killed while it makes a response in the background."""

from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
from aiohttp import ClientResponse
from redis.asyncio import Redis

from support.fakes.clock import FrozenClock
from support.gateway_stack import until
from support.redis_reader import read_usage
from support.servers.gateways import MODEL, running_gateways
from tokenyard.core.ids import OrganizationId
from tokenyard.metering.events import ReplicaReported
from tokenyard.responses.operator_store import AnswerOperatorStore
from tokenyard.responses.store import LEASE_MS

RETENTION_MS = 86_400_000


@pytest.mark.parametrize("stream", [False, True])
async def test_the_response_fails_after_its_lease_and_one_report_is_left_to_charge(
    tmp_path: Path, stream: bool
) -> None:
    async with running_gateways(tmp_path, 2) as fleet:
        key = await fleet.new_tenant("acme")
        fleet.server.behaviour.silent_at = 3
        body = {"model": MODEL, "input": "x", "background": True, "stream": stream}
        headers = {"authorization": f"Bearer {key}"}
        reply = await fleet.http.post(f"{fleet.urls[0]}/v1/responses", json=body, headers=headers)
        made = await _first_event(reply) if stream else await reply.json()
        await until(lambda: [sent.completion_tokens for sent in fleet.server.log] == [3])
        if stream:
            await until(lambda: _says(fleet.call(1, "GET", f"/v1/responses/{made['id']}", key), "word3 "))
        _kill_gateway_at(fleet.urls[0])
        (sent,) = fleet.server.log
        await until(lambda: sent.aborted)
        assert (await _retrieved(fleet.call(1, "GET", f"/v1/responses/{made['id']}", key)))["status"] != "failed"

        now_ms = fleet.foundation.clock.now_ms()
        later = FrozenClock((now_ms + LEASE_MS + 1000) / 1000)
        worker = AnswerOperatorStore(fleet.foundation.database, later, retention_ms=RETENTION_MS)
        assert await worker.fail_lost() == [made["id"]]
        assert await worker.fail_lost() == []
        found = await _retrieved(fleet.call(1, "GET", f"/v1/responses/{made['id']}", key))
        assert (found["status"], found["error"]["code"]) == ("failed", "server_error")
        if stream:
            events = await fleet.call(1, "GET", f"/v1/responses/{made['id']}?stream=true", key)
            told = (await events.read()).split(b"\n\n")
            assert [event.partition(b"\n")[0] for event in told[:3]] == [
                b"event: response.created",
                b"event: response.queued",
                b"event: response.in_progress",
            ]
            assert told[-2].startswith(b"event: response.failed")
            assert sum(event.startswith(b"event: response.output_text.delta") for event in told) == 3
        cancelled = await fleet.call(1, "POST", f"/v1/responses/{made['id']}/cancel", key)
        assert (await cancelled.json())["status"] == "failed"

        organization = OrganizationId(sent.claims.organization)
        await until(lambda: _is_reported(fleet.foundation.redis, organization))
        (report,) = await read_usage(fleet.foundation.redis, organization)
        assert isinstance(report, ReplicaReported)
        assert report.usage.completion_tokens == 3


async def _retrieved(call: Awaitable[ClientResponse]) -> dict[str, Any]:
    response = await call
    assert response.status == 200
    found: dict[str, Any] = await response.json()
    return found


async def _first_event(reply: ClientResponse) -> dict[str, Any]:
    """Return the response that a stream begins with."""
    assert (await reply.content.readline()) == b"event: response.created\n"
    begun: dict[str, Any] = orjson.loads((await reply.content.readline()).removeprefix(b"data: "))["response"]
    return begun


async def _says(call: Awaitable[ClientResponse], text: str) -> bool:
    return text in str((await _retrieved(call))["output"])


async def _is_reported(redis: Redis, organization: OrganizationId) -> bool:
    return bool(await read_usage(redis, organization))


def _kill_gateway_at(url: str) -> None:
    port = url.rpartition(":")[2]
    for child in psutil.Process().children():
        if child.environ().get("TOKENYARD_GATEWAY_PORT") == port:
            child.kill()
