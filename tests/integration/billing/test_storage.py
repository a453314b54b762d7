"""Gigabytes that were kept for a month become charges of an organization: once each, of no project and no key."""

from redis.asyncio import Redis

from support.billing.api import TENANT, billing_api
from support.billing.stand import (
    ACME,
    GLOBEX,
    MARCH_MS,
    balance,
    charges,
    kept,
    reconciler,
    rows,
    send,
    stream_length,
    worker,
)
from support.fakes.rate_cards import GB_MONTH, HOSTING_CARDS, published, rate_card, with_hosting
from tokenyard.metering.events import HOUR_MS
from tokenyard.storage.database import Database
from tokenyard_billing.invoice_tables import InvoiceLine
from tokenyard_billing.invoicing.drafts import invoice_id
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.tables import Alarm, HourlyUsage, Spending

EVENTS = (kept(1), kept(2), kept(3, hour=1), kept(1, organization=GLOBEX))


async def test_each_is_charged_once_however_often_it_is_told(database: Database, redis: Redis) -> None:
    stand = worker(database, redis, prices=PriceList(HOSTING_CARDS))
    await send(redis, *EVENTS, *EVENTS)
    await stand.consumer.step()
    await send(redis, *EVENTS)
    await stand.consumer.step()
    found = await charges(database)
    assert sorted(found) == [f"{ACME}:storage:{number}" for number in (1, 2, 3)] + [f"{GLOBEX}:storage:1"]
    one = found[f"{ACME}:storage:1"]
    assert (one.kind, one.rule, one.model, one.price) == ("storage", "storage", "storage", "2026-01-01/storage")
    assert (one.project, one.key, one.stored_months, one.amount, one.period) == ("", "", 1, GB_MONTH, "2026-03")
    assert (await balance(database, ACME), await balance(database, GLOBEX)) == (-3 * GB_MONTH, -GB_MONTH)
    assert {(row.scope, row.spent) for row in await rows(database, Spending)} == {
        (ACME, 3 * GB_MONTH),
        (GLOBEX, GB_MONTH),
    }, "the organization's monthly limit counts it, and no other"
    assert (await stream_length(redis, ACME), await rows(database, Alarm)) == (0, [])


async def test_it_is_a_line_of_the_invoice_and_the_books_agree(database: Database, redis: Redis) -> None:
    stand = worker(database, redis, prices=PriceList(HOSTING_CARDS))
    await send(redis, *EVENTS)
    await stand.consumer.step()
    await stand.drafter.step()
    [line] = [line for line in await rows(database, InvoiceLine) if line.invoice == invoice_id(ACME, "2026-03")]
    assert (line.model, line.kind, line.quantity, line.rate) == ("storage", "storage", 3, GB_MONTH)
    assert line.amount == 3 * GB_MONTH
    assert {hour.requests for hour in await rows(database, HourlyUsage)} == {0}, "nobody asked for anything"
    found = await reconciler(database, redis).reconcile()
    assert (found.ok, found.differences) == (True, [])


async def test_the_api_tells_the_line_in_gigabyte_months(database: Database, redis: Redis) -> None:
    stand = worker(database, redis, prices=PriceList(HOSTING_CARDS))
    await send(redis, *EVENTS)
    await stand.consumer.step()
    await stand.drafter.step()
    async with billing_api(database, redis, PriceList(HOSTING_CARDS)) as api:
        status, page = await api.get("/v1/organization/invoices", TENANT)
        assert status == 200
        [line] = page["data"][0]["lines"]
        assert (line["quantity"], line["unit"], line["rate_dollars_per_million"]) == (3, "gigabyte_months", None)


async def test_without_a_price_storage_is_free_and_shown(database: Database, redis: Redis) -> None:
    stand = worker(database, redis)
    await send(redis, *EVENTS)
    await stand.consumer.step()
    await stand.drafter.step()
    assert {charge.amount for charge in (await charges(database)).values()} == {0}
    assert sum(line.quantity for line in await rows(database, InvoiceLine)) == len(EVENTS)
    assert (await reconciler(database, redis).reconcile()).ok


async def test_the_price_is_that_of_the_hour_that_completed_it(database: Database, redis: Redis) -> None:
    later = with_hosting(rate_card("2026-03", (MARCH_MS // HOUR_MS + 1) * HOUR_MS))
    await published(database, later, now_ms=MARCH_MS - 86_400_000)
    stand = worker(database, redis)
    await send(redis, kept(1), kept(2, hour=1))
    await stand.consumer.step()
    assert [charge.amount for _, charge in sorted((await charges(database)).items())] == [0, GB_MONTH]


async def test_the_usage_api_shows_it_without_a_project_or_key(database: Database, redis: Redis) -> None:
    stand = worker(database, redis, prices=PriceList(HOSTING_CARDS))
    await send(redis, *EVENTS)
    await stand.consumer.step()
    day_s = MARCH_MS // 86_400_000 * 86_400
    async with billing_api(database, redis, PriceList(HOSTING_CARDS)) as api:
        _, month = await api.get("/admin/organizations/org_acme/usage?month=2026-03")
        assert [(one["model"], one["requests"], one["stored_months"]) for one in month["data"]] == [("storage", 0, 3)]
        query = f"start_time={day_s}&end_time={day_s + 86_400}"
        _, page = await api.get(f"/v1/organization/costs?{query}&group_by=line_item&group_by=project_id", TENANT)
        [cost] = [result for bucket in page["data"] for result in bucket["results"]]
        assert (cost["line_item"], cost["project_id"]) == ("storage, storage", None)
        assert (cost["quantity"], cost["quantity_unit"]) == (3, "gigabyte_months")
