"""Journal, charges and hourly usage: every sum stands where its parts say."""

from sqlalchemy import case, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from tokenyard_billing.charging.charges import NO_REQUESTS
from tokenyard_billing.invoice_tables import BillingPeriod
from tokenyard_billing.ledger.journal import CORRECTION, AccountName
from tokenyard_billing.periods import HOUR_MS
from tokenyard_billing.proof.checks.comparison import EXAMPLES, Side, broken, compare
from tokenyard_billing.proof.views import Difference
from tokenyard_billing.tables import COUNTS, Balance, Charge, Entry, HourlyUsage, Transaction


async def check_journal(session: AsyncSession) -> list[Difference]:
    """Every transaction sums to 0 (I1), and every balance is the sum of its account's entries."""
    unbalanced = select(Entry.transaction, func.sum(Entry.amount)).group_by(Entry.transaction)
    rows = await session.execute(unbalanced.having(func.sum(Entry.amount) != 0).limit(EXAMPLES))
    found = [broken("transaction_not_zero", one, f"sums to {total} nano-dollars") for one, total in rows]
    entries = select(Entry.organization, Entry.account, Entry.amount)
    balances = select(Balance.organization, Balance.account, Balance.amount)
    sides = Side("entries", entries), Side("balance", balances)
    return found + await compare(session, "balance_not_entries", *sides, keys=2)


async def check_charges(session: AsyncSession) -> list[Difference]:
    """Every charge stands in the journal once (I3): revenue of its transaction = the charges that it posted."""
    charges = select(Charge.transaction, Charge.amount).where(Charge.transaction.is_not(None))
    revenue = (
        select(Entry.transaction, Entry.amount)
        .join(Transaction, Transaction.id == Entry.transaction)
        .where(Entry.account == AccountName.REVENUE, Transaction.template != CORRECTION)
    )
    found = await compare(session, "charges_not_revenue", Side("charges", charges), Side("revenue", revenue))
    unposted = select(Charge.charge_key).where(Charge.transaction.is_(None), Charge.amount != 0).limit(EXAMPLES)
    found += [
        broken("charge_not_posted", key, "has an amount and no transaction") for key in await session.scalars(unposted)
    ]
    return found + await _periods(session)


async def _periods(session: AsyncSession) -> list[Difference]:
    """Every charge is of the period that its date lies in, and billed in that one or a later one."""
    own = (BillingPeriod.organization == Charge.organization) & (BillingPeriod.period == Charge.period)
    dated = (Charge.admitted_at_ms >= BillingPeriod.start_ms) & (Charge.admitted_at_ms < BillingPeriod.end_ms)
    columns = Charge.charge_key, Charge.period, Charge.billed_in, Charge.admitted_at_ms
    misplaced = or_(~exists().where(own, dated), Charge.billed_in < Charge.period)
    found = [
        broken("charge_in_wrong_period", key, f"of {period}, billed in {billed}, admitted at {at_ms} ms")
        for key, period, billed, at_ms in await session.execute(select(*columns).where(misplaced).limit(EXAMPLES))
    ]
    other = aliased(BillingPeriod)
    overlap = exists().where(
        other.organization == BillingPeriod.organization,
        other.period < BillingPeriod.period,
        other.end_ms > BillingPeriod.start_ms,
    )
    query = select(BillingPeriod).where(or_(overlap, BillingPeriod.start_ms >= BillingPeriod.end_ms))
    return found + [
        broken("periods_overlap", f"{one.organization}/{one.period}", f"begins at {one.start_ms} ms")
        for one in await session.scalars(query.limit(EXAMPLES))
    ]


async def check_hourly_usage(session: AsyncSession) -> list[Difference]:
    """Hourly usage is the sum of its charges, row by row: errors of two rows never cancel."""
    key = ("organization", "project", "key", "kind", "model", "price", "end_user")
    amounts = (*COUNTS, "amount")
    used = [getattr(Charge, name) for name in amounts]
    charges = select(
        *(getattr(Charge, name) for name in key),
        (Charge.admitted_at_ms // HOUR_MS * HOUR_MS).label("hour_ms"),
        case((Charge.kind.in_(NO_REQUESTS), 0), (Charge.reverses.is_not(None), -1), else_=1).label("requests"),
        *used,
    ).where(or_(*(column != 0 for column in used)))
    hours = select(*(getattr(HourlyUsage, name) for name in (*key, "hour_ms", "requests", *amounts)))
    sides = Side("charges", charges), Side("hourly usage", hours)
    return await compare(session, "usage_not_charges", *sides, keys=len(key) + 1)
