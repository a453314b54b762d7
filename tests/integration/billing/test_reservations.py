"""A job's money is set aside, charged by its tokens, and the rest comes back: with admission's own holds."""

import asyncio
from collections.abc import Sequence

import pytest
from redis.asyncio import Redis

from support.billing.stand import (
    ACME,
    KEY,
    PROJECT,
    RATE,
    FixedLimits,
    balance,
    budget_outbox,
    charges,
    journal_sum,
    live_budget,
    rows,
    send,
    trained,
    worker,
)
from support.fakes.admission_requests import open_buckets
from support.fakes.clock import FrozenClock
from tokenyard.core.budgets import Budget, monthly
from tokenyard.core.errors import QuotaExceeded, Unavailable
from tokenyard.core.ids import JobId, OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.core.redis_keys import bucket_of, holds
from tokenyard.limits.reservation_holds import ReservationHolds
from tokenyard.limits.sweeper import Sweeper
from tokenyard.storage.database import Database
from tokenyard.storage.redis import connect_redis
from tokenyard.webhooks.events import write_event
from tokenyard_billing.proof.checks.reservations import check_reservations
from tokenyard_billing.proof.checks.spending import check_spending
from tokenyard_billing.tables import Reservation
from tokenyard_billing.wallets.budgets import SqlBudgets
from tokenyard_billing.wallets.reservations import JobReservations
from tokenyard_billing.wallets.store import Wallet

JOB = JobId("ftjob-1")
CREDIT = 10_000_000
CLOCK = FrozenClock(1_772_500_000.0)  # March 2026


class Stand:
    def __init__(self, database: Database, redis: Redis, limits: FixedLimits | None = None) -> None:
        self.budgets = SqlBudgets(database)
        self.holds = ReservationHolds(redis, self.budgets.load)
        self.outbox = budget_outbox(database, redis, CLOCK)
        self.wallet = Wallet(database, self.outbox, write_event, CLOCK)
        self.reservations = JobReservations(
            database=database,
            outbox=self.outbox,
            holds=self.holds,
            limits=limits or FixedLimits(),
            clock=CLOCK,
        )

    async def open(self, redis: Redis) -> "Stand":
        await open_buckets(redis)
        await self.wallet.grant(ACME, NanoDollars(CREDIT), reason="paid", actor="op", idempotency_key="a")
        return self

    async def reserve(self, amount: int, job: JobId = JOB) -> None:
        await self.reservations.reserve(ACME, PROJECT, KEY, {job: NanoDollars(amount)})


async def test_reserve_charge_and_return(database: Database, redis: Redis) -> None:
    stand = await Stand(database, redis).open(redis)
    await stand.reserve(4_000_000)
    await stand.reserve(4_000_000)
    assert await balance(database, ACME) == CREDIT - 4_000_000
    assert await balance(database, ACME, "reserved") == 4_000_000
    live = await live_budget(redis, ACME)
    assert (live["ledger"], live.get("pending", 0), live["held"]) == (CREDIT - 4_000_000, 0, 0)

    await send(redis, trained(JOB, 1_000))
    await worker(database, redis).consumer.step()
    cost = 1_000 * RATE.training
    assert (await charges(database))[JOB].amount == cost
    assert await balance(database, ACME) == CREDIT - cost
    assert await balance(database, ACME, "reserved") == 0
    assert (await live_budget(redis, ACME))["ledger"] == CREDIT - cost
    assert await journal_sum(database) == 0
    assert [row.state for row in await rows(database, Reservation)] == ["charged"]


async def test_what_was_set_aside_too_much_comes_back_before_the_charge(database: Database, redis: Redis) -> None:
    stand = await Stand(database, redis, FixedLimits({KEY: 5_000_000})).open(redis)
    await stand.reserve(4_000_000)
    for amount in (3_000_000, 3_000_000, 3_500_000, -1):
        await stand.reservations.lower(ACME, JOB, NanoDollars(amount))
    await stand.reservations.lower(OrganizationId("org_other"), JOB, NanoDollars(1))
    assert await balance(database, ACME) == CREDIT - 3_000_000
    assert await balance(database, ACME, "reserved") == 3_000_000
    assert (await live_budget(redis, ACME))["ledger"] == CREDIT - 3_000_000
    name = monthly(KEY, CLOCK.now_ms())
    assert (await live_budget(redis, ACME, name))["ledger"] == -3_000_000
    async with database.reading() as session:
        assert await check_reservations(session, CLOCK.now_ms()) == []
        assert await check_spending(session) == []

    await stand.reserve(2_000_000, JobId("ftjob-2"))
    for job in (JOB, JobId("ftjob-2")):
        await send(redis, trained(job, 1_000))
    await worker(database, redis).consumer.step()
    await stand.reservations.lower(ACME, JOB, NanoDollars(0))
    assert await balance(database, ACME) == CREDIT - 2_000 * RATE.training
    assert await balance(database, ACME, "reserved") == 0
    assert await journal_sum(database) == 0
    async with database.reading() as session:
        assert await check_spending(session) == []


@pytest.mark.parametrize("first", ["lower", "charge"])
async def test_a_charge_beside_it_leaves_the_books_right(database: Database, redis: Redis, first: str) -> None:
    stand = await Stand(database, redis).open(redis)
    await stand.reserve(4_000_000)
    await send(redis, trained(JOB, 1_000))
    both = [worker(database, redis).consumer.step(), stand.reservations.lower(ACME, JOB, NanoDollars(3_000_000))]
    await asyncio.gather(*(both if first == "charge" else reversed(both)))
    assert await balance(database, ACME) == CREDIT - 1_000 * RATE.training
    assert await balance(database, ACME, "reserved") == 0
    assert await journal_sum(database) == 0


async def test_a_failed_job_gets_all_of_it_back(database: Database, redis: Redis) -> None:
    stand = await Stand(database, redis).open(redis)
    await stand.reserve(4_000_000)
    await send(redis, trained(JOB, 0))
    await worker(database, redis).consumer.step()
    assert await balance(database, ACME) == CREDIT
    assert await balance(database, ACME, "reserved") == 0


async def test_what_the_wallet_does_not_cover_is_refused_and_holds_nothing(database: Database, redis: Redis) -> None:
    stand = await Stand(database, redis).open(redis)
    with pytest.raises(QuotaExceeded):
        await stand.reserve(CREDIT + 1)
    assert await rows(database, Reservation) == []
    assert (await live_budget(redis, ACME)).get("held", 0) == 0
    await stand.reserve(CREDIT)
    with pytest.raises(QuotaExceeded):
        await stand.reserve(1, JobId("ftjob-2"))


class Dies(ReservationHolds):
    async def hold(
        self, organization: OrganizationId, charge_key: str, budgets: Sequence[Budget], amount: NanoDollars
    ) -> None:
        await super().hold(organization, charge_key, budgets, amount)
        raise Unavailable("Redis answered too late.")


async def test_jobs_that_come_together_are_set_aside_all_or_none(database: Database, redis: Redis) -> None:
    stand = await Stand(database, redis).open(redis)
    jobs = [JobId(f"ftjob-{number}") for number in range(3)]
    for each, fits in ((CREDIT // 3 + 1, False), (CREDIT // 3, True)):
        reserving = stand.reservations.reserve(ACME, PROJECT, KEY, dict.fromkeys(jobs, NanoDollars(each)))
        if fits:
            await reserving
        else:
            with pytest.raises(QuotaExceeded):
                await reserving
            assert (await live_budget(redis, ACME)).get("held", 0) == 0
            assert await rows(database, Reservation) == []
    left = CREDIT - CREDIT // 3 * 3
    live = await live_budget(redis, ACME)
    assert (live["ledger"], live["held"]) == (left, 0)
    assert [row.state for row in await rows(database, Reservation)] == ["open"] * 3
    await send(redis, trained(jobs[1], 1_000))
    await worker(database, redis).consumer.step()
    assert await balance(database, ACME) == left + CREDIT // 3 - 1_000 * RATE.training, (
        "each is closed by its own charge"
    )


async def test_of_jobs_that_come_together_a_dead_process_leaves_nothing_held(database: Database, redis: Redis) -> None:
    stand = await Stand(database, redis).open(redis)
    half = Stand(database, redis)
    half.reservations._holds = Dies(redis, half.budgets.load)
    jobs = dict.fromkeys([JobId("ftjob-1"), JobId("ftjob-2")], NanoDollars(2_000_000))
    with pytest.raises(Unavailable):
        await half.reservations.reserve(ACME, PROJECT, KEY, jobs)
    assert (await live_budget(redis, ACME))["held"] == 4_000_000
    CLOCK.advance(120)
    await stand.reservations.tidy()
    assert (await live_budget(redis, ACME))["held"] == 0
    assert await rows(database, Reservation) == []


async def test_a_monthly_limit_counts_what_is_reserved_until_the_charge(database: Database, redis: Redis) -> None:
    limits = FixedLimits({KEY: 5_000_000})
    stand = await Stand(database, redis, limits).open(redis)
    name = monthly(KEY, CLOCK.now_ms())
    await stand.reserve(4_000_000)
    assert (await stand.budgets.load(ACME, name)).ledger == -4_000_000
    assert (await live_budget(redis, ACME, name))["held"] == 0
    with pytest.raises(QuotaExceeded):
        await stand.reserve(1_000_001, JobId("ftjob-2"))

    await send(redis, trained(JOB, 1_000))
    await worker(database, redis).consumer.step()
    assert (await stand.budgets.load(ACME, name)).ledger == -1_000 * RATE.training
    assert (await live_budget(redis, ACME, name))["ledger"] == -1_000 * RATE.training


async def test_a_process_that_died_while_holding_leaves_nothing_held(database: Database, redis: Redis) -> None:
    stand = await Stand(database, redis).open(redis)
    half = Stand(database, redis)
    half.reservations._holds = Dies(redis, half.budgets.load)
    with pytest.raises(Unavailable):
        await half.reserve(4_000_000)
    assert (await live_budget(redis, ACME))["held"] == 4_000_000
    await stand.reservations.tidy()
    assert (await live_budget(redis, ACME))["held"] == 4_000_000, "it may still be at work"
    CLOCK.advance(120)
    await stand.reservations.tidy()
    assert (await live_budget(redis, ACME))["held"] == 0
    assert await rows(database, Reservation) == []


async def test_a_process_that_died_after_posting_is_finished_by_another(database: Database, redis: Redis) -> None:
    stand = await Stand(database, redis).open(redis)
    half = Stand(database, redis)
    half.reservations._outbox = budget_outbox(database, connect_redis("redis://127.0.0.1:1/0"), CLOCK)
    await half.reserve(4_000_000)
    live = await live_budget(redis, ACME)
    assert (live["ledger"], live["held"]) == (CREDIT, 4_000_000)
    CLOCK.advance(1)
    await stand.outbox.step()
    live = await live_budget(redis, ACME)
    assert (live["ledger"], live["held"]) == (CREDIT - 4_000_000, 0)
    assert [row.state for row in await rows(database, Reservation)] == ["open"]


class HoldsForLong(ReservationHolds):
    """The job has ended, and that is in the ledger, before its creator learns that its money is held."""

    database: Database
    redis: Redis

    async def hold(
        self, organization: OrganizationId, charge_key: str, budgets: Sequence[Budget], amount: NanoDollars
    ) -> None:
        await super().hold(organization, charge_key, budgets, amount)
        await send(self.redis, trained(JOB, 0))
        await worker(self.database, self.redis).consumer.step()


async def test_a_job_that_ends_while_its_money_is_set_aside_gets_all_of_it_back(
    database: Database, redis: Redis
) -> None:
    stand = await Stand(database, redis).open(redis)
    slow = HoldsForLong(redis, stand.budgets.load)
    slow.database, slow.redis = database, redis
    stand.reservations._holds = slow
    with pytest.raises(Unavailable):
        await stand.reserve(4_000_000)
    assert await balance(database, ACME) == CREDIT
    with pytest.raises(Unavailable):
        await stand.reserve(4_000_000)
    CLOCK.advance(120)
    await stand.reservations.tidy()
    live = await live_budget(redis, ACME)
    assert (live["ledger"], live["held"]) == (CREDIT, 0)
    assert await rows(database, Reservation) == []


async def test_its_hold_does_not_end_before_the_ledger_s_figure_is_in_redis(database: Database, redis: Redis) -> None:
    stand = await Stand(database, redis).open(redis)
    half = Stand(database, redis)
    half.reservations._outbox = budget_outbox(database, connect_redis("redis://127.0.0.1:1/0"), CLOCK)
    await half.reserve(4_000_000)
    CLOCK.advance(120)
    await redis.zadd(holds(bucket_of(ACME)), {JOB: 1})  # its lease has ended
    await Sweeper(redis, renewal_ms=0, before=stand.outbox.step).sweep()
    live = await live_budget(redis, ACME)
    assert (live["ledger"], live["held"]) == (CREDIT - 4_000_000, 0)


async def test_a_job_charged_before_its_hold_was_given_back_leaves_nothing_held(
    database: Database, redis: Redis
) -> None:
    stand = await Stand(database, redis).open(redis)
    half = Stand(database, redis)
    half.reservations._outbox = budget_outbox(database, connect_redis("redis://127.0.0.1:1/0"), CLOCK)
    await half.reserve(4_000_000)
    await send(redis, trained(JOB, 1_000))
    await worker(database, redis).consumer.step()
    assert [row.state for row in await rows(database, Reservation)] == ["charged"]
    CLOCK.advance(1)
    await stand.outbox.step()
    live = await live_budget(redis, ACME)
    assert (live["ledger"], live["held"]) == (CREDIT - 1_000 * RATE.training, 0)
