"""Drafts invoices: charges of one organization and month, grouped into lines of tokens x rate."""

import msgspec
from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.storage import bulk
from tokenyard.storage.database import Database
from tokenyard_billing.periods import TIME_ZONE, period_end_ms
from tokenyard_billing.pricing.prices import PriceList, RatedLine, rated_lines
from tokenyard_billing.tables import Charge, CreditGrant, Invoice, InvoiceLine

DRAFT = "draft"
MAX_PERIODS = 24


class InvoiceMismatch(AssertionError):
    """The lines do not sum to the charges: something is wrong with the books, and no invoice may hide it."""


class DrawnInvoice(msgspec.Struct, frozen=True):
    """One invoice; money in nano-dollars. `total` = sum of lines = `credit_applied` + `amount_due`."""

    id: str
    organization: OrganizationId
    period: str
    time_zone: str
    state: str
    lines: tuple[RatedLine, ...]
    total: NanoDollars
    credit_applied: NanoDollars
    amount_due: NanoDollars
    drafted_at_ms: int


def invoice_id(organization: str, period: str) -> str:
    """Return the id of the organization's invoice of a period: there is one, and it keeps its id."""
    return f"inv_{organization.removeprefix('org_')}_{period}"


class InvoiceStore:
    def __init__(self, database: Database, prices: PriceList, clock: Clock) -> None:
        self._database = database
        self._prices = prices
        self._clock = clock

    async def drawn(self, organization: OrganizationId, period: str | None = None) -> list[DrawnInvoice]:
        """Return the newest invoices up to now, or that of one period; without charges there is none.

        Raises:
            InvoiceMismatch: the lines do not sum to the charges.
        """
        query = select(Charge.period).where(Charge.organization == organization).distinct()
        if period is not None:
            query = query.where(Charge.period == period)
        async with self._database.reading() as session:
            periods = (await session.scalars(query.order_by(Charge.period.desc()).limit(MAX_PERIODS))).all()
            return [await self._draw(session, organization, found) for found in periods]

    async def keep(self, organization: OrganizationId, period: str) -> None:
        """Draw the invoice up and write it down in place of the last draft."""
        async with self._database.transaction() as session:
            await _write(session, await self._draw(session, organization, period))

    async def _draw(self, session: AsyncSession, organization: OrganizationId, period: str) -> DrawnInvoice:
        lines, charged = await self._lines(session, organization, period)
        total = NanoDollars(sum(line.amount for line in lines))
        if total != charged:
            raise InvoiceMismatch(f"{organization} {period}: lines sum to {total}, charges to {charged} nano-dollars")
        credit = await _credit_before(session, organization, period)
        applied = NanoDollars(max(0, min(credit, total)))
        return DrawnInvoice(
            id=invoice_id(organization, period),
            organization=organization,
            period=period,
            time_zone=TIME_ZONE,
            state=DRAFT,
            lines=tuple(lines),
            total=total,
            credit_applied=applied,
            amount_due=NanoDollars(total - applied),
            drafted_at_ms=self._clock.now_ms(),
        )

    async def _lines(
        self, session: AsyncSession, organization: OrganizationId, period: str
    ) -> tuple[list[RatedLine], int]:
        sums = (
            Charge.prompt_tokens,
            Charge.cached_tokens,
            Charge.completion_tokens,
            Charge.trained_tokens,
            Charge.amount,
        )
        query = (
            select(Charge.model, Charge.price, *(func.sum(column) for column in sums))
            .where(Charge.organization == organization, Charge.period == period)
            .group_by(Charge.model, Charge.price)
            .order_by(Charge.model, Charge.price)
        )
        lines: list[RatedLine] = []
        charged = 0
        for row in (await session.execute(query)).all():
            model, price, prompt, cached, completion, trained, amount = tuple(row)
            charged += int(amount)
            lines += rated_lines(
                model,
                self._prices.by_id(price),
                prompt_tokens=int(prompt),
                cached_tokens=int(cached),
                completion_tokens=int(completion),
                trained_tokens=int(trained),
            )
        return lines, charged


async def _credit_before(session: AsyncSession, organization: OrganizationId, period: str) -> int:
    """Return what was granted before the period's end and not used up by earlier periods."""
    granted = select(func.coalesce(func.sum(CreditGrant.amount), 0)).where(
        CreditGrant.organization == organization, CreditGrant.granted_at_ms < period_end_ms(period, TIME_ZONE)
    )
    used = select(func.coalesce(func.sum(Charge.amount), 0)).where(
        Charge.organization == organization, Charge.period < period
    )
    return int(await session.scalar(granted) or 0) - int(await session.scalar(used) or 0)


async def _write(session: AsyncSession, drawn: DrawnInvoice) -> None:
    head = {name: getattr(drawn, name) for name in drawn.__struct_fields__ if name != "lines"}
    changes = {name: value for name, value in head.items() if name not in {"id", "organization", "period"}}
    statement = bulk.upsert(session, Invoice).values(head)
    await session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=changes))
    await session.execute(delete(InvoiceLine).where(InvoiceLine.invoice == drawn.id))
    rows = [
        {"invoice": drawn.id, "number": number, "amount": line.amount, **msgspec.structs.asdict(line)}
        for number, line in enumerate(drawn.lines)
    ]
    await bulk.insert(session, InvoiceLine, rows)
