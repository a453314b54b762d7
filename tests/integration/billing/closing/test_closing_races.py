"""What happens while a period is being closed neither blocks it nor falls between two invoices."""

import asyncio
from collections.abc import Iterable

import pytest
from redis.asyncio import Redis
from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncSession

from support.billing.invoice_books import OPERATOR, InvoiceBooks
from support.billing.stand import ACME, MARCH_MS, rows
from tokenyard.core.ids import OrganizationId
from tokenyard.storage.database import Database
from tokenyard.tenancy.store import record
from tokenyard_billing.calendars import load_calendar
from tokenyard_billing.invoice_tables import BillingPeriod
from tokenyard_billing.invoicing.drafts import Drafts
from tokenyard_billing.periods import DAY_MS, BillingCalendar
from tokenyard_billing.stale_invoices import mark_stale
from tokenyard_billing.tables import Alarm, BucketLease
from tokenyard_billing.taxes import profiles
from tokenyard_billing.taxes.profiles import TaxProfiles
from tokenyard_billing.taxes.terms import TaxProfile
from tokenyard_billing.wallets import store

APRIL_MS = MARCH_MS + 31 * DAY_MS


@pytest.fixture
async def books(database: Database, redis: Redis) -> InvoiceBooks:
    """March may close now."""
    books = InvoiceBooks(database, redis)
    await books.use(1_000)
    books.clock.advance((APRIL_MS - MARCH_MS) / 1000)
    async with database.transaction() as session:
        await session.execute(update(BucketLease).values(watermark_ms=APRIL_MS))
    return books


async def closed(books: InvoiceBooks) -> set[str]:
    return {one.period for one in await rows(books.database, BillingPeriod) if one.closed_at_ms is not None}


async def test_a_grant_and_a_closing_do_not_block_each_other(
    books: InvoiceBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both write the wallet and the mark of the running period."""
    await books.use(100, at_ms=APRIL_MS)
    closings = []

    async def mark_later(session: AsyncSession, periods: Iterable[tuple[OrganizationId, str]]) -> None:
        closings.append(asyncio.create_task(books.worker.closer.step()))
        await asyncio.sleep(0.5)
        await mark_stale(session, periods)

    monkeypatch.setattr(store, "mark_stale", mark_later)
    await books.grant(50)
    await asyncio.gather(*closings)
    assert await closed(books) == {"2026-03"}
    assert await rows(books.database, Alarm) == []
    await books.draft()
    assert await books.bills() == [("2026-03", 1_000, 0, 1_000), ("2026-04", 100, 50, 50)]


async def test_a_charge_after_another_draw_took_its_months_mark_is_billed(books: InvoiceBooks) -> None:
    """A grant marks a month in which nothing was used: its mark goes, and that of the first charge looks the same."""
    await books.draft()
    await books.grant(50)
    draw, drafting = books.worker.drafter.draw, []

    async def slowly(organization: OrganizationId) -> Drafts:
        drawn = await draw(organization)
        books.worker.drafter.draw = draw  # type: ignore[method-assign]
        drafting.append(asyncio.create_task(books.draft()))
        await asyncio.sleep(0.5)
        await books.use(100, at_ms=APRIL_MS)
        return drawn

    books.worker.drafter.draw = slowly  # type: ignore[method-assign]
    await books.worker.closer.step()
    await asyncio.gather(*drafting)
    await books.draft()
    assert await closed(books) == {"2026-03"}
    assert await books.bills() == [("2026-03", 1_000, 0, 1_000), ("2026-04", 100, 50, 50)]


async def test_a_period_whose_charges_are_on_no_invoice_stays_open(books: InvoiceBooks) -> None:
    async with books.database.transaction() as session:
        await session.execute(text("DELETE FROM billing_stale_invoices"))
    await books.worker.closer.step()
    assert await closed(books) == set()
    [alarm] = await rows(books.database, Alarm)
    assert (alarm.kind, alarm.organization) == ("period_not_closed", ACME)


async def test_a_tax_profile_is_of_open_periods_also_where_one_closes_meanwhile(
    books: InvoiceBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    closings: list[asyncio.Task[None]] = []

    async def load_and_close(session: AsyncSession, organization: OrganizationId) -> BillingCalendar:
        found = await load_calendar(session, organization)
        if not closings:
            closings.append(asyncio.create_task(books.worker.closer.step()))
            await asyncio.sleep(0.5)
        return found

    monkeypatch.setattr(profiles, "load_calendar", load_and_close)
    stated = TaxProfiles(books.database, record, books.clock)
    await stated.change(ACME, TaxProfile("DE"), actor=OPERATOR)
    await asyncio.gather(*closings)
    await books.worker.closer.step()
    assert await closed(books) == {"2026-03"}
    assert (await books.invoice("2026-03")).tax_jurisdiction == "DE", "it began before it was closed"
