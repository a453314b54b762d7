"""Where organizations pay tax: read, and changed."""

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tokenyard.core.clock import Clock
from tokenyard.core.errors import InvalidRequest
from tokenyard.core.ids import ApiKeyId, OrganizationId
from tokenyard.storage import bulk
from tokenyard.storage.database import AuditLog, Database
from tokenyard_billing.calendars import load_calendar
from tokenyard_billing.ledger.journal import lock_wallet
from tokenyard_billing.stale_invoices import mark_stale
from tokenyard_billing.tax_tables import TaxProfileChange
from tokenyard_billing.taxes.terms import NOWHERE, TaxProfile


class DatedTaxProfile(msgspec.Struct, frozen=True):
    """What holds from `since_period` on; None: nothing was ever stated."""

    organization: OrganizationId
    profile: TaxProfile
    since_period: str | None


class TaxProfiles:
    """An organization has one for all of its open periods; closed ones keep theirs, for late usage."""

    def __init__(self, database: Database, audit: AuditLog, clock: Clock) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock

    async def get(self, organization: OrganizationId) -> DatedTaxProfile:
        async with self._database.reading() as session:
            return await _last(session, organization)

    async def change(self, organization: OrganizationId, profile: TaxProfile, *, actor: ApiKeyId) -> DatedTaxProfile:
        """Let `profile` hold for what is used in the first open period and later; its drafts are drawn again.

        An exemption without a reason raises `InvalidRequest`.
        """
        if profile.exemption != "none" and not profile.reason:
            raise InvalidRequest("An exemption needs a reason, such as the number of a certificate.", param="reason")
        now_ms = self._clock.now_ms()
        async with self._database.transaction() as session:
            await lock_wallet(session, organization)  # no period is closed between this and the commit
            before = await _last(session, organization)
            since = (await load_calendar(session, organization)).first_open
            key = {"organization": organization, "since_period": since}
            stated: dict[str, object] = msgspec.structs.asdict(profile)
            change = stated | {"changed_at_ms": now_ms}
            statement = bulk.upsert(session, TaxProfileChange).values(key | change)
            await session.execute(statement.on_conflict_do_update(index_elements=list(key), set_=change))
            await mark_stale(session, [(organization, since)])
            self._audit(
                *(session, organization, actor, "organization.tax_changed", organization),
                at=now_ms // 1000,
                details=stated | {"since_period": since},
                before=msgspec.structs.asdict(before.profile),
            )
        return DatedTaxProfile(organization, profile, since)


async def _last(session: AsyncSession, organization: OrganizationId) -> DatedTaxProfile:
    changes = select(TaxProfileChange).where(TaxProfileChange.organization == organization)
    found = await session.scalar(changes.order_by(TaxProfileChange.since_period.desc()).limit(1))
    if found is None:
        return DatedTaxProfile(organization, NOWHERE, None)
    return DatedTaxProfile(organization, msgspec.convert(found, TaxProfile, from_attributes=True), found.since_period)
