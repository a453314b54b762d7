"""A key that was changed after this gateway cached it: admission finds out, also where no feed has brought the news."""

from collections.abc import AsyncIterator

import msgspec
import pytest
from aiohttp import ClientSession

from support.fakes.admission_requests import ORGANIZATION, principal
from support.fakes.gateway_ports import BASE
from support.gateway_stack import HELLO, KEY, GatewayStack
from tokenyard.core.principal import Limits
from tokenyard.limits.revisions import RedisRevisions

ASK: dict[str, object] = {"model": BASE.id, "messages": HELLO}


@pytest.fixture
async def outdated(gateway: GatewayStack) -> AsyncIterator[GatewayStack]:
    """A gateway that knows revision 1 of the key, while Redis knows that there is a revision 2."""
    gateway.keys.cached[KEY] = principal(revision=1)
    await RedisRevisions(gateway.redis).raise_to(ORGANIZATION, 2)
    yield gateway
    await gateway.nothing_is_held()


async def test_a_lowered_limit_is_in_force_for_the_very_next_request(outdated: GatewayStack) -> None:
    outdated.keys.tenants[KEY] = principal(revision=2, key=Limits(requests_per_minute=1))
    async with ClientSession() as session:
        served = await outdated.post(session, ASK)
        assert (served.status, served.headers["x-ratelimit-limit-requests"]) == (200, "1")
        await served.read()
        assert (await outdated.post(session, ASK)).status == 429
    await outdated.settled(1)
    assert KEY not in outdated.keys.cached


async def test_a_changed_weight_goes_with_the_very_next_request(outdated: GatewayStack) -> None:
    heavy = principal(revision=2)
    outdated.keys.tenants[KEY] = type(heavy)(heavy.organization, heavy.project, heavy.key, 2, weight=7)
    async with ClientSession() as session:
        await (await outdated.post(session, ASK)).read()
    await outdated.settled(1)
    assert [sent.claims.weight for sent in outdated.server.log] == [7]


async def test_a_blocked_organization_uses_nothing_more(outdated: GatewayStack) -> None:
    known = principal(revision=2)
    outdated.keys.tenants[KEY] = msgspec.structs.replace(known, blocked="an invoice is overdue")
    async with ClientSession() as session:
        for _ in range(2):
            refused = await outdated.post(session, ASK)
            error = (await refused.json())["error"]
            assert (refused.status, error["type"], error["code"]) == (429, "insufficient_quota", "insufficient_quota")
            assert "an invoice is overdue" in error["message"]
            assert refused.headers["x-should-retry"] == "false"
        outdated.keys.tenants[KEY] = known
        outdated.keys.cached.clear()
        assert (await outdated.status(session, ASK)) == 200
    await outdated.settled(1)


async def test_a_revoked_key_pays_for_nothing_more(outdated: GatewayStack) -> None:
    del outdated.keys.tenants[KEY]
    async with ClientSession() as session:
        for _ in range(2):
            refused = await outdated.post(session, ASK)
            assert (refused.status, (await refused.json())["error"]["code"]) == (401, "invalid_api_key")
    assert outdated.server.log == []


@pytest.mark.parametrize("database_is_down", [True, False])
async def test_while_sql_is_down_or_answers_with_an_old_copy_it_is_to_come_back(
    outdated: GatewayStack, database_is_down: bool
) -> None:
    outdated.keys.tenants[KEY] = principal(revision=1)
    outdated.keys.database_is_down = database_is_down
    async with ClientSession() as session:
        refused = await outdated.post(session, ASK)
    assert refused.status == 503
    assert "retry-after" in refused.headers
    assert outdated.server.log == []
