"""Corrections of all organizations: to look at before, to ask for, and to read; and their credit notes."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.errors import Conflict, InvalidRequest, NotFound
from tokenyard.core.ids import ApiKeyId, OrganizationId, random_text
from tokenyard.core.redis_keys import bucket_of
from tokenyard.storage.database import AuditLog, Database, organization_lock
from tokenyard.storage.paging import part_of_list
from tokenyard_billing.calendars import load_calendar
from tokenyard_billing.corrections.selection import Preview, Scope, affected
from tokenyard_billing.corrections.store import issued, one_of, page_of
from tokenyard_billing.invoice_tables import Correction, CreditNote
from tokenyard_billing.pricing.prices import PriceList, UnknownPrice


class CorrectionOperatorStore:
    """Writes down what is to be corrected; a worker does it, within seconds."""

    def __init__(self, database: Database, prices: PriceList, audit: AuditLog, clock: Clock) -> None:
        self._database = database
        self._prices = prices
        self._audit = audit
        self._clock = clock

    async def preview(self, organization: OrganizationId, scope: Scope, card: str | None) -> Preview:
        """Return what a correction by the rate card `card`, or a reversal where it is None, would change.

        Raises:
            InvalidRequest: the scope says too little, or the card has no price of something.
        """
        async with self._database.reading() as session:
            return await self._preview(session, organization, scope, card)

    async def request(
        self,
        organization: OrganizationId,
        scope: Scope,
        card: str | None,
        *,
        reason: str,
        actor: ApiKeyId,
        idempotency_key: str,
    ) -> Correction:
        """Ask for a correction. The same idempotency key again gives the same one.

        Raises:
            InvalidRequest: as `preview`, or nothing would change.
            Conflict: the idempotency key was used for another correction.
        """
        wanted = msgspec.json.encode(scope).decode()
        async with self._database.transaction() as session:
            await organization_lock(session, organization)
            same = (Correction.organization == organization) & (Correction.idempotency_key == idempotency_key)
            found = await session.scalar(select(Correction).where(same))
            if found is not None:
                if (found.scope, found.card) != (wanted, card):
                    raise Conflict(f"The idempotency key {idempotency_key!r} was used for another correction.")
                return found
            if not (await self._preview(session, organization, scope, card)).lines:
                raise InvalidRequest("Nothing would change: there are no such charges, or they cost the same.")
            now_ms = self._clock.now_ms()
            found = Correction(
                id=f"cor_{random_text()}",
                organization=organization,
                idempotency_key=idempotency_key,
                bucket=bucket_of(organization),
                scope=wanted,
                card=card,
                reason=reason,
                actor=actor,
                requested_at_ms=now_ms,
            )
            session.add(found)
            await session.flush()
            details: dict[str, object] = {"scope": wanted, "card": card, "reason": reason}
            self._audit(
                *(session, organization, actor, "correction.requested", found.id),
                at=now_ms // 1000,
                details=details,
                before={},
            )
            return found

    async def correction(self, identity: str) -> Correction:
        async with self._database.reading() as session:
            found = await session.get(Correction, identity)
        if found is None:
            raise NotFound(f"No such correction: {identity}")
        return found

    async def corrections(
        self, organization: OrganizationId | None, *, after: str | None, limit: int
    ) -> Sequence[Correction]:
        """Return at most `limit` corrections, the newest first; an unknown `after` raises `InvalidRequest`."""
        query = select(Correction)
        if organization is not None:
            query = query.where(Correction.organization == organization)
        async with self._database.reading() as session:
            last = None if after is None else await session.get(Correction, after)
            if last is None and after is not None:
                raise InvalidRequest(f"No such correction: {after}", param="after")
            part = part_of_list(query, Correction.requested_at_ms, Correction.id, after=last, limit=limit)
            return (await session.scalars(part)).all()

    async def _preview(
        self, session: AsyncSession, organization: OrganizationId, scope: Scope, card: str | None
    ) -> Preview:
        if scope.request is None and scope.period is None and scope.since_ms is None:
            raise InvalidRequest("Say which charges: a request, a period, or since when.", param="request")
        calendar = await load_calendar(session, organization)
        try:
            lines = await affected(session, organization, scope, self._prices, card)
        except UnknownPrice as error:
            raise InvalidRequest(str(error), param="card") from error
        return Preview(calendar.closed_through, lines)


class CreditNoteOperatorStore:
    """Reads them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def credit_notes(
        self, *, organization: OrganizationId | None, invoice: str | None, after: str | None, limit: int
    ) -> Sequence[CreditNote]:
        """Return at most `limit` credit notes with lines, the newest first; `after` must be one: `InvalidRequest`."""
        query = issued(invoice)
        if organization is not None:
            query = query.where(CreditNote.organization == organization)
        return await page_of(self._database, query, after=after, limit=limit)

    async def credit_note(self, identity: str) -> CreditNote:
        return await one_of(self._database, issued(), identity)
