"""Requests for a model that sleeps: they wake it, wait within bounds, and cost nothing where no replica comes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
from aiohttp import ClientSession
from redis.asyncio import Redis

from support.fakes.admission_requests import ORGANIZATION, principal
from support.fakes.gateway_ports import BASE
from support.fakes.model_server import Behaviour
from support.gateway_stack import HELLO, KEY, OTHER, OTHER_KEY, WALLET_NANO, GatewayStack, gateway_stack, until
from tokenyard.core.budgets import wallet
from tokenyard.core.ids import OrganizationId
from tokenyard.core.models import WakingBounds
from tokenyard.core.replica import Replica
from tokenyard.metering.events import Outcome

WHOLE: dict[str, object] = {"model": BASE.id, "messages": HELLO}
STREAM: dict[str, object] = {**WHOLE, "stream": True}
GONE = Replica("replica-gone", BASE.id, "http://127.0.0.1:9")
both = pytest.mark.parametrize("body", [WHOLE, STREAM], ids=["whole", "stream"])


class Sleeping:
    """A gateway whose model sleeps, and who asks it."""

    def __init__(self, gateway: GatewayStack, session: ClientSession) -> None:
        self.gateway = gateway
        self._session = session
        self._replica = gateway.replicas.listed[0]
        self.asked: list[asyncio.Task[tuple[int, str]]] = []
        self.sleep()

    def sleep(self, requests: int = 16, wait_s: float = 30.0, **changes: float) -> None:
        bounds = WakingBounds(requests, wait_s)
        self.gateway.models.base = msgspec.structs.replace(BASE, waking=bounds, **changes)
        self.gateway.replicas.listed.clear()

    def wake(self) -> None:
        self.gateway.replicas.listed.append(self._replica)

    async def ask(self, key: str = KEY, body: dict[str, object] = WHOLE) -> tuple[int, str]:
        """Return the status and when to come again, if that is said."""
        response = await self.gateway.post(self._session, body, key=key)
        await response.read()
        return response.status, response.headers.get("retry-after", "")

    async def waits(self, key: str = KEY, body: dict[str, object] = WHOLE) -> asyncio.Task[tuple[int, str]]:
        """Ask, and return once that waits."""
        before = self.waiting
        task = asyncio.create_task(self.ask(key, body))
        self.asked.append(task)
        await until(lambda: task.done() or self.waiting > before)
        assert not task.done(), task.result()
        return task

    @property
    def waiting(self) -> float:
        return self.gateway.registry.get_sample_value("tokenyard_requests_waiting_for_wake") or 0

    async def nothing_is_held(self) -> None:
        for organization in (ORGANIZATION, OTHER):
            await self.gateway.nothing_is_held(organization)

    def tenant(self, name: str) -> str:
        """Return the key of one more organization."""
        organization = OrganizationId(name)
        self.gateway.keys.tenants[f"ty-{name}"] = principal(organization_id=organization)
        self.gateway.budgets.set(wallet(organization), WALLET_NANO)
        return f"ty-{name}"


@pytest.fixture
async def model(redis: Redis, tmp_path: Path) -> AsyncIterator[Sleeping]:
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(gateway_stack(redis, tmp_path))
        sleeping = Sleeping(gateway, await stack.enter_async_context(ClientSession()))
        yield sleeping
        for task in sleeping.asked:
            task.cancel()
        await asyncio.gather(*sleeping.asked, return_exceptions=True)


@both
async def test_a_request_wakes_the_model_and_is_answered(model: Sleeping, body: dict[str, object]) -> None:
    request = await model.waits(body=body)
    await until(lambda: model.gateway.replicas.called_for[:1] == [BASE.id])
    model.wake()
    assert await request == (200, "")
    (settled,) = await model.gateway.settled()
    assert settled.outcome is Outcome.COMPLETED
    assert settled.claims.attempt.endswith(".1")
    assert settled.usage.completion_tokens == model.gateway.server.log[0].completion_tokens > 0
    assert model.waiting == 0


async def test_a_model_that_is_awake_is_not_called_for(model: Sleeping) -> None:
    model.wake()
    assert (await model.ask())[0] == 200
    assert model.gateway.replicas.called_for == []


async def test_where_no_replica_comes_all_are_refused_in_time_at_no_cost(model: Sleeping) -> None:
    model.sleep(wait_s=0.3)
    requests = [await model.waits(key) for key in (KEY, OTHER_KEY)]
    assert await asyncio.gather(*requests) == [(503, "15")] * 2
    for organization in (ORGANIZATION, OTHER):
        (settled,) = await model.gateway.settled(1, organization)
        assert (settled.outcome, settled.usage.total_tokens) == (Outcome.FAILED, 0)
    await model.nothing_is_held()
    assert (await model.gateway.budget()).pending == 0
    assert model.waiting == 0
    called = len(model.gateway.replicas.called_for)
    await asyncio.sleep(0.1)
    assert len(model.gateway.replicas.called_for) == called, "nobody waits any more"


async def test_one_organization_never_fills_the_queue(model: Sleeping) -> None:
    model.sleep(requests=4)
    waiting = [await model.waits(), await model.waits()]
    assert await model.ask() == (429, "15")
    waiting.append(await model.waits(OTHER_KEY))
    assert await model.ask(OTHER_KEY) == (429, "15")
    waiting.append(await model.waits(model.tenant("org_third")))
    assert await model.ask(model.tenant("org_fourth")) == (503, "15")
    model.wake()
    assert {status for status, _ in await asyncio.gather(*waiting)} == {200}
    found = await model.gateway.settled(3)
    (refused,) = [one for one in found if one.outcome is Outcome.FAILED]
    assert refused.usage.total_tokens == 0
    await model.nothing_is_held()


async def test_a_client_that_leaves_frees_its_place(model: Sleeping) -> None:
    model.sleep(requests=2)
    request = await model.waits()
    assert (await model.ask())[0] == 429
    request.cancel()
    await until(lambda: model.waiting == 0)
    await model.nothing_is_held()
    (*_, left) = await model.gateway.settled(2)
    assert (left.outcome, left.usage.total_tokens) == (Outcome.FAILED, 0)
    request = await model.waits()
    model.wake()
    assert (await request)[0] == 200


async def test_the_last_replica_that_is_gone_is_waited_for(model: Sleeping) -> None:
    """The list may be a moment old: the replica that it names has gone to sleep."""
    model.gateway.replicas.listed.append(GONE)
    request = await model.waits()
    model.wake()
    assert (await request)[0] == 200
    (settled,) = await model.gateway.settled()
    assert (settled.outcome, settled.claims.attempt[-2:]) == (Outcome.COMPLETED, ".2")


async def test_a_replica_that_is_busy_is_no_reason_to_wait(model: Sleeping) -> None:
    model.wake()
    model.gateway.server.behaviour = Behaviour(status=503)
    assert (await model.ask())[0] == 503
    assert model.gateway.replicas.called_for == []


async def test_the_time_for_a_request_begins_when_there_is_a_replica(model: Sleeping) -> None:
    model.sleep(max_request_s=0.4)
    request = await model.waits()
    await asyncio.sleep(0.5)
    model.wake()
    assert (await request)[0] == 200


async def test_what_needs_no_replica_is_answered_meanwhile(model: Sleeping) -> None:
    await model.waits()
    headers = {"authorization": f"Bearer {KEY}"}
    async with ClientSession(headers=headers) as session:
        for path in ("/health", "/ready"):
            async with session.get(model.gateway.url + path) as response:
                assert response.status == 200
    model.wake()
