"""Applies corrections: part by part, each in one transaction that proves to hold the organization's bucket."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.budgets import monthly, wallet
from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.core.money import NanoDollars, Price
from tokenyard.storage import bulk
from tokenyard.storage.database import AuditLog, EventLog
from tokenyard_billing.calendars import load_calendar
from tokenyard_billing.charging.charges import ChargeRow, write_rows
from tokenyard_billing.corrections.counter_charges import CounterCharges, counter_charges
from tokenyard_billing.corrections.credit_notes import issue
from tokenyard_billing.corrections.selection import Scope, behind, former_versions
from tokenyard_billing.invoice_tables import Correction, CreditNote
from tokenyard_billing.invoicing.closing import ClosingTerms
from tokenyard_billing.invoicing.drafts import invoice_id
from tokenyard_billing.ledger import journal
from tokenyard_billing.ledger.projections import SpendingChanges
from tokenyard_billing.periods import BillingCalendar
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.tables import Charge
from tokenyard_billing.wallets.changes import BudgetChanges

PART = 500


async def apply_part(
    session: AsyncSession,
    correction: Correction,
    *,
    prices: PriceList,
    terms: ClosingTerms,
    audit: AuditLog,
    events: EventLog,
    now_ms: int,
) -> BudgetChanges:
    """Correct the next charges, or issue the credit notes where there are none left; return what changed of budgets.

    Credit notes have a transaction of their own, which locks invoices before any balance, as whoever settles one does.

    Raises:
        UnknownPrice: the card is not known here yet.
    """
    changes = BudgetChanges(OrganizationId(correction.organization))
    changes.add([wallet(changes.organization)])
    if charges := await _next(session, correction):
        await _correct(session, correction, charges, prices, changes, now_ms=now_ms)
    else:
        await issue(session, correction, prices=prices, terms=terms, audit=audit, events=events, now_ms=now_ms)
        correction.applied_at_ms = now_ms
        _note_applied(session, correction, audit, now_ms)
    return changes


async def _correct(
    session: AsyncSession,
    correction: Correction,
    charges: Sequence[Charge],
    prices: PriceList,
    changes: BudgetChanges,
    *,
    now_ms: int,
) -> None:
    correction.part_ms, correction.part_key = charges[-1].admitted_at_ms, charges[-1].charge_key
    calendar = await load_calendar(session, changes.organization)
    counters = await _counters(session, correction, charges, prices, calendar, now_ms=now_ms)
    await _post(session, correction, counters, now_ms)
    if rows := [row for counter in counters for row in counter.rows]:
        await write_rows(session, rows, {changes.organization: calendar}, now_ms)
        await _add_to_notes(session, correction, rows, now_ms)
        await _spend(session, rows, changes)


async def _next(session: AsyncSession, correction: Correction) -> Sequence[Charge]:
    """Return at most `PART` charges; what was admitted after it was asked for is not meant."""
    scope = msgspec.json.decode(correction.scope, type=Scope)
    query = (
        select(Charge)
        .where(
            scope.charges(OrganizationId(correction.organization), correction.card),
            Charge.admitted_at_ms <= correction.requested_at_ms,
            Charge.correction.is_distinct_from(correction.id),
            behind(correction.part_ms, correction.part_key),
        )
        .order_by(Charge.admitted_at_ms, Charge.charge_key)
        .limit(PART)
    )
    return (await session.scalars(query)).all()


async def _counters(
    session: AsyncSession,
    correction: Correction,
    charges: Sequence[Charge],
    prices: PriceList,
    calendar: BillingCalendar,
    *,
    now_ms: int,
) -> list[CounterCharges]:
    former = await _former(session, charges)
    found = [
        counter_charges(
            charge,
            None if correction.card is None else _anew(prices, charge, correction.card),
            calendar,
            correction=correction.id,
            at_ms=now_ms,
            former=former.get(charge.charge_key, ()),
        )
        for charge in charges
    ]
    return [counter for counter in found if counter is not None]


def _anew(prices: PriceList, charge: Charge, card: str) -> Price:
    """Return the price of `charge` on the card.

    A correction is refused where the card has none; a charge that came to the ledger since then keeps its own.
    """
    return prices.on_card(charge.price, card) or prices.by_id(charge.price)


async def _former(session: AsyncSession, charges: Sequence[Charge]) -> dict[str, list[Charge]]:
    """Return what each charge took the place of, of each earlier bill that has a part of it: the newest first."""
    keys = {charge.charge_key: former_versions(charge.charge_key) for charge in charges}
    query = select(Charge).where(Charge.charge_key.in_([key for own in keys.values() for key in own]))
    found = {one.charge_key: one for one in await session.scalars(query)}
    former: dict[str, list[Charge]] = {}
    for charge in charges:
        billed_in = charge.billed_in
        for one in (found[key] for key in keys[charge.charge_key]):
            if one.billed_in < billed_in:
                former.setdefault(charge.charge_key, []).append(one)
                billed_in = one.billed_in
    return former


async def _post(session: AsyncSession, correction: Correction, counters: Sequence[CounterCharges], now_ms: int) -> None:
    """Post what costs less and what costs more, each by itself: together they might come to nothing."""
    lowering = [counter for counter in counters if counter.difference < 0]
    raising = [counter for counter in counters if counter.difference > 0]
    groups = [group for group in (lowering, raising) if group]
    postings = [
        journal.charges_corrected(
            OrganizationId(correction.organization),
            NanoDollars(sum(counter.difference for counter in group)),
            reference=correction.id,
            reason=correction.reason,
            actor=correction.actor,
        )
        for group in groups
    ]
    for transaction, group in zip(await journal.post(session, postings, now_ms), groups, strict=True):
        for row in (row for counter in group for row in counter.rows if row["amount"]):
            row["transaction"] = transaction
    correction.charges += len(counters)
    correction.lowered -= sum(counter.difference for counter in lowering)
    correction.raised += sum(counter.difference for counter in raising)


async def _add_to_notes(session: AsyncSession, correction: Correction, rows: Sequence[ChargeRow], now_ms: int) -> None:
    totals: dict[tuple[str, str], int] = {}
    for row in rows:
        if row["credit_note"] is not None:
            key = row["credit_note"], row["billed_in"]
            totals[key] = totals.get(key, 0) - row["amount"]
    notes = [
        {
            "id": identity,
            "organization": correction.organization,
            "correction": correction.id,
            "invoice": invoice_id(correction.organization, period),
            "reason": correction.reason,
            "begun_at_ms": now_ms,
            "total": total,
            **dict.fromkeys(("lowered", "tax", "tax_included", "rounding", "due_lowered", "credited"), 0),
            "lowered_account": "",
        }
        for (identity, period), total in sorted(totals.items())
    ]
    await bulk.add_up(session, CreditNote, notes, add=("total",))


async def _spend(session: AsyncSession, rows: Sequence[ChargeRow], changes: BudgetChanges) -> None:
    spending = SpendingChanges()
    for row in rows:
        scopes = row["organization"], row["project"], row["key"]
        spending.add(scopes, row["admitted_at_ms"], spent=row["amount"])
        changes.add(monthly(scope, row["admitted_at_ms"]) for scope in scopes if scope)
    await spending.write(session)


def _note_applied(session: AsyncSession, correction: Correction, audit: AuditLog, now_ms: int) -> None:
    details: dict[str, object] = {
        "charges": correction.charges,
        "lowered": correction.lowered,
        "raised": correction.raised,
    }
    audit(
        *(session, OrganizationId(correction.organization), ApiKeyId(correction.actor)),
        *("correction.applied", correction.id),
        at=now_ms // 1000,
        details=details,
        before={},
    )
