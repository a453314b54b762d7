"""Time zones, periods, the ends of invoices and the trial balance, as the API tells them."""

import pytest
from redis.asyncio import Redis
from sqlalchemy import update

from support.billing.api import OPERATOR, OTHER_TENANT, TENANT, Api, billing_api
from support.billing.invoice_books import InvoiceBooks
from support.billing.stand import ACME, GLOBEX, MARCH_MS
from tokenyard.storage.database import Database
from tokenyard_billing.invoice_tables import Invoice
from tokenyard_billing.periods import DAY_MS, period_end_ms, period_start_ms

INVOICE = "inv_acme_2026-03"
OWN = "/admin/organizations/acme"


@pytest.fixture
async def books(database: Database, redis: Redis) -> InvoiceBooks:
    """March is closed: 1,000 are due of one organization, and nothing of the other, which has credit."""
    books = InvoiceBooks(database, redis)
    await books.grant(9_000, GLOBEX)
    for organization in (ACME, GLOBEX):
        await books.use(1_000, organization)
    books.clock.advance(31 * DAY_MS / 1000)
    await books.close()
    return books


async def test_a_time_zone_is_shown_and_changed(database: Database, redis: Redis) -> None:
    async with billing_api(database, redis) as api:
        status, before = await api.get(f"{OWN}/time_zone")
        assert (status, before["time_zone"], before["next_time_zone"]) == (200, "UTC", "UTC")
        status, changed = await api.post(f"{OWN}/time_zone", {"time_zone": "Europe/Berlin"})
        assert (status, changed) == (200, before | {"next_time_zone": "Europe/Berlin"})
        assert (await api.get(f"{OWN}/time_zone"))[1] == changed
        for body in ({}, {"time_zone": "Mars"}, {"time_zone": "\x00"}, {"time_zone": "UTC", "more": 1}):
            assert (await api.post(f"{OWN}/time_zone", body))[0] == 400, body
        status, refused = await api.post(f"{OWN}/time_zone", {"time_zone": "Mars"})
        assert refused["error"]["param"] == "time_zone"
        assert (await api.post("/admin/organizations/nobody/time_zone", {"time_zone": "UTC"}))[0] == 404
        assert (await api.post(f"{OWN}/time_zone", {"time_zone": "UTC"}, TENANT))[0] == 403


async def test_periods_are_open_closing_and_closed(books: InvoiceBooks) -> None:
    await books.use(100, at_ms=MARCH_MS + 31 * DAY_MS)
    async with billing_api(books.database, books.redis) as api:  # by today's clock, April has ended
        status, listed = await api.get(f"{OWN}/periods")
        assert status == 200
        assert [(one["id"], one["state"]) for one in listed["data"]] == [("2026-04", "closing"), ("2026-03", "closed")]
        bounds = [(one["start_ms"], one["end_ms"]) for one in listed["data"]]
        months = ("2026-04", "2026-03")
        assert bounds == [(period_start_ms(one, "UTC"), period_end_ms(one, "UTC")) for one in months]
        assert (await api.get(f"{OWN}/periods", after="2026-04"))[1]["data"] == listed["data"][1:]
        assert (await api.get(f"{OWN}/periods", TENANT))[0] == 403


async def in_state(api: Api, state: str, path: str = "/admin/invoices", key: str = OPERATOR) -> list[str]:
    status, listed = await api.get(path, key, state=state)
    assert status == 200
    assert {one["state"] for one in listed["data"]} <= {state}
    return [one["id"] for one in listed["data"]]


async def test_an_open_invoice_is_past_due_from_a_moment_on(books: InvoiceBooks) -> None:
    async with billing_api(books.database, books.redis) as api:
        assert await in_state(api, "past_due") == [INVOICE]
        assert await in_state(api, "open") == []
        assert await in_state(api, "paid") == ["inv_globex_2026-03"]
        assert await in_state(api, "past_due", "/v1/organization/invoices", TENANT) == [INVOICE]
        assert await in_state(api, "past_due", "/v1/organization/invoices", OTHER_TENANT) == []
        async with books.database.transaction() as session:
            await session.execute(update(Invoice).values(due_at_ms=4 * 10**12))
        assert (await in_state(api, "past_due"), await in_state(api, "open")) == ([], [INVOICE])
        assert await in_state(api, "open", f"{OWN}/invoices") == [INVOICE]
        assert (await api.get("/admin/invoices", state="lost"))[0] == 400
        _, found = await api.get(f"/admin/invoices/{INVOICE}")
        assert (found["issuer"], found["time_zone"], found["settlement"]) == ("tokenyard", "UTC", None)
        assert found["period_end_ms"] == period_end_ms("2026-03", "UTC")
        assert [line["usage_period"] for line in found["lines"]] == ["2026-03"]


async def test_an_invoice_is_paid_once(books: InvoiceBooks) -> None:
    async with billing_api(books.database, books.redis) as api:
        another = {"reference": "bank 17", "idempotency_key": "pay_of_another"}
        assert (await api.post(f"/admin/invoices/{INVOICE}/pay", another))[0] == 400
        body = {"reference": "bank 17", "idempotency_key": "a"}
        status, paid = await api.post(f"/admin/invoices/{INVOICE}/pay", body)
        assert (status, paid["state"], paid["settlement"]["amount"]) == (200, "paid", 1_000)
        assert (paid["settlement"]["note"], paid["settlement"]["actor"]) == ("bank 17", "key_operator")
        assert await api.post(f"/admin/invoices/{INVOICE}/pay", body) == (200, paid)
        status, refused = await api.post(f"/admin/invoices/{INVOICE}/void", {"reason": "too late"})
        assert (status, "is paid" in refused["error"]["message"]) == (409, True)
        accounts = {one["name"]: one["amount"] for one in (await api.get("/admin/books"))[1]["accounts"]}
        assert (accounts["cash"], accounts["receivable"], accounts["revenue"]) == (-1_000, 0, 2_000)


@pytest.mark.parametrize(("way", "state"), [("void", "void"), ("write_off", "uncollectible")])
async def test_an_invoice_is_let_go_for_a_reason(books: InvoiceBooks, way: str, state: str) -> None:
    path = f"/admin/invoices/{INVOICE}/{way}"
    async with billing_api(books.database, books.redis) as api:
        for body in ({}, {"reason": ""}, {"reason": "\x00"}, {"reason": "x" * 501}):
            assert (await api.post(path, body))[0] == 400, body
        assert (await api.post(path, {"reason": "x"}, TENANT))[0] == 403
        assert (await api.post(f"/admin/invoices/inv_none/{way}", {"reason": "x"}))[0] == 404
        status, found = await api.post(path, {"reason": "a mistake"})
        assert (status, found["state"], found["settlement"]["note"]) == (200, state, "a mistake")
        assert (await api.post(path, {"reason": "again"}))[0] == 409
        _, trial = await api.get("/admin/books")
        assert trial["total"] == 0
        assert (await api.get("/admin/books", TENANT))[0] == 403
