"""Corrections and credit notes, as the API tells them."""

import pytest
from redis.asyncio import Redis

from support.billing.api import OTHER_TENANT, TENANT, billing_api
from support.billing.invoice_books import CHEAP, InvoiceBooks
from support.billing.stand import MARCH_MS, usage
from support.fakes.rate_cards import SHIPPED_CARDS
from tokenyard.storage.database import Database
from tokenyard_billing.periods import DAY_MS
from tokenyard_billing.pricing.prices import PriceList

OWN = "/admin/organizations/acme/corrections"
PRICES = PriceList((*SHIPPED_CARDS, CHEAP))
WANTED = {"period": "2026-03", "card": "cheap"}


@pytest.fixture
async def books(database: Database, redis: Redis) -> InvoiceBooks:
    """March is closed, with 3,000 due."""
    books = InvoiceBooks(database, redis)
    await books.spend("req_b", usage(10, 5))
    books.clock.advance(31 * DAY_MS / 1000)
    await books.close()
    return books


async def test_a_correction_is_looked_at_asked_for_and_read(books: InvoiceBooks) -> None:
    async with billing_api(books.database, books.redis, PRICES) as api:
        status, seen = await api.post(f"{OWN}/preview", WANTED)
        assert (status, seen["charges"], seen["lowered_dollars"], seen["raised"]) == (200, 1, "0.000001", 0)
        [line] = seen["lines"]
        assert (line["billed_in"], line["invoice_issued"], line["amount"]) == ("2026-03", True, 3_000)
        body = {**WANTED, "reason": "promised", "idempotency_key": "a"}
        status, asked = await api.post(OWN, body)
        assert (status, asked["state"], asked["scope"]["period"], asked["card"]) == (200, "pending", "2026-03", "cheap")
        assert await api.post(OWN, body) == (200, asked)
        await books.worker.corrections.step()
        status, done = await api.get(f"/admin/corrections/{asked['id']}")
        assert (status, done["state"], done["charges"], done["lowered"]) == (200, "applied", 1, 1_000)
        assert (await api.get("/admin/corrections", organization="acme"))[1]["data"] == [done]
        assert (await api.get("/admin/corrections", organization="globex"))[1]["data"] == []
        _, story = await api.get("/admin/requests/req_b")
        assert [(one["rule"], one["amount"]) for one in story["corrections"]] == [
            ("reversed", -3_000),
            ("rerated", 2_000),
        ]


async def test_a_credit_note_is_its_tenants(books: InvoiceBooks) -> None:
    await books.correct("cheap", period="2026-03")
    async with billing_api(books.database, books.redis, PRICES) as api:
        status, listed = await api.get("/v1/organization/credit_notes", TENANT)
        [note] = listed["data"]
        assert (status, note["number"], note["total"], note["lowered"]) == (200, "CN-000001", 1_000, 1_000)
        assert sum(line["amount"] for line in note["lines"]) == 1_000
        own = f"/v1/organization/credit_notes/{note['id']}"
        assert await api.get(own, TENANT) == (200, note)
        assert (await api.get(own, OTHER_TENANT))[0] == 404
        assert (await api.get("/v1/organization/credit_notes", OTHER_TENANT))[1]["data"] == []
        assert (await api.get("/v1/organization/credit_notes", TENANT, invoice="inv_none"))[1]["data"] == []
        assert (await api.get("/admin/credit_notes", invoice=note["invoice"]))[1]["data"] == [note]
        assert await api.get(f"/admin/credit_notes/{note['id']}") == (200, note)
        _, invoice = await api.get(f"/admin/invoices/{note['invoice']}")
        assert (invoice["amount_remaining"], invoice["credit_notes"]) == (2_000, [note["id"]])


async def test_what_makes_no_sense_is_refused(books: InvoiceBooks) -> None:
    bodies: list[dict[str, object]] = [
        {},
        {"model": "m"},
        {"period": "2026-13"},
        {"period": "2026-03", "card": "unknown"},
        {"request": "\x00"},
        {"since_ms": -1},
        {"since_ms": 2**60},
        {"period": "2026-03", "more": 1},
    ]
    async with billing_api(books.database, books.redis, PRICES) as api:
        for body in bodies:
            assert (await api.post(f"{OWN}/preview", body))[0] == 400, body
            assert (await api.post(OWN, {**body, "reason": "x"}))[0] == 400, body
        assert (await api.post(OWN, WANTED))[0] == 400
        assert (await api.post(OWN, {**WANTED, "reason": "x", "period": "2020-01"}))[0] == 400
        assert (await api.post(OWN, {**WANTED, "reason": "x"}, TENANT))[0] == 403
        assert (await api.post(f"{OWN}/preview", WANTED, TENANT))[0] == 403
        assert (await api.post("/admin/organizations/nobody/corrections", {**WANTED, "reason": "x"}))[0] == 404
        for path in ("/admin/corrections/cor_none", "/admin/credit_notes/cn_none"):
            assert (await api.get(path))[0] == 404
            assert (await api.get(path, TENANT))[0] == 403


async def test_charges_of_a_draft_have_no_credit_note(books: InvoiceBooks) -> None:
    await books.spend("req_c", usage(1, 0), at_ms=MARCH_MS + 31 * DAY_MS)
    await books.correct(request="req_c")
    async with billing_api(books.database, books.redis, PRICES) as api:
        assert (await api.get("/admin/credit_notes"))[1]["data"] == []
