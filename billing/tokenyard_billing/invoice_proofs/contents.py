"""What proves an invoice: what it says, its charges and journal in the lines of their days, prices, and seals."""

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.ids import OrganizationId
from tokenyard_billing.charging.charges import billed_by
from tokenyard_billing.invoice_proofs.archive import Archive
from tokenyard_billing.invoice_proofs.read_me import read_me
from tokenyard_billing.invoice_proofs.stated_prices import stated_price
from tokenyard_billing.invoice_tables import Invoice
from tokenyard_billing.periods import DAY_MS
from tokenyard_billing.pricing.prices import PriceList
from tokenyard_billing.sealing.canonical import CHARGE_FIELDS, FORMAT, charge_line, day_header
from tokenyard_billing.sealing.days import day_of
from tokenyard_billing.sealing.lines import DAY_READS, bytewise, parts_of, sealed_parts
from tokenyard_billing.sealing.merkle import merkle_path
from tokenyard_billing.sealing.recomputing import StoredSeal, stored_seals
from tokenyard_billing.tables import Charge

INVOICE_FIELDS = (
    *("id", "organization", "number", "issuer", "period", "time_zone", "period_start_ms", "period_end_ms"),
    *("issued_at_ms", "due_at_ms", "total", "credit_applied", "tax", "tax_included", "rounding", "amount_due"),
    *("tax_jurisdiction", "tax_exemption", "tax_reason"),
)
"""What an issued invoice says for ever; how it ends is no part of it."""
LINE_FIELDS = (
    *("number", "usage_period", "model", "price", "kind", "quantity", "rate", "amount", "credit_applied"),
    *("tax_name", "tax_rate", "tax_inclusive", "tax"),
)


class InvoiceContents:
    """Writes them, in one reading transaction and in bounded memory. `invoice` has its lines."""

    def __init__(self, session: AsyncSession, invoice: Invoice, prices: PriceList) -> None:
        self._session = session
        self._invoice = invoice
        self._prices = prices
        self._charges = billed_by(OrganizationId(invoice.organization), invoice.period)

    async def write(self, archive: Archive) -> None:
        """Raises `UnknownPrice` where a charge has a price that no card has."""
        days = await self._days()
        seals = [seal async for seal in stored_seals(self._session, days[0], days[-1])]
        async with archive.member("README.txt") as member:
            await member.write(read_me(self._invoice.id))
        await archive.add_json("invoice.json", self._stated_invoice())
        await archive.add_json("prices.json", {"prices": await self._used_prices()})
        await archive.add_json("proof.json", await self._proof(days, seals))
        for day in days:
            await archive.add_lines(f"days/{day}.ndjson", self._lines(day))
        await archive.add_lines("undone.ndjson", self._undone(days))

    async def _days(self) -> list[str]:
        """Return the days on which its charges were recorded, and that of its issue, in order."""
        number = Charge.charged_at_ms // DAY_MS
        found = (await self._session.scalars(select(number).where(self._charges).distinct())).all()
        issued_at_ms = self._invoice.issued_at_ms or 0
        return sorted({day_of(int(one) * DAY_MS) for one in found} | {day_of(issued_at_ms)})

    def _stated_invoice(self) -> dict[str, Any]:
        lines = [{name: getattr(line, name) for name in LINE_FIELDS} for line in self._invoice.lines]
        stated = {name: getattr(self._invoice, name) for name in INVOICE_FIELDS}
        return {"format": FORMAT, "currency": "usd", **stated, "lines": lines}

    async def _used_prices(self) -> list[dict[str, Any]]:
        used = (await self._session.scalars(select(Charge.price).where(self._charges).distinct())).all()
        return [stated_price(self._prices, price) for price in sorted(used)]

    async def _proof(self, days: Sequence[str], seals: Sequence[StoredSeal]) -> dict[str, Any]:
        sealed = {seal.day for seal in seals}
        stated = [await self._place(day) if day in sealed else {"day": day, "sealed": False} for day in days]
        chain = [msgspec.structs.asdict(seal) for seal in seals]
        return {"format": FORMAT, "organization": self._invoice.organization, "days": stated, "seals": chain}

    async def _place(self, day: str) -> dict[str, Any]:
        """Return where the organization's part stands in a day's seal: hashes of the others, and nothing else."""
        parts = await sealed_parts(self._session, day)
        own = next((i for i, part in enumerate(parts) if part.organization == self._invoice.organization), None)
        if own is None:
            return {"day": day, "sealed": True, "part": None}
        counts = {name: getattr(parts[own], name) for name in ("charges", "transactions", "digest")}
        path = [one.hex() for one in merkle_path([part.leaf for part in parts], own)]
        return {"day": day, "sealed": True, "part": {**counts, "index": own, "path": path}}

    async def _lines(self, day: str) -> AsyncIterator[Sequence[bytes]]:
        yield [day_header(day, self._invoice.organization)]
        for read in DAY_READS:
            async for lines in read(self._session, day, self._invoice.organization):
                yield lines

    async def _undone(self, days: Collection[str]) -> AsyncIterator[Sequence[bytes]]:
        """Yield the charges that corrections of this invoice undo, where they stand in no day of it."""
        undone = select(Charge.reverses).where(self._charges, Charge.reverses.is_not(None))
        query = (
            select(*(getattr(Charge, name) for name in CHARGE_FIELDS), Charge.charged_at_ms)
            .where(Charge.organization == self._invoice.organization, Charge.charge_key.in_(undone))
            .order_by(Charge.charged_at_ms, bytewise(self._session, Charge.charge_key))
        )
        async for part in parts_of(self._session, query):
            yield [charge_line(values) for *values, at_ms in part if day_of(at_ms) not in days]
