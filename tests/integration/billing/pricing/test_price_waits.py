"""An event whose price is not known waits, holds up nobody, and is charged when its rate card is there."""

import msgspec
import pytest
from redis.asyncio import Redis
from sqlalchemy import update

from support.billing.stand import (
    ACME,
    MARCH_MS,
    MODEL,
    charges,
    claims,
    intake,
    reported,
    rows,
    send,
    settled,
    stream_length,
    trained,
    usage,
    worker,
)
from support.fakes.rate_cards import SHIPPED_CARDS, published, rate_card
from tokenyard.core.ids import PriceId
from tokenyard.metering.events import Outcome, UsageEvent
from tokenyard.storage.database import Database
from tokenyard_billing.charging import price_waits
from tokenyard_billing.charging.consumer import LedgerConsumer
from tokenyard_billing.charging.intake import Received
from tokenyard_billing.charging.price_waits import PriceWaits
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.tables import Alarm, DeadLetter, OpenRequest, RateCardRow, Waste

GONE = rate_card("gone", MARCH_MS - 20 * 86_400_000, model="gone")
UNRATED = claims("req_a", base_model="gone", price=PriceId("gone/gone"))
LATER = PriceId(f"later/{MODEL}")
DAY_MS = 86_400_000


@pytest.fixture
def looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(price_waits, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(price_waits, "LONGEST_PAUSE_S", 0.0)


async def publish_later(database: Database) -> None:
    await published(database, rate_card("later", MARCH_MS - DAY_MS, output="9"), now_ms=MARCH_MS - 10 * DAY_MS)


async def steps(consumer: LedgerConsumer, number: int) -> None:
    for _ in range(number):
        await consumer.step()


@pytest.mark.usefixtures("looks_at_once")
async def test_it_waits_far_beyond_five_deliveries_and_is_charged_when_its_card_is_there(
    database: Database, redis: Redis
) -> None:
    consumer = worker(database, redis).consumer
    await send(
        redis,
        settled(claims("req_a", price=LATER), usage(1, 2)),
        msgspec.structs.replace(trained("ftjob-1", 3), price=LATER),
        settled(claims("req_b"), usage(1, 1)),
    )
    await steps(consumer, 8)
    await send(redis, settled(claims("req_c"), usage(1, 1)))
    await consumer.step()
    assert set(await charges(database)) == {"req_b", "req_c"}
    assert await rows(database, DeadLetter) == []
    assert [(alarm.kind, alarm.subject) for alarm in await rows(database, Alarm)] == [("price_unknown", LATER)]
    assert await stream_length(redis, ACME) == 2  # those that wait, and nothing besides

    await publish_later(database)
    await consumer.step()
    found = await charges(database)
    assert (found["req_a"].price, found["req_a"].amount) == (LATER, 1 * 100 + 2 * 9_000)
    assert (found["ftjob-1"].price, found["ftjob-1"].amount) == (LATER, 3 * 3_000)
    assert await stream_length(redis, ACME) == 0


async def test_new_cards_are_looked_for_after_pauses_that_grow_to_half_a_minute(database: Database) -> None:
    clock_s = 1_000.0
    waits = PriceWaits(database, PriceList(), now=lambda: clock_s)

    async def seen_after(pause_s: float) -> bool:
        """Publish one more card a moment after a look; tell whether it is seen so much later."""
        nonlocal clock_s
        number = len(await rows(database, RateCardRow))
        await published(database, rate_card(str(number), number * DAY_MS), now_ms=0)
        clock_s += pause_s
        over = await waits.over()
        waits.discard(7)
        waits.add(7, number + 1)
        return over == {7}

    waits.add(3, 99)  # another bucket waits all the time
    waits.add(7, 0)
    assert not await seen_after(0.4)
    assert await seen_after(0.1)
    assert not await seen_after(0.9)
    assert await seen_after(0.1)
    for _ in range(6):
        clock_s += 30
        await waits.over()
    assert not await seen_after(29.9)
    assert await seen_after(0.1)


@pytest.mark.usefixtures("looks_at_once")
async def test_another_worker_inherits_what_waits(database: Database, redis: Redis) -> None:
    first = worker(database, redis, name="a")
    await send(redis, settled(claims("req_a", price=LATER), usage(1, 2)))
    await first.consumer.step()
    await first.stop()
    second = worker(database, redis, name="b")
    await steps(second.consumer, 2)
    assert await charges(database) == {}
    await publish_later(database)
    await steps(second.consumer, 2)
    assert list(await charges(database)) == ["req_a"]


async def test_a_card_that_was_published_a_moment_ago_is_known_to_the_ledger_at_once(
    database: Database, redis: Redis
) -> None:
    """Not by the push, which may be late, but because it looks in the transaction that charges."""
    consumer = worker(database, redis).consumer
    await publish_later(database)
    await send(redis, settled(claims("req_a"), usage(1, 2)), settled(claims("req_b", price=LATER), usage(1, 2)))
    await consumer.step()
    found = await charges(database)
    assert {charge.price for charge in found.values()} == {LATER}
    assert {charge.amount for charge in found.values()} == {1 * 100 + 2 * 9_000}
    assert [(alarm.kind, alarm.subject) for alarm in await rows(database, Alarm)] == [("price_differs", "req_a")]


async def taken_when_the_card_was_known(database: Database, *events: UsageEvent) -> None:
    """Bring events into SQL with a card in memory that SQL does not have, as an older version may have done."""
    known = PriceList([*SHIPPED_CARDS, GONE])
    async with database.transaction() as session:
        await intake(database, known, report_wait_ms=0).take(session, [Received(event, 1) for event in events], 1)


async def make_due(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(update(OpenRequest).values(deadline_ms=1))


async def test_an_overdue_request_that_cannot_be_rated_waits_and_the_others_are_decided(
    database: Database, redis: Redis
) -> None:
    left = Outcome.CLIENT_LEFT
    await taken_when_the_card_was_known(
        database, settled(UNRATED, usage(1, 1), left), settled(claims("req_b"), usage(1, 1), left)
    )
    consumer = worker(database, redis).consumer
    await steps(consumer, 2)
    assert list(await charges(database)) == ["req_b"]
    [waiting] = await rows(database, OpenRequest)
    assert waiting.request == "req_a"
    assert [(alarm.kind, alarm.subject) for alarm in await rows(database, Alarm)] == [("price_unknown", "gone/gone")]

    await published(database, GONE, now_ms=0)
    await make_due(database)
    await consumer.step()
    assert (await charges(database))["req_a"].price == "gone/gone"
    assert await rows(database, OpenRequest) == []


async def test_a_decision_waits_too_where_an_earlier_report_cannot_be_rated(database: Database, redis: Redis) -> None:
    await taken_when_the_card_was_known(database, reported(UNRATED, usage(1, 1)))
    consumer = worker(database, redis).consumer
    await send(redis, settled(claims("req_a", 2), usage(1, 1)), settled(claims("req_b"), usage(1, 1)))
    await steps(consumer, 2)
    assert list(await charges(database)) == ["req_b"]
    assert await rows(database, DeadLetter) == []
    assert await stream_length(redis, ACME) == 0

    await published(database, GONE, now_ms=0)
    await make_due(database)
    await consumer.step()
    assert (await charges(database))["req_a"].attempt == "req_a.2"
    assert [waste.amount for waste in await rows(database, Waste)] == [1 * 100 + 1 * 800]
