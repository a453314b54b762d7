"""RedisAdmission and settlement while Redis dies, comes back, and forgets."""

import asyncio
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from redis.asyncio import Redis

from support.fakes.admission_requests import (
    ORGANIZATION,
    BudgetTable,
    admission_request,
    open_buckets,
    principal,
    settled,
)
from support.money.live_budgets import read_budget, read_pending
from support.redis_reader import read_usage
from support.servers.valkey import Valkey
from support.waiting import until
from tokenyard.core.budgets import wallet
from tokenyard.core.errors import Unavailable
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.core.redis_keys import bucket_of, holds
from tokenyard.limits.admission import RedisAdmission
from tokenyard.limits.holds import key_of
from tokenyard.limits.sweeper import Sweeper
from tokenyard.metering.events import Settled

BUCKET = bucket_of(ORGANIZATION)
WALLET = wallet(ORGANIZATION)
OTHER = OrganizationId("org_other")
DEADLINE_S = 20.0
COST = NanoDollars(3)


@pytest.fixture
def budgets() -> BudgetTable:
    table = BudgetTable()
    table.set(WALLET, 10**9)
    table.set(wallet(OTHER), 10**9)
    return table


@pytest.fixture
def new_admission(client: Redis, budgets: BudgetTable, tmp_path: Path) -> Callable[[], RedisAdmission]:
    return lambda: RedisAdmission(client, budgets.load, spool_folder=tmp_path / "spool", lease_ms=3_000, renewal_ms=200)


async def taken(client: Redis) -> tuple[int, int]:
    """Return what is held of the wallet, and what is pending."""
    figures = await read_budget(client, BUCKET, WALLET)
    return figures.held, figures.pending


async def reported(client: Redis, organization: OrganizationId = ORGANIZATION) -> list[str]:
    events = await read_usage(client, organization)
    return [key_of(event.claims) for event in events if isinstance(event, Settled)]


class Load:
    """Requests without end, of two organizations; remembers what was acknowledged."""

    def __init__(self, admission: RedisAdmission) -> None:
        self._admission = admission
        self.settled: dict[OrganizationId, list[str]] = {ORGANIZATION: [], OTHER: []}
        self.refused = 0
        self.stopping = False

    async def client(self, organization: OrganizationId) -> None:
        caller = principal(organization_id=organization)
        while not self.stopping:
            try:
                admitted = await self._admission.admit(admission_request(caller, amount=10))
            except Unavailable:
                self.refused += 1
                await asyncio.sleep(0.02)
                continue
            await asyncio.sleep(0.005)
            await self._admission.settle(settled(admitted.claims), COST)
            self.settled[organization].append(key_of(admitted.claims))


async def test_a_redis_killed_under_load_loses_nothing_that_was_acknowledged(
    server: Valkey, client: Redis, new_admission: Callable[[], RedisAdmission]
) -> None:
    async with new_admission() as admission:
        load = Load(admission)
        async with asyncio.TaskGroup() as group:
            for organization in (ORGANIZATION, OTHER):
                for _ in range(8):
                    group.create_task(load.client(organization))
            for _ in range(2):
                done = len(load.settled[ORGANIZATION])

                async def goes_on(done: int = done) -> bool:
                    return len(load.settled[ORGANIZATION]) > done + 100

                await until(goes_on, "requests before the kill", limit_s=DEADLINE_S)
                refused = load.refused
                await asyncio.to_thread(server.kill)

                async def refuses(refused: int = refused) -> bool:
                    return load.refused > refused + 20

                await until(refuses, "503 while Redis is away", limit_s=DEADLINE_S)
                await asyncio.to_thread(server.start)
            done = len(load.settled[ORGANIZATION])
            await until(lambda: goes_on(done), "requests after the restart", limit_s=DEADLINE_S)
            load.stopping = True

        for organization, keys in load.settled.items():
            await until(
                partial(_all_reported, client, organization, keys), "every event on the stream", limit_s=DEADLINE_S
            )
            events = await reported(client, organization)
            assert len(events) == len(set(events))
            bucket, name = bucket_of(organization), wallet(organization)

            async def nothing_held(bucket: int = bucket, name: str = name) -> bool:
                await Sweeper(client, renewal_ms=0).sweep()
                return await client.zcard(holds(bucket)) == 0 == (await read_budget(client, bucket, name)).held

            await until(nothing_held, "no hold outlives its lease", limit_s=DEADLINE_S)
            charged = await read_pending(client, bucket, name)
            assert all(charged[key] == COST for key in keys)
            assert (await read_budget(client, bucket, name)).pending == sum(charged.values())


async def _all_reported(client: Redis, organization: OrganizationId, keys: Sequence[str]) -> bool:
    return set(keys) <= set(await reported(client, organization))


async def test_what_redis_acknowledged_and_forgot_is_sent_again(
    server: Valkey, client: Redis, new_admission: Callable[[], RedisAdmission], tmp_path: Path
) -> None:
    async with new_admission() as admission:
        open_one = (await admission.admit(admission_request(principal(), amount=50))).claims
        keys = []
        for _ in range(50):
            claims = (await admission.admit(admission_request(principal(), amount=10))).claims
            await admission.settle(settled(claims), COST)
            keys.append(key_of(claims))

        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(shutil.rmtree, tmp_path / "redis" / "appendonlydir")
        await asyncio.to_thread(server.start)

        await until(
            lambda: _all_reported(client, ORGANIZATION, keys), "every event on the stream again", limit_s=DEADLINE_S
        )

        async def held_again() -> bool:
            return (await read_budget(client, BUCKET, WALLET)).held == 50

        await until(held_again, "the open hold is rebuilt", limit_s=DEADLINE_S)
        assert (await read_budget(client, BUCKET, WALLET)).pending == 50 * COST
        with pytest.raises(Unavailable):  # until somebody says that the budgets are loaded
            await admission.admit(admission_request(principal()))

        await open_buckets(client)
        await admission.admit(admission_request(principal(), amount=1))
        await admission.settle(settled(open_one), COST)
        assert len(await reported(client)) == 51


async def test_what_was_settled_while_redis_was_away_comes_from_disk(
    server: Valkey, client: Redis, new_admission: Callable[[], RedisAdmission]
) -> None:
    async with new_admission() as admission:
        claims = [(await admission.admit(admission_request(principal(), amount=10))).claims for _ in range(20)]
        await asyncio.to_thread(server.kill)
        started = time.monotonic()
        await asyncio.gather(*(admission.settle(settled(one), COST) for one in claims))
        with pytest.raises(Unavailable):
            await admission.admit(admission_request(principal()))
        assert time.monotonic() - started < 5
    # That process is gone; the next one finds what it left.
    await asyncio.to_thread(server.start)
    async with new_admission():
        keys = [str(key_of(one)) for one in claims]
        await until(
            lambda: _all_reported(client, ORGANIZATION, keys), "the spooled events on the stream", limit_s=DEADLINE_S
        )
    assert sorted(await reported(client)) == sorted(keys)
    assert await taken(client) == (0, 60)


async def test_a_gateway_that_dies_leaves_no_hold(client: Redis, new_admission: Callable[[], RedisAdmission]) -> None:
    async with new_admission() as admission:
        await admission.admit(admission_request(principal(), amount=70))
        sweeper = Sweeper(client, renewal_ms=0)
        await sweeper.sweep()
        assert await client.zcard(holds(BUCKET)) == 1

    async def expired() -> bool:
        await sweeper.sweep()
        return await client.zcard(holds(BUCKET)) == 0

    await until(expired, "the hold of a gateway that renews no more ends", limit_s=DEADLINE_S)
    assert await taken(client) == (0, 70)


async def test_a_redis_without_memory_takes_nothing_and_loses_nothing(
    client: Redis, new_admission: Callable[[], RedisAdmission]
) -> None:
    async with new_admission() as admission:
        claims = (await admission.admit(admission_request(principal(), amount=10))).claims
        await client.config_set("maxmemory", 1)
        with pytest.raises(Unavailable):
            await admission.admit(admission_request(principal(), amount=10))
        await admission.settle(settled(claims), COST)
        await client.config_set("maxmemory", 0)
        await until(
            lambda: _all_reported(client, ORGANIZATION, [key_of(claims)]), "the event from disk", limit_s=DEADLINE_S
        )
        assert await taken(client) == (0, 3)


async def test_a_redis_that_hangs_is_answered_with_503_in_time(
    server: Valkey, client: Redis, new_admission: Callable[[], RedisAdmission]
) -> None:
    async with new_admission() as admission:
        claims = (await admission.admit(admission_request(principal(), amount=10))).claims
        with server.paused():
            started = time.monotonic()
            answers = await asyncio.gather(
                *(admission.admit(admission_request(principal(), amount=10)) for _ in range(300)),
                return_exceptions=True,
            )
            assert all(isinstance(answer, Unavailable) for answer in answers)
            await admission.settle(settled(claims), COST)
            assert time.monotonic() - started < 8
        await until(
            lambda: _all_reported(client, ORGANIZATION, [key_of(claims)]), "the event from disk", limit_s=DEADLINE_S
        )

        async def nothing_held() -> bool:
            return (await read_budget(client, BUCKET, WALLET)).held == 0

        await until(nothing_held, "what was admitted for nobody is given back", limit_s=DEADLINE_S)


async def test_new_work_is_refused_while_usage_has_nowhere_to_go(
    server: Valkey, client: Redis, new_admission: Callable[[], RedisAdmission], tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    spool.write_text("a file where the folder should be")
    async with new_admission() as admission:
        claims = (await admission.admit(admission_request(principal(), amount=10))).claims
        await asyncio.to_thread(server.kill)
        await admission.settle(settled(claims), COST)
        await asyncio.to_thread(server.start)
        with pytest.raises(Unavailable, match="recorded"):
            await admission.admit(admission_request(principal(), amount=10))
        spool.unlink()
        await until(
            lambda: _all_reported(client, ORGANIZATION, [key_of(claims)]),
            "the event, once the disk works",
            limit_s=DEADLINE_S,
        )
        await admission.admit(admission_request(principal(), amount=10))
