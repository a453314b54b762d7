"""Rates of tax, where organizations pay it, and what it comes to on their invoices, as the API tells it."""

import pytest
from redis.asyncio import Redis

from support.billing.api import OTHER_TENANT, TENANT, billing_api
from support.billing.tax_books import APRIL_MS, DOLLAR, TaxBooks
from tokenyard.storage.database import Database
from tokenyard_billing.periods import BEGINNING

RATES = "/admin/tax_rates"
OWN = "/admin/organizations/acme/tax"
VAT = {"jurisdiction": "DE", "name": "VAT", "percent": "19", "effective_from_ms": 0}


async def test_a_rate_is_published_once_and_listed(database: Database, redis: Redis) -> None:
    async with billing_api(database, redis) as api:
        status, made = await api.post(RATES, VAT)
        assert (status, made["object"], made["rate"], made["percent"]) == (200, "tax_rate", 190_000, "19")
        assert (made["inclusive"], made["effective_from_ms"], made["published_by"]) == (False, 0, "key_operator")
        assert await api.post(RATES, VAT) == (200, made)
        status, refused = await api.post(RATES, VAT | {"percent": "16.0"})
        assert (status, "rates never change" in refused["error"]["message"]) == (409, True)
        _, region = await api.post(RATES, {"jurisdiction": "US-CA", "name": "Sales tax", "percent": "7.250"})
        assert (region["percent"], region["effective_from_ms"]) == ("7.25", region["published_at_ms"])
        status, listed = await api.get(RATES)
        assert (status, listed["data"]) == (200, [region, made])
        assert (await api.get(RATES, limit="1"))[1]["data"] == [region]
        assert (await api.get(RATES, after=region["id"]))[1]["data"] == [made]
        assert (await api.get(RATES, after="tax_none"))[0] == 400
        assert (await api.get(RATES, TENANT))[0] == 403
        assert (await api.post(RATES, VAT, TENANT))[0] == 403


@pytest.mark.parametrize(
    "wrong",
    [
        {"jurisdiction": "de"},
        {"jurisdiction": "Germany"},
        {"jurisdiction": "US-"},
        {"jurisdiction": "DE\n"},
        {"percent": "-1"},
        {"percent": "100.1"},
        {"percent": "19.00001"},
        {"percent": "much"},
        {"percent": 19},
        {"name": ""},
        {"name": "\x00"},
        {"name": "x" * 65},
        {"effective_from_ms": -1},
        {"effective_from_ms": 10**18},
        {"more": 1},
    ],
    ids=str,
)
async def test_a_rate_that_is_none_is_refused(database: Database, redis: Redis, wrong: dict[str, object]) -> None:
    async with billing_api(database, redis) as api:
        status, refused = await api.post(RATES, VAT | wrong)
        assert (status, refused["error"]["type"]) == (400, "invalid_request_error")
        assert (await api.get(RATES))[1]["data"] == []


async def test_a_profile_is_shown_and_changed(database: Database, redis: Redis) -> None:
    async with billing_api(database, redis) as api:
        status, before = await api.get(OWN)
        assert (status, before["jurisdiction"], before["exemption"], before["since_period"]) == (
            200,
            None,
            "none",
            None,
        )
        exempt = {"jurisdiction": "DE", "exemption": "exempt", "reason": "a hospital"}
        status, changed = await api.put(OWN, exempt)
        assert (status, changed) == (200, before | exempt | {"since_period": BEGINNING})
        assert await api.get(OWN) == (200, changed)
        for body in (
            {},
            {"jurisdiction": "Mars"},
            {"jurisdiction": "DE", "exemption": "maybe"},
            {"jurisdiction": "DE", "exemption": "exempt"},
            {"jurisdiction": "DE", "reason": "\x00"},
            {"jurisdiction": "DE", "more": 1},
        ):
            assert (await api.put(OWN, body))[0] == 400, body
        assert (await api.put(OWN, {"jurisdiction": None}))[1]["jurisdiction"] is None
        assert (await api.put("/admin/organizations/nobody/tax", exempt))[0] == 404
        assert (await api.put(OWN, exempt, TENANT))[0] == 403
        assert (await api.get(OWN, TENANT))[0] == 403


async def test_a_tenant_sees_the_tax_of_its_own_invoice(database: Database, redis: Redis) -> None:
    books = TaxBooks(database, redis)
    await books.publish("DE", "19")
    await books.live_in("DE")
    await books.use(12_345_678_900)
    await books.use(DOLLAR)
    books.at(APRIL_MS)
    await books.close()
    async with billing_api(database, redis) as api:
        [found] = (await api.get("/v1/organization/invoices", TENANT))[1]["data"]
        assert (found["tax"], found["tax_dollars"], found["tax_included"]) == (2_535_678_991, "2.535678991", 0)
        assert (found["rounding_dollars"], found["amount_due_dollars"]) == ("-0.001357891", "15.88")
        assert (found["tax_jurisdiction"], found["tax_exemption"], found["tax_reason"]) == ("DE", "none", "")
        [line] = found["lines"]
        assert (line["tax_name"], line["tax_percent"], line["tax_rate"]) == ("VAT", "19", 190_000)
        assert (line["tax_inclusive"], line["tax"], line["credit_applied"]) == (False, 2_535_678_991, 0)
        assert (await api.get("/v1/organization/invoices", OTHER_TENANT))[1]["data"] == []
        accounts = {one["name"]: one["amount"] for one in (await api.get("/admin/books"))[1]["accounts"]}
        assert (accounts["tax"], accounts["rounding"]) == (2_535_678_991, -1_357_891)
