"""The organizations that recorded something on a day."""

from typing import NamedTuple

from sqlalchemy import Select, exists, func, select, union
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from tokenyard_billing.invoice_tables import BillingPeriod
from tokenyard_billing.sealing.days import day_of
from tokenyard_billing.sealing.lines import recorded_on
from tokenyard_billing.tables import Account, Charge, Transaction

BATCH = 100


class Owner(NamedTuple):
    organization: str
    recorded: bool


async def owners_behind(session: AsyncSession, day: str, after: str) -> list[Owner]:
    """Return the next organizations, and of each whether it recorded anything on `day`.

    Whoever has a transaction has an account, and whoever has a charge has a period; reconcile proves both.
    """
    found = _behind(after).subquery().c.organization
    charged = exists().where(Charge.organization == found, recorded_on(Charge.charged_at_ms, day))
    posted = exists().where(Transaction.organization == found, recorded_on(Transaction.posted_at_ms, day))
    query = select(found, charged | posted).order_by(found)
    return [Owner(organization, bool(recorded)) for organization, recorded in await session.execute(query)]


async def first_day(session: AsyncSession) -> str | None:
    """Return the day of the first that was ever recorded; None where nothing was."""
    first: list[int] = []
    after = ""
    while True:
        owner = _behind(after).subquery().c.organization
        charged = select(func.min(Charge.charged_at_ms)).where(Charge.organization == owner).scalar_subquery()
        posted = select(func.min(Transaction.posted_at_ms)).where(Transaction.organization == owner).scalar_subquery()
        found = (await session.execute(select(owner, charged, posted).order_by(owner))).all()
        if not found:
            return day_of(first[0]) if first else None
        first += [at_ms for row in found for at_ms in row[1:] if at_ms is not None]
        first, after = sorted(first)[:1], found[-1][0]


def _behind(after: str) -> Select[str]:
    # Each side has its own limit: else every batch would read all organizations behind it.
    sides = [_names(column, after).subquery() for column in (Account.organization, BillingPeriod.organization)]
    names = union(*(select(side.c.organization) for side in sides)).subquery().c.organization
    return select(names).order_by(names).limit(BATCH)


def _names(column: InstrumentedAttribute[str], after: str) -> Select[str]:
    return select(column).where(column > after).distinct().order_by(column).limit(BATCH)
