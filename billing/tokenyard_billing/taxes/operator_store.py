"""The published rates of tax, and publishing one more. They belong to no organization."""

from collections.abc import Sequence

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.errors import Conflict, InvalidRequest
from tokenyard.core.ids import ApiKeyId, OrganizationId, random_text
from tokenyard.core.money import Millionths
from tokenyard.storage.database import AuditLog, Database, advisory_lock
from tokenyard.storage.paging import part_of_list
from tokenyard_billing.periods import BEGINNING
from tokenyard_billing.stale_invoices import mark_stale
from tokenyard_billing.tax_tables import TaxProfileChange, TaxRate
from tokenyard_billing.taxes.amounts import LineTax


class TaxRateOperatorStore:
    def __init__(self, database: Database, audit: AuditLog, clock: Clock) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock

    async def rates(self, *, after: str | None, limit: int) -> Sequence[TaxRate]:
        """Return at most `limit` rates, the last to start first; an unknown `after` raises `InvalidRequest`."""
        async with self._database.reading() as session:
            last = None if after is None else await session.get(TaxRate, after)
            if last is None and after is not None:
                raise InvalidRequest(f"No such tax rate: {after}", param="after")
            part = part_of_list(select(TaxRate), TaxRate.effective_from_ms, TaxRate.id, after=last, limit=limit)
            return (await session.scalars(part)).all()

    async def publish(self, jurisdiction: str, tax: LineTax, from_ms: int | None, *, actor: ApiKeyId) -> TaxRate:
        """Let `tax` hold in a jurisdiction from a moment on, by default now; drafts that it is for are drawn again.

        The same rate again changes nothing; another one from the same moment on raises `Conflict`.
        """
        now_ms = self._clock.now_ms()
        start_ms = now_ms if from_ms is None else from_ms
        async with self._database.transaction() as session:
            await advisory_lock(session, "tax rates")
            if found := await _starting(session, jurisdiction, start_ms):
                if LineTax(found.name, Millionths(found.rate), found.inclusive) != tax:
                    raise Conflict(f"The rate {found.id} of {jurisdiction} starts at that moment; rates never change.")
                return found
            made = TaxRate(
                id=f"tax_{random_text()}",
                jurisdiction=jurisdiction,
                name=tax.name,
                rate=tax.rate,
                inclusive=tax.inclusive,
                effective_from_ms=start_ms,
                published_at_ms=now_ms,
                published_by=actor,
            )
            session.add(made)
            # Whatever is drafted, and also what is being drafted right now, by the rates from before.
            await mark_stale(session, [(owner, BEGINNING) for owner in await _taxed_in(session, jurisdiction)])
            self._audit(
                *(session, None, actor, "tax_rate.published", made.id),
                at=now_ms // 1000,
                details={
                    "jurisdiction": jurisdiction,
                    "name": tax.name,
                    "rate": int(tax.rate),
                    "inclusive": tax.inclusive,
                    "effective_from_ms": start_ms,
                },
                before={},
            )
        return made


async def _starting(session: AsyncSession, jurisdiction: str, at_ms: int) -> TaxRate | None:
    query = select(TaxRate).where(TaxRate.jurisdiction == jurisdiction, TaxRate.effective_from_ms == at_ms)
    return (await session.scalars(query)).one_or_none()


async def _taxed_in(session: AsyncSession, jurisdiction: str) -> list[OrganizationId]:
    """Return who ever paid tax there, or in a part of it."""
    there = or_(
        TaxProfileChange.jurisdiction == jurisdiction, TaxProfileChange.jurisdiction.startswith(f"{jurisdiction}-")
    )
    found = await session.scalars(select(TaxProfileChange.organization).where(there).distinct())
    return [OrganizationId(one) for one in found]
