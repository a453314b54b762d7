"""Redis goes and comes back around a change of keys: it ends in force in every process, whatever Redis has lost."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.fakes.admission_requests import BudgetTable, admission_request, open_buckets
from support.gateway_stack import until
from support.servers.free_ports import free_port
from support.servers.valkey import Valkey
from support.tenancy_stand import Tenancy, tenancy_stand
from tokenyard.core.admission import PrincipalOutdated
from tokenyard.core.budgets import wallet
from tokenyard.core.errors import Unauthenticated
from tokenyard.limits.admission import RedisAdmission
from tokenyard.storage.database import Database
from tokenyard.storage.redis import connect_redis
from tokenyard.tenancy.api_keys import BOOTSTRAP

ORGANIZATION = "/admin/organizations/acme"


@pytest.fixture
async def valkey(tmp_path: Path) -> AsyncIterator[Valkey]:
    server = Valkey(tmp_path, free_port())
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def tenancy(database: Database, valkey: Valkey) -> AsyncIterator[Tenancy]:
    redis = connect_redis(valkey.url)
    async with tenancy_stand(database, redis) as made:
        yield made
    await redis.aclose()


async def test_a_redis_that_lost_a_revision_is_told_it_again(tenancy: Tenancy, valkey: Valkey) -> None:
    organization, _ = await tenancy.new_tenant("acme")
    await tenancy.as_operator("PATCH", ORGANIZATION, {"weight": 9})
    assert await tenancy.revision(organization.id) == 2
    valkey.kill()
    valkey.forget()
    valkey.start()
    assert await tenancy.revision(organization.id) == 0
    await tenancy.run_loops_once()
    assert await tenancy.revision(organization.id) == 2


async def test_a_key_that_was_revoked_while_redis_was_away_pays_for_nothing_when_it_is_back(
    tenancy: Tenancy, valkey: Valkey, tmp_path: Path
) -> None:
    """Not even in a gateway whose feed is stuck, once the outbox is carried."""
    organization, secret = await tenancy.new_tenant("acme")
    stuck = tenancy.deaf_process()
    caller = await stuck.tenant(secret)
    valkey.kill()
    await tenancy.keys.revoke(organization.id, caller.key, actor=BOOTSTRAP)
    valkey.start()
    await open_buckets(tenancy.redis)
    await tenancy.run_loops_once()
    assert await stuck.tenant(secret) == caller
    budgets = BudgetTable()
    budgets.set(wallet(organization.id), 1000)
    admission = RedisAdmission(
        tenancy.redis, budgets.load, spool_folder=tmp_path / "spool", lease_ms=30_000, renewal_ms=5_000
    )
    with pytest.raises(PrincipalOutdated):
        await admission.admit(admission_request(caller, amount=1))
    with pytest.raises(Unauthenticated):
        await stuck.fresh_tenant(secret)


async def test_a_process_whose_feed_was_out_of_reach_looks_everything_up_afresh(
    tenancy: Tenancy, valkey: Valkey
) -> None:
    organization, secret = await tenancy.new_tenant("acme")
    _, others = await tenancy.new_tenant("umbra")
    async with tenancy.other_process() as process:
        known = [await process.authenticator.tenant(key) for key in (secret, others)]
        operator = await process.authenticator.operator(tenancy.operator_secret)
        valkey.kill()
        assert (await tenancy.as_operator("PATCH", ORGANIZATION, {"weight": 9})).status_code == 200
        assert [await process.authenticator.tenant(key) for key in (secret, others)] == known
        valkey.start()
        await until(lambda: process.times_lost() == 2)
        found = [await process.authenticator.tenant(key) for key in (secret, others)]
        assert [one.weight for one in found] == [9, 1]
        assert found[1] is not known[1]
        assert await process.authenticator.operator(tenancy.operator_secret) is not operator
        assert ("organization", organization.id) not in process.told
