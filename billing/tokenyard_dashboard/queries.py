"""What the pages read. Usage comes from the hourly projection, never from single charges."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import func, select

from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.storage.database import Database
from tokenyard_billing.invoicing.invoices import LineView
from tokenyard_billing.ledger.journal import AccountName
from tokenyard_billing.tables import Alarm, Balance, HourlyUsage, Invoice, InvoiceLine


class Usage(msgspec.Struct, frozen=True):
    """Charged usage of one group: `name` is an organization id or a model."""

    name: str
    requests: int
    input_tokens: int
    output_tokens: int
    trained_tokens: int
    amount: NanoDollars


class Spend(msgspec.Struct, frozen=True):
    """Nano-dollars charged to one organization in one time slot (`slot` x slot length is unix milliseconds)."""

    slot: int
    name: str
    amount: NanoDollars


class InvoiceHead(msgspec.Struct, frozen=True):
    """An invoice without its lines."""

    id: str
    organization: OrganizationId
    period: str
    state: str
    total: NanoDollars
    credit_applied: NanoDollars
    amount_due: NanoDollars


class AlarmRow(msgspec.Struct, frozen=True):
    """An alarm, as the overview lists it."""

    kind: str
    subject: str
    message: str
    at_ms: int


class Usages:
    """Usage over time and by group; `organization` None means all of them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def by_organization(self, since_ms: int) -> list[Usage]:
        return await self._grouped("organization", since_ms, None)

    async def by_model(self, since_ms: int, organization: OrganizationId | None = None) -> list[Usage]:
        return await self._grouped("model", since_ms, organization)

    async def over_time(
        self, since_ms: int, slot_ms: int, group: str, organization: OrganizationId | None = None
    ) -> list[Spend]:
        """Return spend for each slot and value of `group` (`organization` or `model`)."""
        column = getattr(HourlyUsage, group)
        slot = (HourlyUsage.hour_ms - HourlyUsage.hour_ms % slot_ms).label("slot")
        query = select(slot, column, func.sum(HourlyUsage.amount)).where(HourlyUsage.hour_ms >= since_ms)
        if organization is not None:
            query = query.where(HourlyUsage.organization == organization)
        async with self._database.reading() as session:
            rows = await session.execute(query.group_by(slot, column))
            return [Spend(int(at) // slot_ms, name, NanoDollars(int(amount))) for at, name, amount in rows]

    async def _grouped(self, group: str, since_ms: int, organization: OrganizationId | None) -> list[Usage]:
        column = getattr(HourlyUsage, group)
        counters = (
            HourlyUsage.requests,
            HourlyUsage.prompt_tokens,
            HourlyUsage.completion_tokens,
            HourlyUsage.trained_tokens,
            HourlyUsage.amount,
        )
        query = select(column, *(func.sum(counter) for counter in counters)).where(HourlyUsage.hour_ms >= since_ms)
        if organization is not None:
            query = query.where(HourlyUsage.organization == organization)
        query = query.group_by(column).order_by(func.sum(HourlyUsage.amount).desc(), column)
        async with self._database.reading() as session:
            return [
                Usage(name, int(calls), int(read), int(written), int(trained), NanoDollars(int(amount)))
                for name, calls, read, written, trained, amount in await session.execute(query)
            ]


class Invoices:
    """Invoices, wallets and alarms."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def wallets(self) -> dict[OrganizationId, NanoDollars]:
        """Return each organization's prepaid balance in the ledger."""
        query = select(Balance.organization, Balance.amount).where(Balance.account == AccountName.WALLET)
        async with self._database.reading() as session:
            rows = await session.execute(query)
            return {OrganizationId(organization): NanoDollars(amount) for organization, amount in rows}

    async def heads(self, organization: OrganizationId | None, limit: int) -> list[InvoiceHead]:
        """Return the newest invoices."""
        query = select(Invoice).order_by(Invoice.period.desc(), Invoice.total.desc()).limit(limit)
        if organization is not None:
            query = query.where(Invoice.organization == organization)
        async with self._database.reading() as session:
            return [_head(row) for row in await session.scalars(query)]

    async def one(self, invoice: str) -> tuple[InvoiceHead, Sequence[LineView]] | None:
        """Return an invoice with its lines, or None where there is none."""
        async with self._database.reading() as session:
            row = await session.get(Invoice, invoice)
            if row is None:
                return None
            lines = await session.scalars(
                select(InvoiceLine).where(InvoiceLine.invoice == invoice).order_by(InvoiceLine.number)
            )
            return _head(row), [
                LineView(
                    line.model, line.price, line.kind, line.quantity, NanoDollars(line.rate), NanoDollars(line.amount)
                )
                for line in lines
            ]

    async def alarms(self, limit: int) -> list[AlarmRow]:
        """Return the newest alarms."""
        query = select(Alarm).order_by(Alarm.at_ms.desc()).limit(limit)
        async with self._database.reading() as session:
            return [AlarmRow(row.kind, row.subject, row.message, row.at_ms) for row in await session.scalars(query)]


def _head(row: Invoice) -> InvoiceHead:
    return InvoiceHead(
        row.id,
        OrganizationId(row.organization),
        row.period,
        row.state,
        NanoDollars(row.total),
        NanoDollars(row.credit_applied),
        NanoDollars(row.amount_due),
    )
