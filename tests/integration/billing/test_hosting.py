"""Hours of fine-tunes become charges: once each, at the price of their hour, as lines and usage of their own."""

from redis.asyncio import Redis

from support.billing.api import TENANT, billing_api
from support.billing.stand import (
    ACME,
    GLOBEX,
    MARCH_MS,
    MODEL,
    balance,
    charges,
    hosted,
    reconciler,
    rows,
    send,
    stream_length,
    worker,
)
from support.fakes.rate_cards import HOSTING_CARDS, HOUR, PINNED_HOUR, published, rate_card, with_hosting
from tokenyard.metering.events import HOUR_MS
from tokenyard.storage.database import Database
from tokenyard_billing.invoice_tables import InvoiceLine
from tokenyard_billing.invoicing.drafts import invoice_id
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.tables import Alarm, HourlyUsage

TUNED_PRICE = f"2026-01-01/{MODEL}/fine-tuned"
EVENTS = (
    *(hosted("ad_1", hour) for hour in range(3)),
    *(hosted("ad_2", hour, pinned=hour == 1, model="ft:pinned") for hour in range(2)),
    hosted("ad_3", organization=GLOBEX),
)


async def test_an_hour_is_charged_once_however_often_it_is_told(database: Database, redis: Redis) -> None:
    stand = worker(database, redis, prices=PriceList(HOSTING_CARDS))
    await send(redis, *EVENTS, *EVENTS)
    await stand.consumer.step()
    await send(redis, *EVENTS)
    await stand.consumer.step()
    found = await charges(database)
    assert len(found) == len(EVENTS)
    one = found[f"ad_1:{MARCH_MS // HOUR_MS}"]
    assert (one.kind, one.rule, one.model, one.base_model, one.price) == (
        *("hosting", "hosting", "ft:own", MODEL),
        TUNED_PRICE,
    )
    assert (one.hosted_hours, one.pinned_hours, one.amount, one.period) == (1, 0, HOUR, "2026-03")
    assert await balance(database, ACME) == -(4 * HOUR + PINNED_HOUR)
    assert await balance(database, GLOBEX) == -HOUR
    assert (await stream_length(redis, ACME), await rows(database, Alarm)) == (0, [])


async def test_they_are_lines_of_the_invoice_and_the_books_agree(database: Database, redis: Redis) -> None:
    stand = worker(database, redis, prices=PriceList(HOSTING_CARDS))
    await send(redis, *EVENTS)
    await stand.consumer.step()
    await stand.drafter.step()
    lines = [line for line in await rows(database, InvoiceLine) if line.invoice == invoice_id(ACME, "2026-03")]
    assert [(line.model, line.kind, line.quantity, line.rate, line.amount) for line in lines] == [
        ("ft:own", "hosting", 3, HOUR, 3 * HOUR),
        ("ft:pinned", "hosting", 1, HOUR, HOUR),
        ("ft:pinned", "pinned_hosting", 1, PINNED_HOUR, PINNED_HOUR),
    ]
    assert {hour.requests for hour in await rows(database, HourlyUsage)} == {0}, "nobody asked for anything"
    found = await reconciler(database, redis).reconcile()
    assert (found.ok, found.differences) == (True, [])


async def test_without_a_price_hours_are_free_and_shown(database: Database, redis: Redis) -> None:
    stand = worker(database, redis)
    await send(redis, *EVENTS)
    await stand.consumer.step()
    await stand.drafter.step()
    assert {charge.amount for charge in (await charges(database)).values()} == {0}
    assert sum(line.quantity for line in await rows(database, InvoiceLine)) == len(EVENTS)
    assert (await reconciler(database, redis).reconcile()).ok


async def test_the_price_is_that_of_the_hour_also_where_it_comes_late(database: Database, redis: Redis) -> None:
    later = with_hosting(rate_card("2026-03", (MARCH_MS // HOUR_MS + 1) * HOUR_MS))
    await published(database, later, now_ms=MARCH_MS - 86_400_000)
    stand = worker(database, redis)
    await send(redis, hosted("ad_1", 0), hosted("ad_1", 1))
    await stand.consumer.step()
    amounts = [charge.amount for _, charge in sorted((await charges(database)).items())]
    assert amounts == [0, HOUR]


async def test_the_usage_api_shows_hours_and_what_they_cost(database: Database, redis: Redis) -> None:
    stand = worker(database, redis, prices=PriceList(HOSTING_CARDS))
    await send(redis, *EVENTS)
    await stand.consumer.step()
    day_s = MARCH_MS // 86_400_000 * 86_400
    async with billing_api(database, redis, PriceList(HOSTING_CARDS)) as api:
        query = f"start_time={day_s}&end_time={day_s + 2 * 86_400}"
        _, month = await api.get("/admin/organizations/org_acme/usage?month=2026-03")
        shown = {one["model"]: (one["requests"], one["hosted_hours"], one["pinned_hours"]) for one in month["data"]}
        assert shown == {"ft:own": (0, 3, 0), "ft:pinned": (0, 1, 1)}
        await stand.drafter.step()
        _, bills = await api.get("/admin/organizations/org_acme/invoices?month=2026-03")
        [kept] = [line for line in bills["data"][0]["lines"] if line["kind"] == "pinned_hosting"]
        assert (kept["unit"], kept["rate_dollars"], kept["rate_dollars_per_million"]) == ("hours", "0.0000007", None)
        _, page = await api.get(f"/v1/organization/costs?{query}&group_by=line_item", TENANT)
        lines = [result for bucket in page["data"] for result in bucket["results"]]
        assert {(line["line_item"], line["quantity_unit"]) for line in lines} == {
            ("ft:own, hosting", "hours"),
            ("ft:pinned, hosting", "hours"),
            ("ft:pinned, pinned_hosting", "hours"),
        }
        _, usage = await api.get(f"/v1/organization/usage/completions?{query}", TENANT)
        assert [bucket["results"] for bucket in usage["data"]] == [[], []], "no tokens were used"
