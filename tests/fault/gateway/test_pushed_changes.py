"""Three real gateway processes: what an operator changes through one of them is in force in all of them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from support.gateway_stack import until
from support.servers.gateways import GatewayFleet, running_gateways
from tokenyard.core.ids import OrganizationId
from tokenyard.core.redis_keys import bucket_of, revision

ORGANIZATION = "/admin/organizations/acme"
ALL = range(3)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[GatewayFleet]:
    async with running_gateways(tmp_path, len(ALL)) as running:
        yield running


async def statuses(call: Callable[[int], Awaitable[int]]) -> list[int]:
    return [await call(gateway) for gateway in ALL]


async def test_a_change_is_in_force_in_every_process(fleet: GatewayFleet) -> None:
    key = await fleet.new_tenant("acme")

    async def pay(gateway: int) -> int:
        return (await fleet.chat(gateway, key)).status

    async def look(gateway: int) -> int:
        return (await fleet.call(gateway, "GET", "/v1/models", key)).status

    assert await statuses(pay) == [200, 200, 200]

    await fleet.admin("PATCH", ORGANIZATION, {"limits": {"requests_per_minute": 0}, "weight": 7}, gateway=0)
    assert await statuses(pay) == [429, 429, 429], "the very next paid request"
    await fleet.admin("PATCH", ORGANIZATION, {"limits": {"requests_per_minute": 1000}}, gateway=1)
    assert await statuses(pay) == [200, 200, 200]
    assert [sent.claims.weight for sent in fleet.server.log[-3:]] == [7, 7, 7]

    await fleet.admin("PATCH", ORGANIZATION, {"archived": True}, gateway=2)
    assert await statuses(pay) == [401, 401, 401]

    async def nobody_looks() -> bool:
        return await statuses(look) == [401, 401, 401]

    await until(nobody_looks)
    await fleet.admin("PATCH", ORGANIZATION, {"archived": False}, gateway=0)

    async def all_look() -> bool:
        return await statuses(look) == [200, 200, 200]

    await until(all_look)
    assert await statuses(pay) == [200, 200, 200]


async def test_a_plan_and_what_a_key_may_do_are_in_force_in_every_process(fleet: GatewayFleet) -> None:
    key = await fleet.new_tenant("acme")
    listed = await fleet.admin("GET", f"{ORGANIZATION}/api_keys")
    path = f"{ORGANIZATION}/api_keys/{listed['data'][0]['id']}"

    async def pay(gateway: int) -> int:
        return (await fleet.chat(gateway, key)).status

    async def models(gateway: int) -> int:
        return len((await (await fleet.call(gateway, "GET", "/v1/models", key)).json())["data"])

    assert await statuses(pay) == [200, 200, 200]
    await fleet.admin("POST", "/admin/plans", {"name": "pro", "weight": 5, "limits": {"requests_per_minute": 1000}})
    await fleet.admin("PATCH", ORGANIZATION, {"plan": "pro"}, gateway=1)
    assert await statuses(pay) == [200, 200, 200]
    assert [sent.claims.weight for sent in fleet.server.log[-3:]] == [5, 5, 5]
    await fleet.admin("PATCH", "/admin/plans/pro", {"limits": {"requests_per_minute": 0}}, gateway=2)
    assert await statuses(pay) == [429, 429, 429], "the very next paid request"
    await fleet.admin("PATCH", "/admin/plans/pro", {"limits": {"requests_per_minute": None}, "models": ["other"]})
    assert await statuses(pay) == [403, 403, 403]

    async def nothing_is_listed() -> bool:
        return await statuses(models) == [0, 0, 0]

    await until(nothing_is_listed)
    await fleet.admin("PATCH", "/admin/plans/pro", {"models": None}, gateway=1)
    rules: list[dict[str, list[str]]] = [{"scopes": ["files"]}, {"addresses": ["192.0.2.0/24"]}, {"models": []}]
    for rule in rules:
        await fleet.admin("PATCH", path, rule, gateway=2)
        assert await statuses(pay) in ([403] * 3, [401] * 3), rule
        await fleet.admin("PATCH", path, dict.fromkeys(rule), gateway=0)

        async def all_pay() -> bool:
            return await statuses(pay) == [200, 200, 200]

        await until(all_pay)


async def test_a_change_that_redis_missed_is_in_force_once_it_is_back(fleet: GatewayFleet) -> None:
    """It even lost all it had: the worker's loop tells it again, and processes look everything up afresh."""
    key = await fleet.new_tenant("acme")
    organization = OrganizationId((await fleet.admin("GET", ORGANIZATION))["id"])
    name = revision(bucket_of(organization), organization)

    async def looks(gateway: int) -> int:
        return (await fleet.call(gateway, "GET", "/v1/models", key)).status

    assert await statuses(looks) == [200, 200, 200]
    fleet.valkey.kill()
    fleet.valkey.forget()
    await fleet.admin("PATCH", ORGANIZATION, {"archived": True}, gateway=0)
    assert await statuses(looks) == [401, 200, 200], "only the process that made the change can know"
    fleet.valkey.start()
    await fleet.prepare_redis()

    async def nobody_looks() -> bool:
        return await statuses(looks) == [401, 401, 401]

    await until(nobody_looks)
    assert [(await fleet.chat(gateway, key)).status for gateway in ALL] == [401, 401, 401]

    assert await fleet.foundation.redis.get(name) is None

    async def redis_knows() -> bool:
        await fleet.foundation.outbox.step()
        return await fleet.foundation.redis.get(name) == b"2"

    await until(redis_knows)
