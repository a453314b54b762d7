"""What happens to jobs, invoices and credit is an event, once, written in the transaction that lets it happen."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from support.billing.invoice_books import InvoiceBooks
from support.billing.stand import ACME, MARCH_MS, balance, rows, usage
from support.finetune.stack import FinetuneStack
from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.storage.database import Database, EventLog
from tokenyard.webhooks.events import write_event
from tokenyard.webhooks.tables import WebhookEventRow
from tokenyard_billing.invoice_tables import CreditNote
from tokenyard_billing.invoicing.settling import InvoiceSettlements
from tokenyard_billing.periods import DAY_MS
from tokenyard_billing.tables import CreditGrant

APRIL_MS = MARCH_MS + 31 * DAY_MS
INVOICE = "inv_acme_2026-03"
OPERATOR = ApiKeyId("key_operator")
ISSUED, PAID = ("invoice.issued", INVOICE), ("invoice.paid", INVOICE)


async def told(database: Database, *, but: str = "credit.granted") -> list[tuple[str, Any]]:
    """Return the types of events and whose they are, in no order that counts within one moment."""
    async with database.reading() as session:
        events = await session.scalars(select(WebhookEventRow).order_by(WebhookEventRow.at_ms, WebhookEventRow.type))
        return [(one.type, one.data["id"]) for one in events if one.type != but]


@pytest.fixture
def stack(database: Database, tmp_path: Path) -> FinetuneStack:
    return FinetuneStack(database, tmp_path)


async def test_each_end_of_a_job_is_told_once(stack: FinetuneStack) -> None:
    cancelled = await stack.create()
    for _ in range(2):
        await stack.jobs.cancel(cancelled.organization, cancelled.id)
        assert await told(stack.database) == [("fine_tuning.job.cancelled", cancelled.id)]
    await stack.rounds(6)
    good = await stack.create()
    await stack.rounds(2)
    await stack.cluster.succeed(f"{good.id}-1", tokens=10)
    await stack.rounds(6)
    bad = await stack.create()
    await stack.rounds(2)
    await stack.cluster.fail(f"{bad.id}-1", "row_too_long", "Row 3 does not fit.")
    await stack.rounds(6)
    assert await told(stack.database) == [
        ("fine_tuning.job.cancelled", cancelled.id),
        ("fine_tuning.job.succeeded", good.id),
        ("fine_tuning.job.failed", bad.id),
    ]
    assert {one.organization for one in await rows(stack.database, WebhookEventRow)} == {"org_acme"}


@pytest.fixture
async def books(database: Database, redis: Redis) -> InvoiceBooks:
    """March is closed: 3,500 were used, 300 paid by credit, and 3,200 are due."""
    books = InvoiceBooks(database, redis)
    await books.grant(300)
    await books.spend("req_a", usage(1, 1))
    await books.spend("req_b", usage(10, 5))
    books.clock.advance((APRIL_MS - MARCH_MS) / 1000)
    await books.close()
    return books


def settlements(books: InvoiceBooks, events: EventLog = write_event) -> InvoiceSettlements:
    return books.settling(events)


async def test_credit_that_is_granted_is_told_once(database: Database, redis: Redis) -> None:
    books = InvoiceBooks(database, redis)
    await asyncio.gather(*(books.grant(300, key="once") for _ in range(3)))
    [grant] = await rows(database, CreditGrant)
    [event] = await rows(database, WebhookEventRow)
    assert (event.type, event.organization) == ("credit.granted", ACME)
    assert event.data == {"id": grant.transaction, "amount": 300}


async def test_an_invoice_is_told_when_it_is_issued_and_when_it_ends(books: InvoiceBooks) -> None:
    assert await told(books.database) == [ISSUED]
    for _ in range(2):
        await settlements(books).pay(INVOICE, reference="bank 17", idempotency_key="once", actor=OPERATOR)
    await books.close()
    assert await told(books.database) == [ISSUED, PAID]


async def test_the_other_ends_of_an_invoice(books: InvoiceBooks) -> None:
    await settlements(books).void(INVOICE, reason="by mistake", actor=OPERATOR)
    assert await told(books.database) == [ISSUED, ("invoice.voided", INVOICE)]


async def test_an_invoice_that_is_written_off(books: InvoiceBooks) -> None:
    await settlements(books).write_off(INVOICE, reason="bankrupt", actor=OPERATOR)
    assert await told(books.database) == [ISSUED, ("invoice.marked_uncollectible", INVOICE)]


async def test_an_invoice_of_nothing_is_issued_and_paid(database: Database, redis: Redis) -> None:
    books = InvoiceBooks(database, redis)
    await books.grant(1_000)
    await books.use(500)
    books.clock.advance((APRIL_MS - MARCH_MS) / 1000)
    await books.close()
    assert await told(books.database) == [ISSUED, PAID]


async def test_a_credit_note_is_told_and_the_invoice_that_it_pays(books: InvoiceBooks) -> None:
    await books.correct("cheap", request="req_b")
    [note] = await rows(books.database, CreditNote)
    assert await told(books.database) == [("credit_note.issued", note.id), ISSUED]
    books.clock.advance(1)
    await books.correct(period="2026-03")
    [second] = [one for one in await rows(books.database, CreditNote) if one.id != note.id]
    assert (await books.invoice("2026-03")).state == "paid"
    assert (await told(books.database))[2:] == [("credit_note.issued", second.id), PAID]


async def test_where_the_event_cannot_be_written_nothing_happened(books: InvoiceBooks) -> None:
    async def broken(session: AsyncSession, organization: OrganizationId, kind: str, data: Any, *, at_ms: int) -> None:
        await write_event(session, organization, kind, data, at_ms=at_ms)
        raise ConnectionError("lost between the event and the commit")

    with pytest.raises(ConnectionError):
        await settlements(books, broken).pay(INVOICE, reference="x", idempotency_key="once", actor=OPERATOR)
    assert await told(books.database) == [ISSUED]
    assert (await books.invoice("2026-03")).state == "open"
    assert await balance(books.database, ACME, "cash") == 0


async def test_a_type_that_is_not_known_is_a_bug(database: Database) -> None:
    with pytest.raises(ValueError, match="no such type"):
        async with database.transaction() as session:
            await write_event(session, ACME, "invoice.lost", {}, at_ms=MARCH_MS)
