"""Usage events become charges, journal and balances, exactly once."""

import msgspec
from redis.asyncio import Redis

from support.billing.stand import (
    ACME,
    GLOBEX,
    MARCH_MS,
    RATE,
    balance,
    charges,
    claims,
    expired,
    journal_sum,
    live_budget,
    month,
    put_pending,
    reported,
    rows,
    send,
    settled,
    stream_length,
    trained,
    usage,
    worker,
)
from tokenyard.core.budgets import wallet
from tokenyard.core.money import inference_cost
from tokenyard.core.redis_keys import bucket_of, ready, usage_stream
from tokenyard.metering.events import Outcome, UsageEvent
from tokenyard.storage.database import Database
from tokenyard_billing.tables import Alarm, DeadLetter, HourlyUsage, OpenRequest, UsageReport, Waste

EVENTS: dict[str, list[UsageEvent]] = {
    "completed": [settled(claims("req_a"), usage(10, 5, 4)), reported(claims("req_a"), usage(10, 5, 4))],
    "client_left": [
        settled(claims("req_b"), usage(10, 3), Outcome.CLIENT_LEFT),
        reported(claims("req_b"), usage(10, 4), finished=False),
    ],
    "replica_lost": [settled(claims("req_c", 2), usage(7, 2), Outcome.REPLICA_LOST)],
    "failed": [
        settled(claims("req_d"), usage(0, 0), Outcome.FAILED),
        reported(claims("req_d"), usage(10, 1), finished=False),
    ],
}


async def test_each_row_of_the_charge_table_is_charged_and_posted(database: Database, redis: Redis) -> None:
    await send(redis, *(event for events in EVENTS.values() for event in events))
    await worker(database, redis).consumer.step()

    found = await charges(database)
    assert {key: charge.rule for key, charge in found.items()} == {
        "req_a": "completed",
        "req_b": "client_left",
        "req_c": "replica_lost",
        "req_d": "failed",
    }
    assert found["req_a"].amount == inference_cost(RATE, usage(10, 5, 4))
    assert found["req_b"].amount == inference_cost(RATE, usage(10, 4))
    assert found["req_c"].amount == inference_cost(RATE, usage(7, 2))
    assert found["req_d"].amount == 0
    assert found["req_d"].transaction is None
    assert {charge.period for charge in found.values()} == {"2026-03"}
    total = sum(charge.amount for charge in found.values())
    assert await balance(database, ACME) == -total
    assert await balance(database, ACME, "revenue") == total
    assert await journal_sum(database) == 0
    assert [waste.attempt for waste in await rows(database, Waste)] == ["req_d.1"]
    [hour] = await rows(database, HourlyUsage)
    assert (hour.requests, hour.prompt_tokens, hour.cached_tokens, hour.completion_tokens) == (3, 27, 4, 11)
    assert hour.amount == total
    assert await stream_length(redis, ACME) == 0
    assert await rows(database, OpenRequest) == []


async def test_a_client_that_left_is_charged_by_the_gateways_count_when_the_replica_is_silent(
    database: Database, redis: Redis
) -> None:
    stand = worker(database, redis, report_wait_ms=0)
    await send(redis, settled(claims("req_a"), usage(10, 3), Outcome.CLIENT_LEFT))
    await stand.consumer.step()
    await stand.consumer.step()

    charge = (await charges(database))["req_a"]
    assert (charge.rule, charge.completion_tokens) == ("client_left_unreported", 3)
    await send(redis, reported(claims("req_a"), usage(10, 9)))
    await stand.consumer.step()
    assert (await charges(database))["req_a"].completion_tokens == 3
    assert [(alarm.kind, alarm.subject) for alarm in await rows(database, Alarm)] == [("late_report", "req_a.1")]


async def test_while_the_report_may_still_come_nothing_is_charged(database: Database, redis: Redis) -> None:
    stand = worker(database, redis)
    await send(redis, settled(claims("req_a"), usage(10, 3), Outcome.CLIENT_LEFT), expired(claims("req_b")))
    await stand.consumer.step()
    assert await charges(database) == {}
    assert {row.request for row in await rows(database, OpenRequest)} == {"req_a", "req_b"}
    await send(redis, reported(claims("req_a"), usage(10, 4)))
    await stand.consumer.step()
    assert (await charges(database))["req_a"].completion_tokens == 4


async def test_a_lost_gateway_is_charged_by_the_replica_with_the_highest_attempt(
    database: Database, redis: Redis
) -> None:
    stand = worker(database, redis, report_wait_ms=0)
    await send(
        redis,
        reported(claims("req_a", 2), usage(10, 8)),
        reported(claims("req_a", 1), usage(10, 1), finished=False),
        expired(claims("req_a", 1)),
        expired(claims("req_b")),
    )
    await stand.consumer.step()
    await stand.consumer.step()

    found = await charges(database)
    assert (found["req_a"].rule, found["req_a"].attempt, found["req_a"].completion_tokens) == (
        "gateway_lost",
        "req_a.2",
        8,
    )
    assert (found["req_b"].rule, found["req_b"].amount) == ("unreported", 0)
    assert [waste.attempt for waste in await rows(database, Waste)] == ["req_a.1"]
    assert [(alarm.kind, alarm.subject) for alarm in await rows(database, Alarm)] == [("unreported", "req_b")]


async def test_what_only_a_replica_spoke_of_is_charged_when_redis_lost_its_hold(
    database: Database, redis: Redis
) -> None:
    stand = worker(database, redis, report_wait_ms=0, lease_ms=0)
    await send(redis, reported(claims("req_a"), usage(10, 8)))
    await stand.consumer.step()
    assert await charges(database) == {}
    while not await redis.exists(ready(bucket_of(ACME))):
        await stand.readiness.step()
    for _ in range(3):
        await stand.consumer.step()
    assert (await charges(database))["req_a"].rule == "gateway_lost"


async def test_events_delivered_again_charge_nothing_more(database: Database, redis: Redis) -> None:
    events = [event for group in EVENTS.values() for event in group]
    stand = worker(database, redis)
    for _ in range(3):
        await send(redis, *reversed(events))
        await send(redis, *events)
        await stand.consumer.step()
    assert len(await charges(database)) == 4
    assert len(await rows(database, UsageReport)) == 7
    total = sum(charge.amount for charge in (await charges(database)).values())
    assert await balance(database, ACME) == -total
    assert await rows(database, Alarm) == []


async def test_live_budgets_follow_sql_and_pending_amounts_go(database: Database, redis: Redis) -> None:
    stand = worker(database, redis)
    names = (wallet(ACME), month("key_1"))
    made = claims("req_a", budgets=names)
    cost = inference_cost(RATE, usage(10, 5))
    for name in names:
        await put_pending(redis, ACME, "req_a", cost, name)
        await put_pending(redis, ACME, "req_later", 77, name)
    await send(redis, settled(made, usage(10, 5)))
    await stand.consumer.step()
    assert await live_budget(redis, ACME) == {"ledger": -cost, "version": 1, "pending": 77, "held": 0}
    assert await live_budget(redis, ACME, names[1]) == {
        "ledger": -cost,
        "version": 1,
        "pending": 77,
        "held": 0,
    }


async def test_a_budget_that_redis_does_not_have_is_not_made_up(database: Database, redis: Redis) -> None:
    await send(redis, settled(claims("req_a"), usage(10, 5)))
    await worker(database, redis).consumer.step()
    assert await live_budget(redis, ACME) == {}


async def test_a_malformed_event_is_buried_and_stops_nobody(database: Database, redis: Redis) -> None:
    stream = usage_stream(bucket_of(ACME))
    foreign = settled(claims("req_x", organization=GLOBEX), usage(1, 1))
    assert bucket_of(GLOBEX) != bucket_of(ACME)
    await redis.xadd(stream, {"event": b"{not json"})
    await redis.xadd(stream, {"other": b"1"})
    await redis.xadd(stream, {"event": msgspec.json.encode(foreign)})
    await send(redis, settled(claims("req_y"), usage(1, -1)), settled(claims("req_z"), usage(1, 1)))
    await worker(database, redis).consumer.step()
    assert list(await charges(database)) == ["req_z"]
    assert len(await rows(database, DeadLetter)) == 4
    assert {alarm.kind for alarm in await rows(database, Alarm)} == {"dead_letter"}
    assert await stream_length(redis, ACME) == 0


async def test_training_is_charged_once_by_its_tokens(database: Database, redis: Redis) -> None:
    stand = worker(database, redis)
    await send(redis, trained("ftjob-1", 1000), trained("ftjob-1", 1000), trained("ftjob-2", 0))
    await stand.consumer.step()
    await send(redis, trained("ftjob-1", 1000))
    await stand.consumer.step()
    found = await charges(database)
    assert found["ftjob-1"].amount == 1000 * RATE.training
    assert found["ftjob-1"].transaction
    assert found["ftjob-2"].amount == 0
    assert await balance(database, ACME) == -1000 * RATE.training


async def test_two_organizations_have_their_own_journals(database: Database, redis: Redis) -> None:
    other = claims("req_b", organization=GLOBEX, admitted_at_ms=MARCH_MS + 40 * 86_400_000)
    await send(redis, settled(claims("req_a"), usage(10, 5)), settled(other, usage(1, 1)))
    await worker(database, redis).consumer.step()
    assert await balance(database, ACME) == -inference_cost(RATE, usage(10, 5))
    assert await balance(database, GLOBEX) == -inference_cost(RATE, usage(1, 1))
    assert (await charges(database))["req_b"].period == "2026-04"
