"""Requests under an idempotency key: they run on without their client, are charged once, and are had again."""

import asyncio
import re
from pathlib import Path

import msgspec
import pytest
from aiohttp import ClientResponse, ClientSession
from redis.asyncio import Redis

from support.fakes.admission_requests import ORGANIZATION, principal
from support.fakes.gateway_ports import BASE
from support.gateway_stack import CHAT, HELLO, KEY, OTHER, OTHER_KEY, GatewayStack, gateway_stack, until
from tokenyard.core.ids import ProjectId
from tokenyard.core.principal import Limits
from tokenyard.core.redis_keys import bucket_of, revision
from tokenyard.gateway.idempotency.recording import MAX_REPLY_BYTES
from tokenyard.gateway.path.in_flight import InFlightBounds
from tokenyard.metering.events import Outcome

ASK: dict[str, object] = {"model": BASE.id, "messages": HELLO}
STREAM: dict[str, object] = {**ASK, "stream": True}
ONCE = {"idempotency_key": "order 17"}


async def _ask(
    gateway: GatewayStack, session: ClientSession, body: dict[str, object], *, key: str = KEY, **headers: str
) -> tuple[ClientResponse, bytes]:
    response = await gateway.post(session, body, key=key, **{**ONCE, **headers})
    return response, await response.read()


async def _leave(gateway: GatewayStack, session: ClientSession, body: dict[str, object], *, lines: int = 0) -> bytes:
    """Send a request and leave once it runs, or after so many lines; return what was received."""
    runs = len(gateway.server.log)
    asking = asyncio.create_task(gateway.post(session, body, **ONCE))
    if not lines:
        await until(lambda: len(gateway.server.log) > runs)
        asking.cancel()
        await asyncio.wait([asking])
        return b""
    response = await asking
    received = b"".join([await response.content.readline() for _ in range(lines)])
    response.close()
    return received


async def _had(gateway: GatewayStack, session: ClientSession, body: dict[str, object], **headers: str) -> bytes:
    """Return the reply once it can be had."""
    async with asyncio.timeout(20):
        while True:
            response, data = await _ask(gateway, session, body, **headers)
            if response.status != 409:
                break
            await asyncio.sleep(0.05)
    assert response.status == 200, data
    assert response.headers["idempotent-replayed"] == "true"
    return data


@pytest.mark.parametrize("body", [ASK, STREAM], ids=["whole", "stream"])
async def test_leaving_before_the_answer(gateway: GatewayStack, body: dict[str, object]) -> None:
    gateway.server.behaviour.token_delay_s = 0.05
    async with ClientSession() as session:
        await _leave(gateway, session, body)
        data = await _had(gateway, session, body)
    assert b"word8" in data
    (settled,) = await gateway.settled(1)
    assert settled.outcome is Outcome.COMPLETED
    assert settled.usage == gateway.server.log[0].usage
    assert not gateway.server.log[0].aborted
    await gateway.nothing_is_held()


async def test_leaving_in_a_stream_and_going_on(gateway: GatewayStack) -> None:
    gateway.server.behaviour.token_delay_s = 0.03
    async with ClientSession() as session:
        received = await _leave(gateway, session, STREAM, lines=8)
        whole = await _had(gateway, session, STREAM)
        assert whole.startswith(received)
        ids = [int(number) for number in re.findall(rb"(?m)^id: (\d+)$", whole)]
        assert ids == list(range(1, 11)), "a role, eight tokens and the end"
        for event in (0, 1, 5, 10):
            rest = await _had(gateway, session, STREAM, last_event_id=str(event))
            assert b"".join(whole.split(b"\n\n", event)[event:]) == rest
    (settled,) = await gateway.settled(1)
    assert settled.outcome is Outcome.COMPLETED
    assert settled.usage.completion_tokens == 8
    assert len(gateway.server.log) == 1


async def test_without_a_key_events_have_no_id(gateway: GatewayStack) -> None:
    async with ClientSession() as session:
        response = await gateway.post(session, STREAM)
        assert b"id: " not in (await response.read()).replace(b'"id": ', b"")


async def test_a_client_that_stops_reading_does_not_hold_its_request_up(redis: Redis, tmp_path: Path) -> None:
    async with (
        gateway_stack(redis, tmp_path, stalled_s=0.5) as gateway,
        ClientSession(read_bufsize=1024) as session,
    ):
        behaviour = gateway.server.behaviour
        behaviour.tokens, behaviour.content = 500, "x" * 32_000
        response = await gateway.post(session, {**STREAM, "max_tokens": 500}, **ONCE)
        (settled,) = await gateway.settled(1)
        response.close()
        assert settled.outcome is Outcome.COMPLETED
        assert settled.usage.completion_tokens == 500


async def test_two_at_once_are_one_request(gateway: GatewayStack) -> None:
    gateway.server.behaviour.token_delay_s = 0.05
    async with ClientSession() as session:
        found = await asyncio.gather(*(_ask(gateway, session, ASK) for _ in range(10)))
        assert sorted(response.status for response, _ in found) == [200] + 9 * [409]
        for response, data in found:
            if response.status == 409:
                assert msgspec.json.decode(data)["error"]["code"] == "idempotency_key_in_use"
                assert int(response.headers["retry-after"]) >= 1
    assert len(gateway.server.log) == 1
    await gateway.settled(1)


async def test_projects_and_organizations_have_their_own_keys(gateway: GatewayStack) -> None:
    red = msgspec.structs.replace(principal(), project=ProjectId("proj_red"))
    gateway.keys.tenants |= {"ty-red": red, "ty-same": principal()}
    async with ClientSession() as session:
        bodies = [(await _ask(gateway, session, ASK, key=key))[1] for key in (KEY, "ty-red", OTHER_KEY)]
        assert len(set(bodies)) == 3, "each its own id"
        assert (await _ask(gateway, session, ASK, key="ty-same"))[1] == bodies[0]
        assert (await _ask(gateway, session, ASK, key="ty-red"))[1] == bodies[1]
    assert len(gateway.server.log) == 3
    await gateway.settled(2)
    await gateway.settled(1, OTHER)


async def test_a_revoked_key_gets_no_earlier_reply(gateway: GatewayStack, redis: Redis) -> None:
    async with ClientSession() as session:
        await _ask(gateway, session, ASK)
        gateway.keys.cached[KEY] = gateway.keys.tenants.pop(KEY)
        await redis.set(revision(bucket_of(ORGANIZATION), ORGANIZATION), 2)
        assert (await _ask(gateway, session, ASK))[0].status == 401
        gateway.keys.tenants[KEY] = principal(revision=2)
        assert (await _ask(gateway, session, ASK))[0].headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize("failure", ["refused", "lost", "failed", "limited", "no model"])
async def test_a_failure_before_the_first_byte_frees_the_key(gateway: GatewayStack, failure: str) -> None:
    behaviour, ask = gateway.server.behaviour, ASK
    if failure == "refused":
        behaviour.status, behaviour.body = 400, b'{"error": {"message": "no"}}'
    elif failure == "lost":
        behaviour.cut_at = 0
    elif failure == "failed":
        behaviour.status = 500
    elif failure == "limited":
        gateway.limit(tokens_per_minute=1)
    else:
        gateway.replicas.listed, listed = [], gateway.replicas.listed
    async with ClientSession() as session:
        for _ in range(2):
            response, data = await _ask(gateway, session, ask)
            assert response.status in {400, 429, 500, 502, 503}, data
        behaviour.status, behaviour.cut_at = 200, None
        gateway.keys.tenants[KEY] = principal()
        if failure == "no model":
            gateway.replicas.listed = listed
        response, _ = await _ask(gateway, session, ask)
        assert response.status == 200
        assert "idempotent-replayed" not in response.headers

    async def completed_once() -> bool:
        return [event.outcome for event in await gateway.events()].count(Outcome.COMPLETED) == 1

    await until(completed_once)


async def test_a_stream_that_failed_is_had_as_it_was(gateway: GatewayStack) -> None:
    """It was charged, so it is never run again under the same key."""
    gateway.server.behaviour.cut_at = 3
    async with ClientSession() as session:
        _, first = await _ask(gateway, session, STREAM)
        assert b'"error"' in first
        gateway.server.behaviour.cut_at = None
        assert await _had(gateway, session, STREAM) == first
    (settled,) = await gateway.settled(1)
    assert settled.outcome is Outcome.REPLICA_LOST
    assert settled.usage.completion_tokens == 3


@pytest.mark.parametrize("body", [ASK, STREAM], ids=["whole", "stream"])
async def test_a_reply_that_is_too_long_is_served_and_gone(gateway: GatewayStack, body: dict[str, object]) -> None:
    gateway.server.behaviour.content = "x" * 200_000
    async with ClientSession() as session:
        response, data = await _ask(gateway, session, body)
        assert response.status == 200
        assert len(data) > MAX_REPLY_BYTES
        response, data = await _ask(gateway, session, body)
        assert response.status == 410
        assert response.headers["x-should-retry"] == "false"
        assert b"use another key" in data
    (settled,) = await gateway.settled(1)
    assert settled.outcome is Outcome.COMPLETED
    assert settled.usage.completion_tokens == 8


async def test_who_starts_and_leaves_meets_its_own_bounds(redis: Redis, tmp_path: Path) -> None:
    bounds = InFlightBounds(requests=100, requests_of_one=3)
    async with gateway_stack(redis, tmp_path, in_flight=bounds) as gateway, ClientSession() as session:
        gateway.server.behaviour.token_delay_s = 0.3
        for number in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await gateway.status(session, ASK, idempotency_key=f"key-{number}")
        refused = await gateway.post(session, ASK, idempotency_key="one more")
        assert refused.status == 429
        assert await gateway.status(session, ASK) == 429
        assert await gateway.status(session, {**ASK, "max_tokens": 1}, key=OTHER_KEY) == 200
        assert len(await gateway.settled(3)) == 3


async def test_concurrency_counts_those_that_left(gateway: GatewayStack) -> None:
    gateway.keys.tenants[KEY] = principal(key=Limits(concurrency=1))
    gateway.server.behaviour.token_delay_s = 0.1
    async with ClientSession() as session:
        await _leave(gateway, session, ASK)
        response, data = await _ask(gateway, session, ASK, idempotency_key="another")
        assert response.status == 429, data
        await _had(gateway, session, ASK)
        await gateway.nothing_is_held()
        assert (await _ask(gateway, session, ASK, idempotency_key="another"))[0].status == 200


async def test_what_is_recorded_counts_as_bytes_under_way(redis: Redis, tmp_path: Path) -> None:
    """Where there is no room for more of them, the request runs on, and its reply is not kept."""
    bounds = InFlightBounds(bytes=20_000, bytes_of_one=10_000)
    async with gateway_stack(redis, tmp_path, in_flight=bounds) as gateway, ClientSession() as session:
        gateway.server.behaviour.content = "x" * 2_000
        response, data = await _ask(gateway, session, STREAM)
        assert response.status == 200
        assert data.endswith(b"data: [DONE]\n\n")
        assert (await _ask(gateway, session, STREAM))[0].status == 410
        await until(lambda: gateway.app._inference._places.bytes == 0)


async def test_a_tenant_keeps_no_more_than_its_share(redis: Redis, tmp_path: Path) -> None:
    async with gateway_stack(redis, tmp_path, max_kept_bytes=70_000) as gateway, ClientSession() as session:
        gateway.server.behaviour.content = "abcdefg" * 50
        numbers = iter(range(100))
        while (asked := await _ask(gateway, session, ASK, idempotency_key=str(next(numbers))))[0].status == 200:
            pass
        response, data = asked
        assert response.status == 429
        error = msgspec.json.decode(data)["error"]
        assert error["code"] == "idempotency_storage_full"
        assert "your organization's" in error["message"]
        assert int(response.headers["retry-after"]) > 86_000
        assert (await _ask(gateway, session, ASK, key=OTHER_KEY))[0].status == 200
        assert await gateway.status(session, ASK) == 200, "without a key"
        assert (await _ask(gateway, session, ASK, idempotency_key="0"))[0].headers["idempotent-replayed"]


async def test_redis_holds_nothing_that_can_be_read(gateway: GatewayStack, redis: Redis) -> None:
    async with ClientSession() as session:
        await _ask(gateway, session, {**ASK, "messages": [{"role": "user", "content": "confidential"}]})
    found = b""
    async for name in redis.scan_iter(match="*idempotent*"):
        found += name
        if await redis.type(name) == b"hash":
            found += repr(await redis.hgetall(name)).encode()
    assert found
    for text in (b"order 17", b"confidential", b"word1", b"chat.completion"):
        assert text not in found


async def test_what_redis_holds_of_another_secret_is_gone_and_not_run(gateway: GatewayStack, redis: Redis) -> None:
    async with ClientSession() as session:
        await _ask(gateway, session, ASK)
        (name,) = [name async for name in redis.scan_iter(match="*:idempotent:*")]
        await redis.hset(name, "reply", b"x" * 100)
        assert (await _ask(gateway, session, ASK))[0].status == 410
    assert len(gateway.server.log) == 1


async def test_it_is_logged_and_counted(gateway: GatewayStack) -> None:
    async with ClientSession() as session:
        await _ask(gateway, session, ASK)
        await _ask(gateway, session, ASK)
        await until(lambda: b"replays" in b"".join(gateway.log))
    first, second = [msgspec.json.decode(line) for line in b"".join(gateway.log).splitlines()]
    assert first["reply"] == "kept"
    assert second["replays"] == first["request"]
    assert second["request"] != first["request"]
    for outcome in ("kept", "replayed"):
        assert gateway.registry.get_sample_value("tokenyard_idempotent_requests_total", {"outcome": outcome}) == 1


async def test_both_headers_are_described(gateway: GatewayStack) -> None:
    operation = gateway.app.control_plane.openapi()["paths"][CHAT]["post"]
    assert [parameter["name"] for parameter in operation["parameters"]] == ["Idempotency-Key", "Last-Event-ID"]
